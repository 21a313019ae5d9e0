"""What crosses from the search to whoever reads it: each type defined once.

    CertifiedPoint, Certification   `certification.json`: every point of the front with its certificate
    DenseOnEngine, Engines          the dense model, nothing pruned, on every engine that is installed

Values only: how a point is timed, chosen and scored stands in `search`.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from nash_search import intervals
from nash_search.config import Architecture, Frozen, LatencyBudget, Workload
from nash_search.fidelity import KEPT_SHARE, Fidelity
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


class CertifiedPoint(Frozen):
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

    points: tuple[CertifiedPoint, ...]
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


def over_seeds(point: CertifiedPoint) -> dict[str, Any] | None:
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


class DenseOnEngine(Frozen):
    """The dense model on one runtime in one precision."""

    workload: Workload
    """The asked call, on this runtime."""
    latency: Latency | None = None
    """Paired with the dense model on the asked runtime; None: see `reason`."""
    quality: Quality | None = None
    """Of what it writes on the first validation examples; None where that would have taken too long."""
    kept: float | None = None
    """That quality, of the float dense model's on the same examples (1: all of it)."""
    reason: str = ""
    """Why it has no latency."""
    refused: bool = False
    """It cannot serve this model at all; otherwise another try may tell more."""

    def verdict(self, share: float, margin: float = 0.0) -> Literal["met", "missed", "ambiguous"]:
        """Would a certificate say that it meets this share of the dense latency? One process's word, so none itself.

        Args:
            share: of the dense latency on the asked runtime.
            margin: how far below it (fraction) a certificate wants the median; between the two it is ambiguous.
        """
        if self.latency is None or not self.latency.ratio <= share:
            return "missed"
        clear = self.latency.ratio <= share * (1 - margin)
        return "met" if clear and intervals.verdict(self.latency.ratio_bounds, share) == "met" else "ambiguous"


class Engines(Frozen):
    """The dense model on every runtime installed here but the one that was asked for."""

    tried: tuple[DenseOnEngine, ...] = ()
    absent: tuple[str, ...] = ()
    """Extras that would bring more."""
    reference: Quality | None = None
    """The float dense model on the same examples."""
    seconds: float = 0.0
    remembered: bool = False
    """Taken from a probe or search of before."""

    @property
    def whole(self) -> bool:
        """Nothing was left out for want of time, so that it need not be tried again."""
        return self.reference is not None and all(e.refused or e.quality is not None for e in self.tried)

    def answer(self, share: float, margin: float = 0.0, max_drop_pct: float | None = None) -> DenseOnEngine | None:
        """What meets a share of the dense latency with nothing pruned, else what may: most quality, then fastest.

        Args:
            share: of the dense latency on the asked runtime.
            margin: as of `DenseOnEngine.verdict`.
            max_drop_pct: largest drop of quality that was allowed.
        """
        least = max(KEPT_SHARE, 1 - (max_drop_pct if max_drop_pct is not None else 100) / 100)
        whole = [e for e in self.tried if e.kept is not None and e.kept >= least]
        able = [e for e in whole if e.verdict(share, margin) != "missed"]
        return min(able, key=lambda e: (e.verdict(share, margin) != "met", *_worse(e)), default=None)


def _worse(engine: DenseOnEngine) -> tuple[float, float]:
    """To a tenth of a percent, since the examples say no more; what it keeps beyond the whole counts as the whole."""
    assert engine.latency is not None and engine.kept is not None
    return -min(1.0, round(engine.kept, 3)), engine.latency.ratio
