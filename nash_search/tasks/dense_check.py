"""Does the dense model know this data? Asked before anything is spent.

A model that was not fine-tuned answers as if it had not read the question: its outputs score no
better than the references of *other* examples, or are nowhere near as long as references are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from nash_search.errors import InvalidInput
from nash_search.intervals import chance_difference
from nash_search.pareto import loss
from nash_search.records import Quality
from nash_search.tasks.scoring import generate, measured, quality_of
from nash_search.tasks.task import Task

SAMPLE, MORE = 64, 512
"""Validation examples that are generated; and where these leave a better model within chance (labels of which one is
rare), at most."""
LENGTH_FACTOR = 3.0
"""Median output length may differ from the references' by at most this factor."""


def check_finetuned(
    model: Any,
    task: Task,
    *,
    fix: str,
    guard: Callable[[], AbstractContextManager[Any]] = nullcontext,
    sample: int = SAMPLE,
) -> Quality:
    """The dense model's quality on a sample of validation.

    Args:
        model: the dense model.
        task: the data it should know.
        fix: what the refusal advises, e.g. the `finetune` command to run.
        guard: entered around every generate batch.
        sample: validation examples to look at first.

    Raises:
        InvalidInput: when the outputs are not those of a model fine-tuned for the data.
    """
    examples = task.validation.first(sample)
    outputs = generate(model, task, examples.inputs, guard=guard)
    quality = quality_of(outputs, examples, task, "validation")
    made = float(np.median([len(text) for text in outputs]))
    due = float(np.median([len(several[0]) for several in examples.references]))
    where = "validation sample"
    if not due / LENGTH_FACTOR <= made <= due * LENGTH_FACTOR:
        what = f"model must be fine-tuned for the data, but got outputs of {made:.0f} characters for {due:.0f}"
        raise InvalidInput(what, where=where, fix=fix)
    # references moved on by one: answers of the right kind to other questions
    others = [several[0] for several in (*examples.references[1:], examples.references[0])]
    chance, error, _ = measured(task.metric, others, examples.references)
    gained = loss(chance, task.metric.direction) - loss(quality.value, task.metric.direction)
    if gained <= chance_difference(error, quality.standard_error):
        if gained > 0 and sample < min(MORE, len(task.validation)):
            return check_finetuned(model, task, fix=fix, guard=guard, sample=MORE)
        name = task.metric.label
        what = f"model must be fine-tuned for the data, but got {name} {quality.value:.1f}, chance is {chance:.1f}"
        raise InvalidInput(what, where=where, fix=fix)
    return quality
