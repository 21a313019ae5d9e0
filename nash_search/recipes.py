"""How a model trains: a trial's recipe and a teacher's, frozen values checked at construction."""

from __future__ import annotations

from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """A value: immutable, keyword-only, no unknown field."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


class Knobs(Frozen, use_attribute_docstrings=True):
    """What a file and the command line set: each plain field is a flag (`cli.flags`), its docstring the flag's help."""


Labels = Literal["data", "teacher", "mixed"]
Precision = Literal["auto", "fp32", "bf16"]
GPU_WIDTHS = 8
"""What FFN widths are multiples of on a GPU."""


R = TypeVar("R", bound=BaseModel)


def on_gpu(recipe: R) -> R:
    """A recipe whose precision was left open multiplies as a GPU is fastest."""
    return recipe if "precision" in recipe.model_fields_set else recipe.model_copy(update={"precision": "auto"})


class PruningRecipe(Frozen):
    """How one trial trains; every trial of a study takes the same steps."""

    narrow_steps: int = Field(default=300, ge=0)
    """Optimizer steps of stage 2 (gates and weights); at sparsity 0 they go to the tune stage."""
    tune_steps: int = Field(default=300, ge=0)
    """Optimizer steps of stage 4 on the cut model."""
    batch_size: int = Field(default=64, ge=1)
    """Sequences per optimizer step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Weights, stage 2; linear decay to zero over the whole trial."""
    tune_learning_rate: float = Field(default=1e-3, gt=0)
    """Weights, stage 4; linear decay to zero."""
    gate_learning_rate: float = Field(default=0.1, gt=0)
    """Gates' Adam; the paper's 0.01 is for thousands of steps."""
    multiplier: Literal["solved", "ascent"] = "solved"
    """Lagrange multiplier: the exact one at every step, or the paper's gradient ascent."""
    multiplier_learning_rate: float = Field(default=0.1, gt=0)
    """Lagrange multipliers, gradient ascent only."""
    ramp_fraction: float = Field(default=0.5, gt=0, le=1)
    """Share of stage 2 over which the sparsity target rises from 0 to the asked one."""
    ce_weight: float = Field(default=0.5, ge=0)
    """Weight of the cross-entropy with the labels."""
    kd_weight: float = Field(default=0.5, ge=0)
    """Weight of the temperature-scaled KL to the teacher's logits."""
    hidden_weight: float = Field(default=0.001, ge=0)
    """Weight of the hidden-state MSE (normalised by the teacher's variance), stage 2 only."""
    temperature: float = Field(default=2.0, gt=0)
    """Of the KL: both models' logits are divided by it."""
    grad_clip: float = Field(default=1.0, gt=0)
    """Largest gradient norm of the weights (gates and multipliers are not clipped)."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay of the weights."""
    narrowing: Literal["gates", "shared", "fisher", "magnitude", "random"] = "gates"
    """Stage 2: trained gates; `shared`: once for the whole study, trials only tune; or a baseline that cuts by a
    score at once and trains all steps after."""
    labels: Labels = "data"
    """What a student learns to write: the data's targets, what the teacher writes for the same inputs
    (sequence-level distillation; not with mBART), generated once per example and study, or both in turn (`mixed`)."""
    calibrate: bool = False
    """Find both learning rates and the labels by short trainings before the search; `recipe: auto` is short for it.
    What this recipe says of them is then where the calibration begins."""
    gate_init: Literal["open", "fisher"] = "open"
    """Where gates start: all open, or the less open the lower their Fisher score."""
    widths: Literal["free", "uniform"] = "free"
    """`uniform`: every encoder block keeps the same width, so BART-family exports are stock."""
    width_multiple: int = Field(default=1, ge=1)
    """FFN widths are rounded to a multiple of this; on a GPU to one of 8 at least."""
    precision: Precision = "fp32"
    """What training multiplies in: `bf16` by autocast, weights stay whole; `auto`: bf16 where it is faster. On a GPU
    `auto` is the default, and what stays in float32 is multiplied in TF32."""
    rungs: int = Field(default=4, ge=1)
    """How often quality is scored during training (the last one is the result)."""

    def on(self, device: str) -> Self:
        """The recipe as it prunes for a device: a GPU's matrix units take widths in eights, and half precision."""
        found = on_gpu(self) if device.startswith("cuda") else self
        if device.startswith("cuda") and self.width_multiple < GPU_WIDTHS:
            return found.model_copy(update={"width_multiple": GPU_WIDTHS})
        return found

    @property
    def trial_steps(self) -> int:
        """Optimizer steps that one trial takes by itself."""
        return self.tune_steps + (0 if self.narrowing == "shared" else self.narrow_steps)

    def at_length(self, steps: int) -> PruningRecipe:
        """The same training over so many steps: both stages keep their part of them."""
        if self.narrowing == "shared":  # its stage 2 is another training, which all trials share
            return self.model_copy(update={"tune_steps": steps})
        narrow_steps = round(steps * self.narrow_steps / max(1, self.trial_steps))
        return self.model_copy(update={"narrow_steps": narrow_steps, "tune_steps": steps - narrow_steps})


class TeacherRecipe(Knobs):
    """Stage 0: how the teacher is made by `nash-search finetune`."""

    init: str = "scratch"
    """`scratch`, or the folder or hub id to start from."""
    model: dict[str, Any] = Field(default_factory=dict)
    """Config fields of a model from scratch (`model_type` and sizes)."""
    tokenizer: dict[str, Any] = Field(default_factory=dict)
    """Tokenizer to train from scratch (`kind`, `vocabulary`)."""
    epochs: float = Field(default=10, gt=0)
    """Passes over the train split."""
    batch_size: int = Field(default=64, ge=1)
    """Sequences per optimizer step."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """Peak learning rate."""
    warmup_steps: int = Field(default=100, ge=0)
    """Optimizer steps over which the learning rate rises."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target's probability that is spread over all tokens."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout while training."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay."""
    grad_clip: float = Field(default=1.0, gt=0)
    """Largest gradient norm."""
    precision: Precision = "fp32"
    """bf16: autocast; auto: bf16 where it is faster, and the default on a GPU."""
    seed: int = Field(default=0, ge=0)
    """Seed of weights and batches."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads to train with."""
