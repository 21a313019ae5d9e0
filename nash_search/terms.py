"""What a front is judged by: the budgets, and what was known of the study before anything was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from nash_search import pareto
from nash_search.config import Frozen, LatencyBudget
from nash_search.latency_table import Yardstick as Yardstick
from nash_search.summaries import Summary


class Terms(Frozen):
    """What a front is judged by: the budgets, and what was known of the study before anything was trained."""

    budgets: tuple[LatencyBudget, ...]
    dense_ms: float
    """Dense latency of the study's first probe, milliseconds: what a share is said to be in milliseconds."""
    floor_share: float
    """Fastest shape of the search space, fraction of the dense latency."""
    quality_floor: float | None = None
    """Worst validation quality that an answer may have (None: no limit)."""
    others: dict[float, Yardstick] = {}
    """By percentile, what budgets of another than the study's own are judged by."""

    def yardstick(self, budget: LatencyBudget) -> Yardstick:
        """The dense latency and the floor, at the budget's percentile."""
        own = Yardstick(dense_ms=self.dense_ms, floor_share=self.floor_share)
        return self.others.get(budget.percentile, own)

    @classmethod
    def of_summary(
        cls,
        summary: Summary,
        budgets: Sequence[LatencyBudget],
        max_drop_pct: float | None,
        others: Mapping[float, Yardstick] = MappingProxyType({}),
    ) -> Terms:
        """The terms of a study that ended, by its summary; `others` are yardsticks that it does not know.

        Raises:
            ValueError: the summary is no finished study's.
        """
        dense_ms, fastest, dense = summary.probe_dense_ms, summary.floor, summary.dense
        if dense_ms is None or fastest is None or dense is None or dense.validation_quality is None:
            raise ValueError("summary must be a finished study's, but has no dense model or no floor")
        floor = None
        if max_drop_pct is not None:
            floor = pareto.dropped(dense.validation_quality, max_drop_pct, summary.direction)
        told = {float(percentile): known for percentile, known in summary.yardsticks.items()}
        return cls(
            budgets=tuple(budgets),
            dense_ms=dense_ms,
            floor_share=fastest.share,
            quality_floor=floor,
            others={**told, **others},
        )

    @property
    def shown_dense_ms(self) -> float | None:
        """What latencies are shown as shares of, milliseconds; None where a budget is milliseconds: wall times then."""
        return self.dense_ms if all(b.share is not None for b in self.budgets) else None
