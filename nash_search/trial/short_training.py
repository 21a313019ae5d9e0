"""One training of a calibration: the trial's own stages in fewer steps, then quality and loss on validation.

The schedule has the trial's shape, for a rate that is judged in the middle of its decay looks worse than it is.
Nothing is timed and no weights are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from nash_search import pruner
from nash_search.calibration_record import SCORING, VALIDATION_LOSS
from nash_search.pruner.distillation import cross_entropy, forward
from nash_search.records import TrialRecord
from nash_search.tasks.scoring import score
from nash_search.tasks.task import IGNORED, Batches, Examples, Task
from nash_search.trial.job import TEACHER_OUTPUTS, Hooks, Job

EXAMPLES = 512
"""Validation examples that every short training is scored on."""
LOSS_BATCH = 32

Guard = Callable[[], AbstractContextManager[Any]]


def trained(job: Job, hooks: Hooks, teacher: Any, task: Task, device: str, guard: Guard) -> TrialRecord:
    """Train by the job's recipe and score.

    Args:
        job: its recipe has the few steps.
        hooks: told of progress.
        teacher: the dense model, on the device.
        task: train batches and validation examples.
        device: where to train.
        guard: entered around every step and scored batch.
    """
    torch.set_num_threads(job.train_threads)
    job.work.mkdir(parents=True, exist_ok=True)
    recipe, context = job.config.recipe, training_context(job, hooks, device, guard)
    pruned = pruner.run(teacher, job.architecture, recipe, task.train_batches(recipe.batch_size, job.seed), context)
    began = time.monotonic()
    quality = score(pruned.model, task, "validation", limit=EXAMPLES, guard=guard)
    loss = validation_loss(pruned.model, task.validation.first(EXAMPLES), task, guard)
    scoring = {"steps": 0.0, "seconds": time.monotonic() - began}
    return TrialRecord(
        number=job.number,
        architecture=job.architecture,
        seed=job.seed,
        shapes=pruned.shapes,
        quality=quality,
        pruning=pruned.pruning | {VALIDATION_LOSS: loss},
        stages=pruned.stages | {SCORING: scoring},
    )


def training_context(
    job: Job, hooks: Hooks, device: str, guard: Guard, on_rung: Callable[[int, Any], None] | None = None
) -> pruner.TrainingContext:
    """What a job's training is run with: resumable in its work folder, the teacher's outputs shared by the study.

    Args:
        job: seed and folders.
        hooks: told of progress.
        device: where to train.
        guard: entered around every step.
        on_rung: called with the step and the model where quality is scored (None: at no rung).
    """
    return pruner.TrainingContext(
        seed=job.seed,
        device=device,
        step_guard=guard,
        on_progress=lambda stage, step, total, loss: hooks.progress(job, stage, step, total, loss),
        on_rung=on_rung,
        folder=job.work,
        teacher_cache=pruner.TeacherCache(folder=Path(job.folder) / TEACHER_OUTPUTS),
    )


@torch.no_grad()
def validation_loss(model: Any, examples: Examples, task: Task, guard: Guard) -> float:
    """Cross-entropy of the first references under teacher forcing, nats per token."""
    pad = int(task.tokenizer.pad_token_id or 0)
    device = next(model.parameters()).device
    whole = Batches(examples, batch_size=len(examples), seed=0, pad_token_id=pad)(0)
    model.eval()
    total = 0.0
    for start in range(0, len(examples), LOSS_BATCH):
        with guard():
            batch = {name: tensor[start : start + LOSS_BATCH].to(device) for name, tensor in whole.items()}
            count = int((batch["labels"] != IGNORED).sum())
            total += count * float(cross_entropy(forward(model, batch), batch["labels"])) if count else 0.0
    return total / max(1, int((whole["labels"] != IGNORED).sum()))
