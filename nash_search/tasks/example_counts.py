"""What a metric is to scoring: counts per example that add up, as an `evaluate.Metric`.

    statistics(predictions, references) -> counts_NK      one row per example
    value(counts_NK.sum(0))             -> the metric     pooled over the examples

so that a bootstrap is a resampling of rows, for corpus metrics (BLEU, PER) too.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import datasets
import evaluate
import numpy as np

Counts = np.ndarray[Any, np.dtype[np.float64]]
Direction = Literal["maximize", "minimize"]
Measured = tuple[float, dict[str, float]]
"""A metric's value and the other metrics of the same outputs."""


class TaskMetric(Protocol):
    """What scoring needs to know of any metric."""

    @property
    def label(self) -> str:
        """The name tables show."""

    @property
    def direction(self) -> Direction:
        """Whether more is better."""

    @property
    def signature(self) -> str:
        """Version and tokenisation, as sacrebleu's signature says them."""

    def measure(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Measured:
        """The value and the metrics that stand beside it."""


class CountedMetric(evaluate.Metric):
    """A metric of counts; used through `compute` like every `evaluate.Metric`, or row by row."""

    label = ""
    direction: Direction = "maximize"

    def __init__(self, **words: Any) -> None:
        super().__init__(**{"keep_in_memory": True, **words})

    def _build_data_dir(self) -> str:
        return str(self._data_dir_root)  # nothing is written: predictions stay in memory

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=type(self).__doc__ or "",
            citation="",
            inputs_description="",
            features=datasets.Features({"predictions": text, "references": datasets.Sequence(text)}),
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        value, beside = self.measure(predictions, references)
        return {self.label: value, **beside}

    def measure(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Measured:
        """The pooled value and the metrics that stand beside it."""
        total = self.statistics(predictions, references).sum(0)
        return self.value(total), self.beside(total)

    @abstractmethod
    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Counts:
        """One row of counts per example."""

    @abstractmethod
    def value(self, total: Counts) -> float:
        """The metric of pooled counts."""

    def beside(self, total: Counts) -> dict[str, float]:
        """Other metrics of the same pooled counts."""
        return {}

    @property
    @abstractmethod
    def signature(self) -> str:
        """Version and tokenisation."""
