"""One training that all trials of a study share: the teacher made elastic in depth and width.

    each step   one architecture: a small one (even steps), any one (odd steps), taught by the teacher
    then        a trial starts from these weights, cut by the same ranking, and only tunes

Sandwich training (Yu & Huang 2019, arXiv 1903.05134) with the teacher itself for the largest. Which heads and
neurons an architecture keeps is fixed beforehand by Fisher scores, so that narrower encoders nest in wider ones
and the weights learn what will really be cut; trained gates have no place in such a trial. Shapes: _G gates.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from nash_search.config import Architecture, PruningRecipe, digest
from nash_search.errors import InvalidInput
from nash_search.families import family_of
from nash_search.modeling_nash import block_parts, encoder_blocks
from nash_search.pruner import checkpoint, importance
from nash_search.pruner.distillation import Distillation
from nash_search.pruner.gates import Gates, gates_of, units_of
from nash_search.pruner.layer_selection import DecoderScore, ElasticDecoder, selected_blocks
from nash_search.pruner.placing import Batch
from nash_search.pruner.sequence_distillation import labelled
from nash_search.pruner.sparsity import Kept, choose
from nash_search.pruner.surgery import cut, keep_decoder_blocks, undisturbed
from nash_search.pruner.training import ALONE, Group, Optimization, TrainingContext, Watch, train

STAGE = "shared"
RANKING = "ranking.safetensors"
"""Beside the weights; written last, so a folder that has it is whole."""


@dataclass(frozen=True, kw_only=True)
class Supernet:
    """The elastic weights and what to take of them."""

    model: Any
    """All decoder blocks, the whole encoder; float32, eval mode."""
    scores_G: torch.Tensor
    """One score per gate: what is kept first."""
    blocks: dict[str, tuple[int, ...]]
    """Decoder blocks by `selection/count`."""
    steps: int
    seconds: float
    """Training time."""
    made_by: str = ""
    """Key of the trial that trained it, whose record has these seconds; kept with the weights."""

    def student(self, architecture: Architecture, recipe: PruningRecipe) -> tuple[Any, dict[str, Any]]:
        """Cut one architecture out of the shared weights.

        Returns:
            The model, not trained since the cut, and `blocks` (decoder blocks) and `kept` (heads and neurons of every
            encoder block; None: all).
        """
        blocks = self.blocks.get(_name(architecture.decoder_selection, architecture.decoder_layers))
        if blocks is None:
            raise InvalidInput(
                f"shared training must cover the architecture, but got {architecture.slug} and "
                f"{', '.join(sorted(self.blocks))}"
            )
        student = keep_decoder_blocks(self.model, blocks)
        kept = kept_units(student, self.scores_G, architecture.encoder_sparsity_pct, recipe)
        return (cut(student, *kept) if kept else student), {"blocks": blocks, "kept": kept}

    def save(self, folder: Path) -> None:
        """As a checkpoint with the ranking beside it."""
        checkpoint.save(self.model, folder)
        facts = {"blocks": self.blocks, "steps": self.steps, "seconds": self.seconds, "made_by": self.made_by}
        save_file({"scores": self.scores_G.cpu()}, folder / RANKING, metadata={"nash_search": json.dumps(facts)})

    @classmethod
    def load(cls, folder: Path) -> Supernet | None:
        """What `save` wrote, or None where it did not get to the end."""
        if not (folder / RANKING).is_file():
            return None
        with safe_open(folder / RANKING, framework="pt") as file:
            facts = json.loads(file.metadata()["nash_search"])
            ranking_G = file.get_tensor("scores")
        facts["blocks"] = {name: tuple(blocks) for name, blocks in facts["blocks"].items()}
        return cls(model=checkpoint.load(folder), scores_G=ranking_G, **facts)


def kept_units(
    model: Any, scores_G: torch.Tensor, sparsity_pct: int, recipe: PruningRecipe
) -> tuple[Kept, Kept] | None:
    """Kept heads and neurons of every encoder block by a fixed ranking; None: nothing goes."""
    if not sparsity_pct:
        return None
    units = units_of(model, gates_of(model, recipe), scores_G)
    heads, neurons = choose(units, sparsity_pct / 100, recipe.widths, recipe.width_multiple)
    return heads or [list(range(block_parts(block).heads)) for block in encoder_blocks(model)], neurons


def train_supernet(
    teacher: Any,
    architectures: Sequence[Architecture],
    recipe: PruningRecipe,
    data: Callable[[int], Batch],
    context: TrainingContext = ALONE,
) -> Supernet:
    """Train once, for all of these architectures, `recipe.narrow_steps` steps.

    Args:
        teacher: the fine-tuned dense model; never changed.
        architectures: what trials may ask for.
        recipe: rates, loss weights and how widths are chosen.
        data: step -> batch, a pure function.
        context: seed (of what each step trains, and of dropout), device, who watches (its stage is "shared"), where
            state is kept.
    """
    device, teacher_cache = torch.device(context.device), context.teacher_cache
    teacher = teacher if teacher.device == device and not teacher.training else _frozen(teacher, device)
    total = len(family_of(teacher).decoder_blocks(teacher))
    data = labelled(teacher, data, recipe.labels, teacher_cache)
    model = undisturbed(keep_decoder_blocks(teacher, tuple(range(total))).float())
    gates = gates_of(model, recipe)
    with context.step_guard():
        scores_G = importance.fisher(model, gates, data, importance.FISHER_BATCHES, device)
        blocks = _blocks(teacher, architectures, total, data, device)
    open_G = {s: _open(model, gates, scores_G, s, recipe) for s in {a.encoder_sparsity_pct for a in architectures}}
    ordered = sorted(architectures, key=lambda a: (a.decoder_layers - 1) / total - a.encoder_sparsity_pct / 100)
    small = ordered[: math.ceil(len(ordered) / 4)]
    parameters = [p for p in model.parameters() if p.requires_grad]
    decoder = ElasticDecoder(model)
    distillation = Distillation(model, teacher, range(total), recipe, hidden=False, outputs=teacher_cache)

    def loss(batch: Batch, step: int) -> torch.Tensor:
        among = ordered if step % 2 else small
        drawn = among[int(torch.randint(len(among), ()))]  # seeded by the step: a resume draws the same
        decoder.use(blocks[_name(drawn.decoder_selection, drawn.decoder_layers)])
        gates.use(open_G[drawn.encoder_sparsity_pct])
        return distillation.loss(batch)

    asked = [recipe.model_dump(), sorted(a.slug for a in architectures), context.seed, str(device)]
    group = Group(params=parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    on_step = partial(context.on_progress, STAGE) if context.on_progress is not None else None
    with gates.attached(model):
        trained = train(
            model,
            loss=loss,
            batches=data,
            steps=recipe.narrow_steps,
            optimization=Optimization(groups=[group], clip=recipe.grad_clip, precision=recipe.precision),
            seed=f"{context.seed}/{STAGE}",
            watch=Watch(step_guard=context.step_guard, on_step=on_step),
            state=context.state(STAGE, digest(asked)),
        )
    decoder.restore()
    return Supernet(
        model=model.eval(), scores_G=scores_G.cpu(), blocks=blocks, steps=trained.steps, seconds=trained.seconds
    )


def _name(selection: str, decoder_layers: int) -> str:
    return f"{selection}/{decoder_layers}"


def _frozen(teacher: Any, device: torch.device) -> Any:
    return keep_decoder_blocks(teacher, range(len(family_of(teacher).decoder_blocks(teacher)))).to(device).eval()


def _blocks(
    teacher: Any, architectures: Sequence[Architecture], total: int, data: Callable[[int], Batch], device: torch.device
) -> dict[str, tuple[int, ...]]:
    """The decoder blocks of every selection and count that is asked for."""
    asked = sorted({(a.decoder_selection, a.decoder_layers) for a in architectures})
    scored = any(selection == "scored" and count < total for selection, count in asked)
    score = DecoderScore(teacher, data, device) if scored else None
    return {_name(selection, count): selected_blocks(total, count, selection, score) for selection, count in asked}


def _open(model: Any, gates: Gates, scores_G: torch.Tensor, sparsity_pct: int, recipe: PruningRecipe) -> torch.Tensor:
    """1 for every gate whose unit this sparsity keeps, else 0."""
    kept = kept_units(model, scores_G, sparsity_pct, recipe)
    if kept is None:
        return torch.ones_like(gates.share_G)
    open_G = torch.zeros_like(gates.share_G)
    first = 0
    counts = gates.heads + gates.neurons
    for count, indices in zip(counts, [*(kept[0] if gates.heads else []), *kept[1]], strict=True):
        open_G[[first + index for index in indices]] = 1.0
        first += count
    return open_G
