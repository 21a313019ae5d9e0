"""What was asked: frozen values, checked once, before anything is spent.

A search space file (`search_spaces/*.yaml`) plus flags becomes one `SearchConfig`. Every field
says its unit first. This module refuses to know torch, the disk beyond the one YAML file it
is handed, and what any of these numbers will turn out to cost.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from nash_search.budget import LatencyBudget as LatencyBudget
from nash_search.errors import InvalidInput
from nash_search.recipes import Frozen as Frozen
from nash_search.recipes import PruningRecipe as PruningRecipe
from nash_search.recipes import TeacherRecipe as TeacherRecipe

Runtime = Literal["eager", "compile", "ctranslate2", "onnxruntime"]
DecoderSelection = Literal["uniform", "scored", "low", "high"]
"""Names of `nash_search.pruner.layer_selection` (a test holds them equal)."""
METRIC_NAMES = tuple("rouge1 rouge2 rougeL rougeLsum bleu chrf exact_match accuracy f1 per wer".split())
"""Built-in metrics of `nash_search.tasks.metrics` (a test holds them equal)."""
_STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?")
_IMPORT_PATH = re.compile(r"[\w./-]+:[A-Za-z_]\w*")


class Architecture(Frozen):
    """What is kept of the teacher: the point a trial is a function of."""

    encoder_sparsity_pct: int = Field(ge=0, le=95)
    """Percent of the encoder's attention and FFN weights removed (an int, so keys are exact)."""
    decoder_layers: int = Field(ge=1)
    """Decoder blocks kept."""
    decoder_selection: str = "uniform"
    """Which blocks are kept (`nash_search.pruner.layer_selection`)."""

    @property
    def slug(self) -> str:
        """Short name, e.g. `enc30-dec3`; the selection is named unless it is uniform."""
        tail = "" if self.decoder_selection == "uniform" else f"-{self.decoder_selection}"
        return f"enc{self.encoder_sparsity_pct}-dec{self.decoder_layers}{tail}"


class SearchSpace(Frozen):
    """The architectures that may be proposed."""

    encoder_sparsity_pct: tuple[int, int, int] = (0, 80, 10)
    """(low, high, step) in percent; 0 must be on the grid so that the baseline is in the space."""
    decoder_layers: tuple[int, ...] = ()
    """Decoder blocks to try; empty means 1 to the model's own depth."""
    decoder_selection: tuple[DecoderSelection, ...] = ("uniform",)

    @field_validator("encoder_sparsity_pct")
    @classmethod
    def _check_sparsity(cls, value: tuple[int, int, int]) -> tuple[int, int, int]:
        low, high, step = value
        if low > 0 and high <= 95:
            raise ValueError(f"encoder_sparsity_pct must start at 0 (the baseline is in every space), but got {low}")
        if not 0 <= low <= high <= 95:
            raise ValueError(f"encoder_sparsity_pct must be 0 <= low <= high <= 95, but got {low} to {high}")
        if step < 1:
            raise ValueError(f"encoder_sparsity_pct step must be at least 1, but got {step}")
        return value

    @field_validator("decoder_layers")
    @classmethod
    def _check_layers(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        for layers in value:
            if layers < 1:
                raise ValueError(f"decoder_layers must be at least 1, but got {layers}")
        return tuple(sorted(set(value)))

    @field_validator("decoder_selection")
    @classmethod
    def _check_selection(cls, value: tuple[DecoderSelection, ...]) -> tuple[DecoderSelection, ...]:
        if not value:
            raise ValueError("decoder_selection must name at least one strategy, but got none")
        return value

    @property
    def sparsities_pct(self) -> tuple[int, ...]:
        """Every encoder sparsity on the grid, percent, increasing."""
        low, high, step = self.encoder_sparsity_pct
        return tuple(range(low, high + 1, step))

    def filled(self, decoder_layers: int) -> SearchSpace:
        """The space with its depths filled in from the model's number of decoder blocks.

        Raises:
            InvalidInput: when a depth is asked for that the model does not have.
        """
        if not self.decoder_layers:
            return self.model_copy(update={"decoder_layers": tuple(range(1, decoder_layers + 1))})
        most = max(self.decoder_layers)
        if most > decoder_layers:
            raise InvalidInput(f"decoder_layers must be between 1 and {decoder_layers} (the model's), but got {most}")
        return self

    def architectures(self) -> tuple[Architecture, ...]:
        """All points of the space (depth must have been filled in from the model)."""
        return tuple(
            Architecture(encoder_sparsity_pct=s, decoder_layers=n, decoder_selection=d)
            for n in self.decoder_layers
            for s in self.sparsities_pct
            for d in self.decoder_selection
        )


class Workload(Frozen):
    """The one `generate` call whose wall time is the latency."""

    device: str = "cpu"
    """`cpu` or `cuda:N`, resolved."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    threads: int = Field(default=1, ge=1)
    """CPU threads of the timed process."""
    batch_size: int = Field(default=1, ge=1)
    input_tokens: int = Field(ge=1)
    """Encoder input length after padding."""
    output_tokens: int = Field(ge=1)
    """Decoder steps, forced exactly."""
    beams: int = Field(default=1, ge=1)
    attention: str = "sdpa"
    runtime: Runtime = "eager"
    quantize: Literal["none", "int8"] = "none"

    @property
    def weights_dtype(self) -> Literal["float32", "bfloat16", "float16"]:
        """Precision of the exported weights: what PyTorch times; float32 beside an engine's own files."""
        return self.dtype if self.runtime in ("eager", "compile") else "float32"


class WorkloadRequest(Frozen):
    """What the user fixed of the workload; None means "from the task's data and the teacher"."""

    device: str = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    threads: int | None = Field(default=None, ge=1, le=1024)
    batch_size: int | None = Field(default=None, ge=1, le=8192)
    input_tokens: int | None = Field(default=None, ge=1, le=65_536)
    output_tokens: int | None = Field(default=None, ge=1, le=16_384)
    beams: int | None = Field(default=None, ge=1, le=64)
    runtime: Runtime = "eager"
    quantize: Literal["none", "int8"] = "none"

    @field_validator("device")
    @classmethod
    def _check_device(cls, value: str) -> str:
        if not _DEVICE.fullmatch(value):
            raise ValueError(f"device must be auto, cpu, cuda or cuda:N, but got {value!r}")
        return value


class TaskConfig(Frozen):
    """Text in, text out: an embedded task by name, or the user's own data."""

    name: str = "g2p"
    """Embedded task (`g2p`), or the name a task over `data` goes by."""
    data: str | None = None
    """File, folder or hub dataset id; None for an embedded task."""
    data_config: str | None = None
    train_split: str = "train"
    validation_split: str = "validation"
    test_split: str = "test"
    source_column: str | None = None
    target_column: str | None = None
    prefix: str = ""
    """Prompt put before every source."""
    metric: str | None = None
    """rouge1, rouge2, rougeL, rougeLsum, bleu, chrf, exact_match, accuracy, f1, per, wer or `module:Class`."""
    metric_direction: Literal["maximize", "minimize"] | None = None
    max_input_tokens: int | None = Field(default=None, ge=1)
    max_output_tokens: int | None = Field(default=None, ge=1)
    validation_examples: int | None = Field(default=None, ge=1)
    """Examples of the validation split that the search scores (None: all)."""
    test_examples: int | None = Field(default=None, ge=1)
    train_examples: int | None = Field(default=None, ge=1)
    """Examples of the train split that are used (None: all)."""
    allow_overlap: bool = False

    @field_validator("metric")
    @classmethod
    def _check_metric(cls, value: str | None) -> str | None:
        if value is not None and value not in METRIC_NAMES and not _IMPORT_PATH.fullmatch(value):
            known = ", ".join(METRIC_NAMES)
            raise ValueError(f"metric must be one of {known} or module:Class, but got {value!r}")
        return value


Profile = Literal["quick", "balanced", "thorough"]
PROFILES: dict[Profile, float] = {"quick": 0.5, "balanced": 1.0, "thorough": 3.0}
"""Factor on trials and on optimizer steps per trial."""
Trials = Annotated[int, Field(ge=1)]


class SearchConfig(Frozen):
    """Everything one search is asked; `question` is the part that makes it *this* study."""

    task: TaskConfig = TaskConfig()
    model: str | None = None
    """Folder or hub id of the fine-tuned dense model; None: the teacher shipped with the task."""
    revision: str | None = None
    trim_vocab: bool = False
    """Before the search, the teacher loses every token that train does not need (`nash_search.tasks.vocabulary`)."""
    budgets: tuple[LatencyBudget, ...] = ()
    search_space: SearchSpace = SearchSpace()
    recipe: PruningRecipe = PruningRecipe()
    workload: WorkloadRequest = WorkloadRequest()
    teacher: TeacherRecipe | None = None
    trials: Trials = 16
    """Trials that train (complete or stopped); failures and refused proposals do not count."""
    workers: int | None = Field(default=None, ge=1)
    """Trials that train side by side (None: one per GPU, or one per CPU core)."""
    serial: bool = False
    """Run trials in this process, without Ray."""
    sampler: Literal["gp", "tpe", "random", "grid", "nsga2"] = "gp"
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    study: str | None = None
    max_drop_pct: float | None = Field(default=None, gt=0, le=100)
    """Quality floor: largest drop relative to the teacher, percent."""
    trial_timeout_s: float | None = Field(default=None, gt=0)
    time_budget_s: float | None = Field(default=None, gt=0)
    early_stopping: bool = True
    engines: bool = True
    """Before anything is spent, try the dense model, nothing pruned, on every other engine installed here."""
    keep_all: bool = False
    """Keep the weights of dominated trials."""
    format: Literal["auto", "stock"] = "auto"
    """`stock`: every export loads with plain transformers; needs `recipe.widths: uniform`."""
    finalist_seeds: int = Field(default=1, ge=1, le=20)
    """Seeds each budget's winner is trained with; more than the search's own give quality an interval over seeds."""
    certify_rounds: int = Field(default=5, ge=2)
    """Fresh processes that re-time the front."""
    certify_pairs: int = Field(default=40, ge=3)
    """Timed pairs per point of the front and process."""
    storage: str | None = Field(default=None, repr=False)
    """Optuna storage URL (None: SQLite in the study's folder); never echoed."""
    ray_address: str | None = None

    @field_validator("study")
    @classmethod
    def _check_study(cls, value: str | None) -> str | None:
        if value is not None and not _STUDY_NAME.fullmatch(value):
            rule = "study must be 1 to 64 letters, digits and . _ - (a letter or digit first)"
            raise ValueError(f"{rule}, but got {ascii(value)[:80]}")
        return value

    @model_validator(mode="after")
    def _check_format(self) -> SearchConfig:
        if self.format == "stock" and self.recipe.widths != "uniform":
            raise ValueError(f"format stock needs recipe.widths uniform, but got {self.recipe.widths}")
        return self

    @model_validator(mode="after")
    def _check_budget_count(self) -> SearchConfig:
        asked = [b.asked for b in self.budgets]
        if len(set(asked)) != len(asked):
            raise ValueError(f"budgets must differ, but got {', '.join(asked)}")
        return self

    def question(self) -> dict[str, Any]:
        """What makes two runs the same study: space, model, data, recipe, workload, seed.

        Budgets, trials, workers and storage may change between runs of one study.
        """
        keep = {"task", "model", "revision", "search_space", "recipe", "workload", "sampler", "seed", "max_drop_pct"}
        # said only where it was asked for, so that studies of before keep their names
        return self.model_dump(mode="json", include=keep | ({"trim_vocab"} if self.trim_vocab else set()))

    def profiled(self, profile: Profile, *, keep_trials: bool = False) -> SearchConfig:
        """More or less of everything that costs: trials and optimizer steps, times the profile's factor.

        Args:
            profile: `quick`, `balanced` (as the search space says) or `thorough`.
            keep_trials: the number of trials was asked for and stays.
        """
        factor = PROFILES[profile]
        steps = {name: round(getattr(self.recipe, name) * factor) for name in ("narrow_steps", "tune_steps")}
        trials = self.trials if keep_trials else max(1, round(self.trials * factor))
        return self.model_copy(update={"recipe": self.recipe.model_copy(update=steps), "trials": trials})

    @property
    def relative(self) -> bool:
        """Every budget is a share: milliseconds are then shares of the probe's dense latency."""
        return all(b.share is not None for b in self.budgets)

    @property
    def question_hash(self) -> str:
        """Six hex digits of the question; part of the default study name."""
        return digest(self.question())[:6]

    @property
    def study_name(self) -> str:
        """The study's name: asked for, or task and a short hash of the question."""
        return self.study or f"{self.task.name}-{self.question_hash}"


def digest(value: Any) -> str:
    """sha256 of a JSON value with sorted keys, hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
