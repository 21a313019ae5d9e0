"""One trial's training: shorten -> narrow -> cut -> tune.

    s* = 0 has nothing to narrow: its stage-2 steps go to stage 4, so every trial of a study takes the
    same number of optimizer steps, and that trial *is* shrink-and-fine-tune.

Stage 2 trains weights, gates and multipliers together; the gates are then hardened to exactly s*, and
the expected sparsity just before, the share of undecided gates and the loss on both sides of the cut
are reported. Where many gates are undecided then, hardening chose the units and not training: these numbers show it.
Batches, a guard around each step and the rungs are handed in (`TrainingContext`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from nash_search import loading
from nash_search.config import Architecture, PruningRecipe, digest
from nash_search.errors import InvalidInput
from nash_search.families import family_of
from nash_search.modeling_nash import block_parts, encoder_blocks
from nash_search.pruner import importance
from nash_search.pruner.distillation import Distillation
from nash_search.pruner.gates import Gates, gates_of, units_of
from nash_search.pruner.lagrangian import Ascent, Solved, ramped_target
from nash_search.pruner.layer_selection import DecoderScore, selected_blocks
from nash_search.pruner.placing import Batch, placed
from nash_search.pruner.sequence_distillation import Batches, labelled
from nash_search.pruner.sparsity import choose
from nash_search.pruner.state_file import StateFile
from nash_search.pruner.supernet import Supernet
from nash_search.pruner.surgery import cut, encoder_parameters, keep_decoder_blocks, shapes_of, undisturbed
from nash_search.pruner.training import Group, Optimization, Trained, TrainingContext, Watch, linear_decay, train
from nash_search.records import Shapes

PROBE_BATCHES = 2
"""Batches on which the loss is read just before and just after the cut."""


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What one trial's training came to."""

    model: Any
    """The cut and tuned model, in eval mode."""
    shapes: Shapes
    sparsity_expected: float | None
    """Expected encoder sparsity just before hardening (fraction; None where no gates were trained)."""
    sparsity_counted: float
    """Encoder sparsity counted on the cut model (fraction)."""
    pruning: dict[str, float]
    """undecided_share, loss_before_hardening, loss_after_hardening."""
    stages: dict[str, dict[str, float]]
    """Per stage: steps, seconds, loss."""


@dataclass(kw_only=True)
class Trial:
    """The four stages, sharing what was asked (the arguments of `pruner.run`)."""

    teacher: Any
    architecture: Architecture
    recipe: PruningRecipe
    data: Batches
    context: TrainingContext
    shared: Supernet | None

    def __post_init__(self) -> None:
        family = family_of(self.teacher)
        self.device, self.outputs = torch.device(self.context.device), self.context.teacher_cache
        if self.device.type == "cuda" and self.device.index is None:
            self.device = torch.device("cuda", torch.cuda.current_device())
        self.origin = self.teacher
        if self.context.half_teacher:
            self.teacher = loading.in_precision(self.teacher, "bfloat16").to(self.device).eval()
        elif self.teacher.training or self.teacher.device != self.device:
            self.teacher = loading.copied(self.teacher).to(self.device).eval()
            self.origin = self.teacher
        wanted = self.architecture
        self.total = len(family.decoder_blocks(self.teacher))
        selected_blocks(self.total, wanted.decoder_layers, wanted.decoder_selection, lambda _: 0.0)  # or refuses
        self.sparsity = wanted.encoder_sparsity_pct / 100
        if (self.recipe.narrowing == "shared") != (self.shared is not None):
            raise InvalidInput(
                "narrowing shared must be given the shared model, and nothing else may be, "
                f"but got {self.recipe.narrowing} {'without' if self.shared is None else 'with'} one"
            )
        gated = self.sparsity > 0 and self.recipe.narrowing == "gates"
        self.narrow_steps = self.recipe.narrow_steps if gated else 0
        self.steps = self.recipe.trial_steps
        self.rungs = {round(self.steps * (i + 1) / self.recipe.rungs) for i in range(self.recipe.rungs)}
        asked = [wanted.model_dump(), self.recipe.model_dump(), shapes_of(self.teacher).model_dump()]
        self.question = digest([*asked, self.context.seed, str(self.device), self.outputs is not None])
        self.data = labelled(self.teacher, self.data, self.recipe.labels, self.outputs)
        self.blocks: tuple[int, ...] = ()
        self.stages: dict[str, dict[str, float]] = {}

    def run(self) -> Pruned:
        narrowed, tuned = self._state("narrow"), self._state("tune")
        found = (tuned.header() if tuned else None) or (narrowed.header() if narrowed else None)
        details: dict[str, Any] = {"kept": None, "expected": 0.0, "pruning": {}}
        if self.shared is not None:
            student, taken = self.shared.student(self.architecture, self.recipe)
            student, self.blocks = undisturbed(student).to(self.device), taken["blocks"]
            details |= {"kept": taken["kept"], "expected": None}
        else:
            self.blocks = tuple(found["details"]["blocks"]) if found else self._select_blocks()
            student = undisturbed(keep_decoder_blocks(self.origin, self.blocks).float()).to(self.device)
            if found and "stages" in found["details"]:
                details = found["details"]
                self.stages = details["stages"]
                student = cut(student, *details["kept"]) if details["kept"] else student
            elif self.sparsity > 0:
                student, details = self._narrow(student, narrowed)
        if tuned is not None:
            tuned.details = {**details, "blocks": self.blocks, "stages": dict(self.stages)}
        self._tune(student, tuned)
        return Pruned(
            model=student,
            shapes=shapes_of(student),
            sparsity_expected=details["expected"],
            sparsity_counted=1 - encoder_parameters(student) / encoder_parameters(self.teacher),
            pruning=details["pruning"],
            stages=self.stages,
        )

    def _select_blocks(self) -> tuple[int, ...]:
        """Stage 1: the teacher's decoder blocks that the student keeps."""
        wanted, score = self.architecture, None
        with self.context.step_guard() if wanted.decoder_selection == "scored" else nullcontext():
            if wanted.decoder_selection == "scored" and wanted.decoder_layers < self.total:
                score = DecoderScore(self.teacher, self.data, self.device)
            return selected_blocks(self.total, wanted.decoder_layers, wanted.decoder_selection, score)

    def _narrow(self, student: Any, state: StateFile | None) -> tuple[Any, dict[str, Any]]:
        """Stages 2 and 3: the cut student, and what a resume of stage 4 needs to know."""
        recipe = self.recipe
        gates = gates_of(student, recipe)
        kept_heads = [list(range(block_parts(block).heads)) for block in encoder_blocks(student)]
        self._choose(student, gates, gates.logits_G)  # refuses an impossible sparsity before training
        scores_G = None
        if recipe.narrowing == "magnitude":
            scores_G = importance.magnitude(student, gates)
        elif recipe.narrowing == "random":
            scores_G = importance.at_random(gates, self.context.seed)
        elif recipe.narrowing == "fisher" or recipe.gate_init == "fisher":
            with self.context.step_guard():
                scores_G = importance.fisher(student, gates, self.data, importance.FISHER_BATCHES, self.device)
        if recipe.narrowing != "gates":
            assert scores_G is not None
            heads, neurons = self._choose(student, gates, scores_G)
            heads = heads or kept_heads
            return cut(student, heads, neurons), {"kept": [heads, neurons], "expected": None, "pruning": {}}
        if scores_G is not None:
            gates.logits_G.data.copy_(importance.start_logits(scores_G, gates, self.sparsity))
        self._train_gates(student, gates, state)
        before = self._plain_loss(student, gates)
        heads, neurons = self._choose(student, gates, gates.logits_G)
        head_values, neuron_values = gates.per_block(gates.evaluation().detach())
        smaller = cut(
            student,
            heads or kept_heads,
            neurons,
            head_gates=[z[k] for z, k in zip(head_values, heads, strict=True)] if heads else None,
            neuron_gates=[z[k] for z, k in zip(neuron_values, neurons, strict=True)],
        )
        pruning = {
            "undecided_share": gates.undecided_share(),
            "loss_before_hardening": before,
            "loss_after_hardening": self._plain_loss(smaller),
        }
        expected = float(gates.expected_sparsity().detach())
        return smaller, {"kept": [heads or kept_heads, neurons], "expected": expected, "pruning": pruning}

    def _train_gates(self, student: Any, gates: Gates, state: StateFile | None) -> None:
        """Stage 2: weights and gates together, the expected sparsity held to its ramp."""
        recipe = self.recipe
        distillation = Distillation(student, self.teacher, self.blocks, recipe, hidden=True)
        solved = Solved(gates, recipe.gate_learning_rate) if recipe.multiplier == "solved" else None
        ascent = Ascent(self.device)
        if state is not None:
            state.details, state.also = {"blocks": self.blocks}, solved.state() if solved is not None else {}
        groups: list[Group] = [
            {"params": _trainable(student), "lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
        ]
        if solved is None:
            groups.append(Group(params=[gates.logits_G], lr=recipe.gate_learning_rate, scheduled=False, clipped=False))
            rate = recipe.multiplier_learning_rate
            groups.append(Group(params=[ascent.values], lr=rate, maximize=True, scheduled=False, clipped=False))

        def target(step: int) -> float:
            return ramped_target(self.sparsity, step, recipe.ramp_fraction * self.narrow_steps)

        def loss(batch: Batch, step: int) -> torch.Tensor:
            gates.draw()
            value = distilled(batch)
            return value if solved is not None else value + ascent.penalty(gates.expected_sparsity(), target(step))

        def after_step(step: int) -> None:
            if solved is not None:
                solved.step(step, target(step + 1))
            gates.clamp()
            ascent.clamp()

        def at_rung(step: int) -> None:
            gates.use_evaluation()
            self.context.at_rung(step, student)

        optimization = Optimization(
            groups=groups,
            schedule=linear_decay(self.steps),
            clip=recipe.grad_clip,
            precision=recipe.precision,
            recompute=self.context.recompute,
            after_step=after_step,
            moved_after=[gates.logits_G] if solved is not None else [],
        )
        with gates.attached(student), distillation.attached() as distilled:
            trained = train(
                student,
                loss=loss,
                batches=self.data,
                steps=self.narrow_steps,
                optimization=optimization,
                seed=f"{self.context.seed}/narrow",
                watch=self._watch("narrow", 0, {rung for rung in self.rungs if rung < self.narrow_steps}, at_rung),
                state=state,
            )
        gates.use_evaluation()
        self._note("narrow", trained)

    def _tune(self, student: Any, state: StateFile | None) -> None:
        """Stage 4: the cut weights, distilled without hidden states."""
        recipe, done = self.recipe, self.narrow_steps
        distillation = Distillation(student, self.teacher, self.blocks, recipe, hidden=False, outputs=self.outputs)
        group = Group(params=_trainable(student), lr=recipe.tune_learning_rate, weight_decay=recipe.weight_decay)
        trained = train(
            student,
            loss=lambda batch, step: distillation.loss(batch),
            batches=lambda step: self.data(done + step),
            steps=self.steps - done,
            optimization=Optimization(
                groups=[group], clip=recipe.grad_clip, precision=recipe.precision, recompute=self.context.recompute
            ),
            seed=f"{self.context.seed}/tune",
            watch=self._watch(
                "tune",
                done,
                {rung - done for rung in self.rungs if rung >= done},
                lambda step: self.context.at_rung(done + step, student),
            ),
            state=state,
        )
        self._note("tune", trained)

    def _choose(self, student: Any, gates: Gates, scores_G: torch.Tensor) -> tuple[list[list[int]], list[list[int]]]:
        return choose(units_of(student, gates, scores_G), self.sparsity, self.recipe.widths, self.recipe.width_multiple)

    @torch.no_grad()
    def _plain_loss(self, model: Any, gates: Gates | None = None) -> float:
        """Distillation loss without the sparsity and hidden-state terms, in eval mode."""
        distillation = Distillation(model, self.teacher, self.blocks, self.recipe, hidden=False)
        model.eval()
        total = 0.0
        with self.context.step_guard(), gates.attached(model) if gates is not None else nullcontext():
            for step in range(PROBE_BATCHES):
                total += float(distillation.loss(placed(self.data(step), self.device))) / PROBE_BATCHES
        return total

    def _state(self, stage: str) -> StateFile | None:
        return self.context.state(stage, f"{self.question}/{stage}")

    def _watch(self, stage: str, done_before: int, rungs: Collection[int], on_rung: Callable[[int], None]) -> Watch:
        """One stage, watched as a part of the trial."""
        report = self.context.on_progress

        def on_step(step: int, steps: int, loss: float) -> None:
            if report is not None:
                report(stage, done_before + step, self.steps, loss)

        return Watch(step_guard=self.context.step_guard, on_step=on_step, rungs=rungs, on_rung=on_rung)

    def _note(self, stage: str, trained: Trained) -> None:
        self.stages[stage] = {"steps": trained.steps, "seconds": trained.seconds, "loss": trained.loss}


def _trainable(model: Any) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
