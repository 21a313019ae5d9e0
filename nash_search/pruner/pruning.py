"""The pruner as one call: a teacher, an architecture, a recipe and batches in, a smaller model out.

    run(teacher, architecture, recipe, batches) -> Pruned        prune(...) = run(...).model

This module refuses to know how the stages work (`stages`), tasks, quality and latency.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from nash_search.config import Architecture, PruningRecipe
from nash_search.pruner.gates import gates_of, units_of
from nash_search.pruner.stages import Batches, Pruned, Trial
from nash_search.pruner.supernet import Supernet
from nash_search.pruner.teacher_cache import TeacherCache


def prune(teacher: Any, architecture: Architecture, recipe: PruningRecipe, data: Batches, **options: Any) -> Any:
    """The pruned model: `run(...).model`."""
    return run(teacher, architecture, recipe, data, **options).model


def run(
    teacher: Any,
    architecture: Architecture,
    recipe: PruningRecipe,
    data: Batches,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    step_guard: Callable[[], AbstractContextManager[Any]] = nullcontext,
    on_progress: Callable[[str, int, int, float], None] | None = None,
    on_rung: Callable[[int, Any], bool | None] | None = None,
    folder: Path | None = None,
    save_every_s: float = 20.0,
    teacher_cache: TeacherCache | None = None,
    shared: Supernet | None = None,
) -> Pruned:
    """Train one architecture.

    Args:
        teacher: the fine-tuned dense model; never changed.
        architecture: what is kept.
        recipe: how it trains.
        data: step -> batch, a pure function.
        seed: of gates and dropout; the same seed gives the same model on CPU.
        device: where training happens.
        step_guard: entered around every optimizer step.
        on_progress: called with (stage, steps done, steps, loss); steps count over the whole trial.
        on_rung: called with (steps done, model) `recipe.rungs` times, the last one on the final model;
            True ends the trial. In stage 2 the model has its gates attached (evaluation gates).
        folder: where state is saved; a call with the same question continues from it. Rungs passed
            before are not called again. The caller removes it once the result is safe.
        save_every_s: seconds of training between saves of the state (0: after every step).
        teacher_cache: the teacher's states and answers, kept from trial to trial; stage 4 then skips its
            forward pass wherever another trial was before.
        shared: what `narrowing: shared` starts from (`train_supernet`); the trial then only tunes.

    Raises:
        InvalidInput: when the architecture does not fit the model; nothing was trained.
        Stopped: when `on_rung` asked for it.
        FloatingPointError: when the loss is not finite.
    """
    return Trial(
        teacher=teacher,
        architecture=architecture,
        recipe=recipe,
        data=data,
        seed=seed,
        device=torch.device(device),
        step_guard=step_guard,
        on_progress=on_progress,
        on_rung=on_rung,
        folder=folder,
        save_every_s=save_every_s,
        outputs=teacher_cache,
        shared=shared,
    ).run()


def largest_sparsity_pct(model: Any, recipe: PruningRecipe) -> int:
    """The most that `encoder_sparsity_pct` can be for this model: every block at its last head and neurons."""
    gates = gates_of(model, recipe)
    return math.floor(100 * units_of(model, gates, gates.logits_G).largest_sparsity(recipe.width_multiple) + 1e-9)
