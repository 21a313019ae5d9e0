"""What `certification.json` holds: every point of the front with its certificate.

Values only. This module refuses to know how a point is timed, chosen and scored (`certify`, `sealed`).
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field

from nash_search import intervals
from nash_search.config import Architecture, Frozen, LatencyBudget
from nash_search.fidelity import Fidelity
from nash_search.records import Latency, Quality, Verdict


class Training(Frozen):
    """One seed's training of an architecture that was trained with several."""

    seed: int
    key: str
    """Name of its folder."""
    checkpoint: str
    """Its weights, relative to the study's folder."""
    share: float
    """Certified latency, fraction of the dense model's."""
    meets: tuple[str, ...] = ()
    """Budgets that it met by itself, as asked."""
    train_s: float
    train_steps: float = 0.0
    validation: Quality
    test: Quality | None = None


class Point(Frozen):
    """A point of the front with its certificate."""

    number: int
    key: str
    """Name of the trial's folder."""
    architecture: Architecture
    checkpoint: str
    """Export, relative to the study's folder."""
    latency: Latency
    """Fresh processes, interleaved with the dense model and the whole front."""
    same_tokens: bool
    """The export writes what the trained model wrote."""
    fidelity: Fidelity | None = None
    """What a quantised export keeps of its float twin's quality (None: not quantised, or of before this was asked)."""
    validation: Quality
    test: Quality | None = None
    """Only winners are scored on the sealed split."""
    seed: int = 0
    parameters: int | None = None
    seeds: tuple[Training, ...] = ()
    """All trainings of a finalist, this one too; empty where there was only one."""

    def verdict(self, budget: LatencyBudget) -> Verdict:
        """Does it meet the budget? An export that writes something else or lost its quality meets nothing."""
        return self.latency.certificate(budget) if self.sound else "missed"

    @property
    def sound(self) -> bool:
        """The export is what was trained: it writes the same tokens and is as good as its float twin."""
        return self.same_tokens and (self.fidelity is None or self.fidelity.holds)


class Certification(Frozen):
    """The whole front, certified together."""

    points: tuple[Point, ...]
    """Fastest first."""
    timed: tuple[str, ...] = ()
    """Names of all folders that were timed together, elected or not."""
    others: dict[str, Latency] = Field(default_factory=dict)
    """What was found of those that are no point, by name: asked again, their rounds still count."""
    dense_checkpoint: str
    dense_test: Quality | None = None
    opened: int = 0
    """How often the sealed test split was opened in this study."""

    def latencies(self) -> dict[str, Latency]:
        """Every latency that was certified, by folder name."""
        return self.others | {p.key: p.latency for p in self.points}

    def tests(self) -> dict[str, Quality]:
        """What is known of the sealed split, by folder name."""
        pairs = [(p.key, p.test) for p in self.points] + [(t.key, t.test) for p in self.points for t in p.seeds]
        return {key: test for key, test in pairs if test is not None}

    def with_tests(self, tests: dict[str, Quality]) -> Certification:
        """The same with these scores of the sealed split."""
        points = []
        for p in self.points:
            seeds = tuple(t.model_copy(update={"test": tests.get(t.key)}) for t in p.seeds)
            points.append(p.model_copy(update={"test": tests.get(p.key), "seeds": seeds}))
        return self.model_copy(update={"points": tuple(points)})


def over_seeds(point: Point) -> dict[str, Any] | None:
    """A finalist's quality over its seeds, mean with 95 % t-bounds; None where there is one seed.

    The bounds say how much of the number was the seed's luck. What else a quality is uncertain by (the split's
    examples) all seeds share: that is the standard error's matter.
    """
    tested = [t.test for t in point.seeds if t.test is not None]
    found = tested if tested and len(tested) == len(point.seeds) else [t.validation for t in point.seeds]
    if not found:
        return None
    values = [q.value for q in found]
    lower, upper = intervals.mean_bounds(values)
    return {
        "n": len(values),
        "split": found[0].split,
        "mean": sum(values) / len(values),
        "lower": lower if math.isfinite(lower) else None,
        "upper": upper if math.isfinite(upper) else None,
        "values": values,
        "exported_seed": point.seed,
    }
