"""The pruner as one call: a teacher, an architecture, a recipe and batches in, a smaller model out.

    run(teacher, architecture, recipe, batches) -> Pruned        prune(...) = run(...).model

The four stages are in `stages`.
"""

from __future__ import annotations

import math
from typing import Any

from nash_search.config import Architecture, PruningRecipe
from nash_search.pruner.gates import gates_of, units_of
from nash_search.pruner.sequence_distillation import Batches
from nash_search.pruner.stages import Pruned, Trial
from nash_search.pruner.supernet import Supernet
from nash_search.pruner.training import ALONE, TrainingContext


def prune(
    teacher: Any,
    architecture: Architecture,
    recipe: PruningRecipe,
    data: Batches,
    *,
    shared: Supernet | None = None,
    **context: Any,
) -> Any:
    """The pruned model: `run(...).model`, with the fields of `TrainingContext` by keyword (seed, device, folder, …)."""
    return run(teacher, architecture, recipe, data, TrainingContext(**context), shared=shared).model


def run(
    teacher: Any,
    architecture: Architecture,
    recipe: PruningRecipe,
    data: Batches,
    context: TrainingContext = ALONE,
    *,
    shared: Supernet | None = None,
) -> Pruned:
    """Train one architecture.

    Args:
        teacher: the fine-tuned dense model; never changed.
        architecture: what is kept.
        recipe: how it trains.
        data: step -> batch, a pure function.
        context: seed, device, who watches, where state is kept.
        shared: what `narrowing: shared` starts from (`train_supernet`); the trial then only tunes.

    Raises:
        InvalidInput: when the architecture does not fit the model; nothing was trained.
        FloatingPointError: when the loss is not finite.
    """
    return Trial(
        teacher=teacher, architecture=architecture, recipe=recipe, data=data, context=context, shared=shared
    ).run()


def largest_sparsity_pct(model: Any, recipe: PruningRecipe) -> int:
    """The most that `encoder_sparsity_pct` can be for this model: every block at its last head and neurons."""
    gates = gates_of(model, recipe)
    return math.floor(100 * units_of(model, gates, gates.logits_G).largest_sparsity(recipe.width_multiple) + 1e-9)
