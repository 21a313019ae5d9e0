"""What is fixed when a study begins, kept in its database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from nash_search.budget import MEDIAN
from nash_search.config import Architecture, Frozen, SearchSpace

SCHEMA = 1


class StudyFacts(Frozen):
    """What is fixed when a study begins."""

    schema_version: int = SCHEMA
    question: dict[str, Any]
    question_digest: str
    baseline: Architecture
    """The dense model in the space's coordinates; it is told, never trained."""
    loosest_share: float
    """The loosest budget, fraction of the dense latency; the constraint is relative to it."""
    limits: dict[float, float] = {}
    """By percentile, the loosest budget as a fraction of the dense model's same percentile; empty where one call is
    timed and `loosest_share` is the only limit."""
    dense_ms: float
    """Dense median of the study's first probe, milliseconds."""
    dense_quality: float
    quality_metric: str
    direction: Literal["maximize", "minimize"]
    reference_share: float = 1.10
    """Hypervolume's fixed reference: latency, fraction of the dense model's."""
    reference_quality: float
    """Hypervolume's fixed reference: quality."""

    def part(self, share_at: Callable[[float], float]) -> float:
        """Smallest fraction of a loosest budget that an architecture takes, over percentiles; up to 1 it is feasible.

        Args:
            share_at: of a percentile, the architecture's share of the dense model's.
        """
        limits = self.limits or {MEDIAN: self.loosest_share}
        return min(share_at(percentile) / limit for percentile, limit in limits.items())

    @property
    def space(self) -> SearchSpace:
        """The search space, depths filled in."""
        return SearchSpace.model_validate(self.question["search_space"])
