"""Generate, decode, measure: one `Quality` with an interval, from any model that can `generate` or any `Writer`.

Sources are sorted by length and generated in batches with the task's own settings, the ones that
exports carry. The standard error is a bootstrap over examples: rows of counts are resampled, so
pooled rates and corpus metrics get theirs as means do. `guard` is entered around every batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import numpy as np
import torch

from nash_search.encoder_rows import EncoderRows, Given, rows_of
from nash_search.errors import InvalidInput
from nash_search.records import Quality
from nash_search.tasks.example_counts import CountedMetric, Counts, TaskMetric
from nash_search.tasks.task import Examples, Task
from nash_search.writing import written

RESAMPLES = 1000
"""Bootstrap resamples of a metric of counts."""
SLOW_RESAMPLES = 50
"""Resamples of a metric that must be computed afresh each time."""

Guard = Callable[[], AbstractContextManager[Any]]
Writer = Callable[[Any], Sequence[Sequence[int]]]
"""A serving engine, as scoring sees it: a batch of inputs (`EncoderRows`) in, token ids of their outputs out."""


def score(
    model: Any,
    task: Task,
    split: Literal["validation", "test"] = "validation",
    *,
    limit: int | None = None,
    batch_size: int | None = None,
    guard: Guard = nullcontext,
    examples: Examples | None = None,
    served: str = "",
) -> Quality:
    """The task metric of `model` on a split (or on `examples` of it already in hand).

    `split="test"` without `examples` opens the sealed test, which counts.

    Args:
        model: a PyTorch model, or a `Writer` that generates with the task's settings.
        task: data, metric and tokenizer.
        split: what is scored.
        limit: only this many examples (None: all).
        batch_size: inputs per call (None: chosen).
        guard: entered around every batch.
        examples: of the split, already in hand.
        served: what a writer is, for the signature (`ctranslate2 int8`).
    """
    if examples is None:
        examples = task.validation if split == "validation" else task.open_sealed_test()
    examples = examples.first(limit)
    if not len(examples):
        raise InvalidInput(f"{split} split must have at least 1 example to score, but got 0")
    outputs = generate(model, task, examples.inputs, batch_size=batch_size, guard=guard)
    found = quality_of(outputs, examples, task, split)
    return found.model_copy(update={"signature": f"{found.signature}|served:{served}"}) if served else found


def predict(model: Any, task: Task, sources: list[str]) -> list[str]:
    """The model's text for each source, made as it is scored."""
    return generate(model, task, task.encode(sources))


def quality_of(outputs: Sequence[str], examples: Examples, task: Task, split: Literal["validation", "test"]) -> Quality:
    """The task metric of texts already generated, with its standard error."""
    value, error, beside = measured(task.metric, outputs, examples.references)
    settings = ",".join(f"{key}={task.generation[key]}" for key in sorted(task.generation))
    return Quality(
        metric=task.metric.label,
        value=value,
        standard_error=error,
        n=len(examples),
        split=split,
        direction=task.metric.direction,
        signature=f"{task.metric.label}|{task.metric.signature}|generate:{settings}|data:{examples.fingerprint}",
        beside=beside,
    )


def measured(
    metric: TaskMetric, outputs: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[float, float, dict[str, float]]:
    """Value, bootstrap standard error and the metrics beside."""
    if isinstance(metric, CountedMetric):
        counts_NK = metric.statistics(outputs, references)
        total = counts_NK.sum(0)
        return metric.value(total), bootstrap_error(counts_NK, metric.value), metric.beside(total)
    value, beside = metric.measure(outputs, references)
    if not math.isfinite(value):
        raise InvalidInput(f"metric must be a finite number, but got {value}", where=metric.label)
    random = np.random.default_rng(0)
    values = []
    for _ in range(SLOW_RESAMPLES):
        rows = random.integers(0, len(outputs), len(outputs))
        values.append(metric.measure([outputs[i] for i in rows], [references[i] for i in rows])[0])
    defined = [v for v in values if math.isfinite(v)]  # a correlation of equal texts is none
    return value, float(np.std(defined, ddof=1)) if len(defined) > 1 else 0.0, beside


def bootstrap_error(counts_NK: Counts, value: Callable[[Counts], float]) -> float:
    """Standard deviation of the metric over resampled examples; the same data give the same number."""
    examples = len(counts_NK)
    if examples < 2:
        return 0.0
    random = np.random.default_rng(0)
    at_once = max(1, 2_000_000 // (examples * counts_NK.shape[1]))  # bounds the memory of a gather
    values: list[float] = []
    while len(values) < RESAMPLES:
        rows_BN = random.integers(0, examples, (min(at_once, RESAMPLES - len(values)), examples))
        values += [value(total) for total in counts_NK[rows_BN].sum(1)]
    return float(np.std(values, ddof=1))


def generate(
    model: Any,
    task: Task,
    inputs: Given,
    *,
    batch_size: int | None = None,
    guard: Guard = nullcontext,
) -> list[str]:
    """Decoded outputs in the order of the inputs.

    The batch is halved when memory runs out; on a GPU it is doubled before, until half of the card is full.
    """
    every = rows_of(inputs)
    order = np.argsort(every.lengths, kind="stable").tolist()
    outputs: list[str] = [""] * len(order)
    size = batch_size or max(32, 4 * task.batch_size)
    start = 0
    torch_model = hasattr(model, "generate")
    grows = torch_model and batch_size is None
    with _evaluating(model) if torch_model else nullcontext():
        while start < len(order):
            rows = order[start : start + size]
            batch = every.picked(rows)
            texts = (
                _generate_batch(model, task, batch, guard) if torch_model else _write_batch(model, task, batch, guard)
            )
            if texts is None:
                size, grows = max(1, size // 2), False
                continue
            for row, text in zip(rows, texts, strict=True):
                outputs[row] = text
            start += len(rows)
            if grows and _has_room(model):
                size *= 2
    return outputs


def _has_room(model: Any) -> bool:
    """Is more than half of the card free, with what PyTorch keeps of the largest batch so far?"""
    device = getattr(model, "device", None)
    if device is None or device.type != "cuda":
        return False
    free_bytes, total_bytes = torch.cuda.mem_get_info(device)
    return free_bytes > total_bytes / 2


def _write_batch(write: Writer, task: Task, inputs: EncoderRows, guard: Guard) -> list[str]:
    with guard():
        found = write(inputs)
    return list(task.tokenizer.batch_decode([list(row) for row in found], skip_special_tokens=True))


def _generate_batch(model: Any, task: Task, inputs: EncoderRows, guard: Guard) -> list[str] | None:
    """The batch's texts, or None when the device had too little memory for more than one sequence."""
    batch = inputs.batch(task.tokenizer.pad_token_id or 0)
    try:
        with guard(), torch.no_grad():
            found = written(model, batch, **task.generation)
    except torch.OutOfMemoryError:
        if len(inputs) == 1:
            raise
        found = None
    if found is None:  # outside the handler: its traceback would keep the tensors alive
        torch.cuda.empty_cache()
        return None
    return list(task.tokenizer.batch_decode(found, skip_special_tokens=True))


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode inside, the former mode after."""
    was_training = bool(model.training)
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
