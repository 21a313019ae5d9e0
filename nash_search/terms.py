"""What a front is judged by: the budgets, and what was known of the study before anything was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from nash_search import pareto
from nash_search.config import AnswerLimits, Frozen, LatencyBudget
from nash_search.latency_table import Yardstick as Yardstick
from nash_search.records import Quality
from nash_search.summaries import Summary


class Candidate(Protocol):
    """What a limit can ask of a trial's record and of a certified point alike."""

    @property
    def validation(self) -> Quality | None: ...
    @property
    def parameters(self) -> int | None: ...


class Terms(Frozen):
    """What a front is judged by: the budgets, and what was known of the study before anything was trained."""

    budgets: tuple[LatencyBudget, ...]
    limits: AnswerLimits = AnswerLimits()
    dense_ms: float
    """Dense latency of the study's first probe, milliseconds: what a share is said to be in milliseconds."""
    dense_quality: float | None = None
    """Of the dense model on validation (None: not scored yet)."""
    direction: pareto.Direction = "maximize"
    """Of the quality."""
    floor_share: float
    """Fastest shape of the search space, fraction of the dense latency."""
    others: dict[float, Yardstick] = {}
    """By percentile, what budgets of another than the study's own are judged by."""

    @property
    def quality_floor(self) -> float | None:
        """Worst validation quality that an answer may have (None: no limit)."""
        drop = self.limits.max_drop_pct
        if drop is None or self.dense_quality is None:
            return None
        return pareto.dropped(self.dense_quality, drop, self.direction)

    def admits(self, found: Candidate, *, at_length: bool = True) -> bool:
        """Do the limits let it be an answer? The one place that asks them, of trials and of certified points.

        Args:
            found: a trial's record or a certified point.
            at_length: False for a trial that would first be trained at length, which may mend its quality: it needs a
                quality but no minimum.
        """
        floor, quality = self.quality_floor, found.validation
        if quality is None:
            return False
        if not at_length:
            return True
        return floor is None or pareto.loss(quality.value, self.direction) <= pareto.loss(floor, self.direction)

    def yardstick(self, budget: LatencyBudget) -> Yardstick:
        """The dense latency and the floor, at the budget's percentile."""
        own = Yardstick(dense_ms=self.dense_ms, floor_share=self.floor_share)
        return self.others.get(budget.percentile, own)

    @classmethod
    def of_summary(
        cls,
        summary: Summary,
        budgets: Sequence[LatencyBudget],
        limits: AnswerLimits,
        others: Mapping[float, Yardstick] = MappingProxyType({}),
    ) -> Terms:
        """The terms of a study that ended, by its summary; `others` are yardsticks that it does not know.

        Raises:
            ValueError: the summary is no finished study's.
        """
        dense_ms, fastest, dense = summary.probe_dense_ms, summary.floor, summary.dense
        if dense_ms is None or fastest is None or dense is None or dense.validation_quality is None:
            raise ValueError("summary must be a finished study's, but has no dense model or no floor")
        told = {float(percentile): known for percentile, known in summary.yardsticks.items()}
        return cls(
            budgets=tuple(budgets),
            limits=limits,
            dense_ms=dense_ms,
            dense_quality=dense.validation_quality,
            direction=summary.direction,
            floor_share=fastest.share,
            others={**told, **others},
        )

    @property
    def shown_dense_ms(self) -> float | None:
        """Dense latency by which ratios are shown in milliseconds; None (wall times) where a budget is milliseconds."""
        return self.dense_ms if all(b.share is not None for b in self.budgets) else None
