"""With `narrowing: shared`, all trials of a study start from one shared training, done by the first that needs it.

    start             the shared model from the study's folder, or trained now while the other workers wait
    answers_s         seconds that the teacher's answers (`labels: teacher`), made once too, cost the study
    rank_correlation  does the shared model's quality order architectures as their own training does?

The training's seconds stand in the record of the trial that made it. Where the order is poor, the trials that follow
train by themselves (`trusted`). The training itself is `pruner.supernet`.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from nash_search import pruner
from nash_search.config import Architecture, PruningRecipe, SearchConfig
from nash_search.records import Quality, TrialRecord
from nash_search.trial.cost import timed_steps
from nash_search.trial.job import Job

FOLDER = "shared"
STAGE = "shared"
"""Its name among a record's stages."""
QUALITY = "shared_quality"
"""Among a record's diagnostics: what its architecture scores before training of its own."""
FEWEST = 5
"""Trained trials before the order is judged."""
POOR = 0.7
"""Rank correlation below which the shared model is not started from any more."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a trial begins with, and what its record says of it."""

    shared: pruner.Supernet | None = None
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    """The shared training, where this trial made it."""
    pruning: dict[str, float] = field(default_factory=dict)
    """Quality of the architecture as it comes out of the shared model."""


def start(
    job: Job,
    teacher: Any,
    decoder_layers: int,
    data: Callable[[int], Any],
    context: pruner.TrainingContext,
    quality: Callable[[Any], Quality],
) -> Start:
    """The shared model from the study's folder, or trained now while other workers wait; nothing for other recipes.

    Args:
        job: the trial.
        teacher: the dense model.
        decoder_layers: its depth.
        data: step -> batch.
        context: of the trial's own training.
        quality: of an untrained student.
    """
    recipe = job.config.recipe
    if recipe.narrowing != "shared":
        return Start()
    study, stages = Path(job.folder), dict[str, dict[str, float]]()
    with FileLock(study / f".{FOLDER}.lock"):
        shared = pruner.Supernet.load(study / FOLDER)
        if shared is None:
            work = study / f".work-{FOLDER}"
            largest = pruner.largest_sparsity_pct(teacher, recipe)
            space = job.config.search_space.filled(decoder_layers).architectures()
            every = [a for a in space if a.encoder_sparsity_pct <= largest]
            trained = pruner.train_supernet(teacher, every, recipe, data, replace(context, folder=work))
            shared = replace(trained, made_by=job.key)
            shared.save(study / FOLDER)
            shutil.rmtree(work, ignore_errors=True)
    if shared.made_by == job.key:  # also when that trial was killed after it
        stages[STAGE] = {"steps": float(shared.steps), "seconds": shared.seconds}
    student, _ = shared.student(job.architecture, recipe)
    return Start(shared=shared, stages=stages, pruning={QUALITY: quality(student.to(teacher.device).eval()).value})


def spread(recipe: PruningRecipe, trials: int) -> PruningRecipe:
    """A recipe for cost estimates: each of the trials carries an equal part of the shared training's steps.

    Recipes that share no training are returned as they are.
    """
    if recipe.narrowing != "shared":
        return recipe
    part = -(-recipe.narrow_steps // max(1, trials))
    return recipe.model_copy(update={"narrowing": "fisher", "narrow_steps": part})


def training_s(
    teacher: Any, task: Any, architecture: Architecture, config: SearchConfig, context: pruner.TrainingContext,
    limit_s: float,
) -> tuple[float, str]:  # fmt: skip
    """Training seconds of one trial with its part of what the study shares, and in words how that is known.

    Args:
        teacher: the dense model.
        task: its `train_batches`.
        architecture: a few steps of it are timed.
        config: recipe, seed and number of trials.
        context: where steps are taken.
        limit_s: seconds of steps at most, about.
    """
    recipe = config.recipe
    data = task.train_batches(recipe.batch_size, config.seed)
    alone = spread(recipe, config.trials).model_copy(update={"labels": "data"})

    def train(few: PruningRecipe) -> dict[str, dict[str, float]]:
        return pruner.run(teacher, architecture, few, data, context).stages

    if not pruner.encoder_is_frozen(teacher):
        seconds, timed = timed_steps(train, alone, limit_s)
    else:  # a step that hears anew, and the same again: the study hears a recording once
        with tempfile.TemporaryDirectory(prefix="nash-search-heard-") as folder:
            context = replace(context, teacher_cache=pruner.TeacherCache(folder=Path(folder)))
            (new_s, timed), (seconds, _) = timed_steps(train, alone, 0), timed_steps(train, alone, 0)
        anew = min(1.0, data.steps_per_epoch / recipe.trial_steps)
        seconds += max(0.0, new_s - seconds) * anew / config.trials
    seconds += answers_s(teacher, data, recipe, context.step_guard) / config.trials
    return seconds, f"from {timed} timed step{'s' if timed > 1 else ''} of each training stage"


def answers_s(
    teacher: Any, data: Any, recipe: PruningRecipe, guard: Callable[[], AbstractContextManager[Any]]
) -> float:
    """Seconds that the teacher's answers take the whole study, from one batch: each example is answered once."""
    if recipe.labels == "data":
        return 0.0
    began = time.monotonic()
    with guard():
        pruner.answered(teacher, data)(0)
    # mixed: in an example's second epoch it may be the other half's turn, so all are answered in the end
    return (time.monotonic() - began) * min(recipe.trial_steps, data.steps_per_epoch)


def rank_correlation(records: Sequence[TrialRecord]) -> tuple[float | None, int]:
    """Spearman's, of quality out of the shared model and after training; and how many trials say so."""
    pairs = [
        (r.pruning[QUALITY], r.quality.value)
        for r in records
        if r.quality is not None and QUALITY in r.pruning and r.status == "complete"
    ]
    if len(pairs) < FEWEST:
        return None, len(pairs)
    ranks_2N = np.argsort(np.argsort(np.array(pairs).T, axis=1, kind="stable"), axis=1)
    return float(np.asarray(np.corrcoef(ranks_2N))[0, 1]), len(pairs)


def trusted(records: Sequence[TrialRecord]) -> bool:
    """May the next trial start from the shared model?"""
    correlation, _ = rank_correlation(records)
    return correlation is None or correlation >= POOR


def summary(records: Sequence[TrialRecord]) -> dict[str, Any] | None:
    """What the shared training cost and whether it can be trusted; None where there was none."""
    made = [r.stages[STAGE] for r in records if STAGE in r.stages]
    if not made:
        return None
    correlation, trials = rank_correlation(records)
    return {
        "train_s": sum(stage["seconds"] for stage in made),
        "rank_correlation": correlation,
        "trials": trials,
        "trusted": trusted(records),
    }
