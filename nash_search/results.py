"""What crosses from the search to whoever reads it: each type defined once.

    CertifiedPoint, Certification   `certification.json`: every point of the front with its certificate
    Terms, BudgetAnswer, Answers    what each budget gets from it: console, card, page and JSON all read these

A front is judged here and nowhere else (`judged`), once, when it was certified or read back. Verdicts are not stored:
they follow from the samples in `certification.json`. How a point is timed and scored stands in `search`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from nash_search import intervals, pareto
from nash_search.config import Architecture, Frozen, LatencyBudget
from nash_search.fidelity import Fidelity
from nash_search.latency_record import Latency, Verdict
from nash_search.length_forecast import Forecast, Reached, forecast_gain
from nash_search.plain_json import finite
from nash_search.records import Quality
from nash_search.summary_rows import OverSeeds
from nash_search.terms import Terms as Terms

CERTIFICATION = "certification.json"
"""In the study's folder."""


class Training(Frozen):
    """One training of an architecture that was trained more than once: at length, with other seeds."""

    seed: int
    finish_steps: int = 0
    """Optimizer steps of a training at length; 0: as a trial is trained."""
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
    finish_steps: int = 0
    """Optimizer steps of the training at length that made it; 0: it is as the search trained it."""
    parameters: int | None = None
    seeds: tuple[Training, ...] = ()
    """All trainings of a finalist, this one too; empty where there was only one."""

    def verdict(self, budget: LatencyBudget) -> Verdict:
        """Does it meet the budget? An export that writes something else or lost its quality meets nothing."""
        return self.latency.certificate(budget) if self.sound else "missed"

    @property
    def refusal(self) -> str:
        """Why its export is not what was trained, and so meets nothing; empty: it is."""
        if not self.same_tokens:
            return "refused: its export writes other tokens than the trained model"
        if self.fidelity is not None and not self.fidelity.holds:
            return f"refused: {self.fidelity.words}"
        return ""

    @property
    def sound(self) -> bool:
        """The export is what was trained: it writes the same tokens and is as good as its float twin."""
        return not self.refusal

    @property
    def quality(self) -> Quality:
        """On the sealed test split where it was scored there, else on validation."""
        return self.test or self.validation

    @property
    def alike(self) -> tuple[Training, ...]:
        """The trainings that differ from this one by their seed alone, this one too; empty where there is no other."""
        found = tuple(t for t in self.seeds if t.finish_steps == self.finish_steps)
        return found if len(found) > 1 else ()

    @property
    def searched(self) -> Quality | None:
        """Validation quality of the search's own short training; None unless this model was trained at length."""
        short = (t.validation for t in self.seeds if not t.finish_steps)
        return next(short, None) if self.finish_steps else None

    def twice(self, dense: float) -> Forecast | None:
        """What twice the steps of its training at length would bring on validation, where dense quality is `dense`."""
        short = next((t for t in self.seeds if not t.finish_steps), None)
        if not self.finish_steps or short is None or not short.train_steps:
            return None
        before, after = (
            Reached(steps=steps, quality=quality.value, standard_error=quality.standard_error)
            for steps, quality in ((short.train_steps, short.validation), (self.finish_steps, self.validation))
        )
        return forecast_gain(before, after, dense, self.validation.direction)

    @property
    def quality_by_seed(self) -> dict[int, Quality]:
        """Of every training that differs by its seed alone, on the test split where all were scored there."""
        tested = {t.seed: t.test for t in self.alike if t.test is not None}
        return tested if len(tested) == len(self.alike) else {t.seed: t.validation for t in self.alike}

    def shown_ms(self, dense_ms: float | None) -> tuple[float, float, float]:
        """Latency and its 95 % bounds as they are shown, milliseconds (infinite where nothing bounds them).

        Args:
            dense_ms: the dense latency that the paired ratio is taken of; None: wall times.
        """
        return shown_ms(self.latency, dense_ms)


def shown_ms(latency: Latency, dense_ms: float | None) -> tuple[float, float, float]:
    """A latency and its 95 % bounds, milliseconds: wall times, or the paired ratio of a dense latency."""
    if dense_ms is None:
        return latency.median_ms, *latency.bounds_ms
    low, high = latency.ratio_bounds
    return latency.ratio * dense_ms, low * dense_ms, high * dense_ms


class Certification(Frozen):
    """The whole front, certified together."""

    points: tuple[CertifiedPoint, ...]
    """Fastest first."""
    timed: tuple[str, ...] = ()
    """Names of all trial folders that were timed together, those that became no point included."""
    others: dict[str, Latency] = Field(default_factory=dict)
    """Latencies of trial folders that are no point, by name; timed again, the new rounds are pooled with these."""
    dense_checkpoint: str
    dense_test: Quality | None = None
    opened: int = 0
    """How often the sealed test split was opened in this study."""

    @classmethod
    def stored(cls, folder: Path) -> Certification | None:
        """The study's, whether its exports are still there or not; None where there is none that can be read."""
        try:
            return cls.model_validate_json((folder / CERTIFICATION).read_bytes())
        except (OSError, ValueError):
            return None

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


def over_seeds(point: CertifiedPoint) -> OverSeeds | None:
    """A finalist's quality over its seeds, mean with 95 % t-bounds; None where there is one seed.

    The bounds say how much of the number was the seed's luck. What else a quality is uncertain by (the split's
    examples) all seeds share: that is the standard error's matter.
    """
    found = list(point.quality_by_seed.values())
    if not found:
        return None
    values = tuple(q.value for q in found)
    lower, upper = intervals.mean_bounds(values)
    return OverSeeds(
        n=len(values),
        split=found[0].split,
        mean=sum(values) / len(values),
        lower=finite(lower),
        upper=finite(upper),
        values=values,
        exported_seed=point.seed,
    )


class BudgetAnswer(Frozen):
    """One budget, asked of the certified front. Console, card, page and JSON all read this."""

    budget: LatencyBudget
    verdict: Literal["met", "ambiguous", "infeasible"]
    point: CertifiedPoint | None
    """Best validation quality whose certificate has this verdict; None: infeasible."""
    floor_share: float
    """Fastest shape of the search space, fraction of the dense latency."""
    dense_ms: float
    """Dense latency of the study's first probe, milliseconds."""
    shut_out: CertifiedPoint | None = None
    """Where nothing is the answer, the best point that meets the budget but that a limit shuts out."""

    @property
    def budget_ms(self) -> float:
        """The budget; a share's milliseconds are those of the study's first probe."""
        return self.budget.ms_at(self.dense_ms)

    @property
    def floor_ms(self) -> float:
        """The fastest shape of the search space."""
        return self.floor_share * self.dense_ms

    @property
    def latency_ms(self) -> float | None:
        """The point's, as it was judged: the paired ratio for a share, wall time for milliseconds."""
        return self._shown_ms[0] if self._shown_ms else None

    @property
    def upper_ms(self) -> float | None:
        """Upper end of its 95 % interval; None where nothing bounds it."""
        return finite(self._shown_ms[2]) if self._shown_ms else None

    @property
    def latency(self) -> Latency | None:
        """The point's, at the budget's percentile."""
        return self.point.latency.at(self.budget.percentile) if self.point is not None else None

    @property
    def _shown_ms(self) -> tuple[float, float, float] | None:
        return self._judged_ms(self.point) if self.point is not None else None

    def _judged_ms(self, point: CertifiedPoint) -> tuple[float, float, float]:
        judged = point.latency.at(self.budget.percentile)
        return shown_ms(judged, None if self.budget.share is None else self.dense_ms)

    def bounds_ms(self, point: CertifiedPoint) -> tuple[float, float]:
        """Of any point of the front, the 95 % bounds that the budget judges it by, milliseconds."""
        _, low_ms, high_ms = self._judged_ms(point)
        return low_ms, high_ms


class Answers(Frozen):
    """A certification and what each budget gets from it."""

    certification: Certification
    terms: Terms
    budgets: tuple[BudgetAnswer, ...]
    """In the order of the terms' budgets."""

    @property
    def winners(self) -> dict[str, CertifiedPoint]:
        """The points that meet a budget and are its answer, by the budget's folder."""
        return {a.budget.folder: a.point for a in self.budgets if a.verdict == "met" and a.point is not None}

    def of(self, certification: Certification) -> Answers:
        """These answers with their points taken from `certification`, which has their exports or test scores by now."""
        points = {p.key: p for p in certification.points}
        found = tuple(
            a.model_copy(update={"point": points[a.point.key]}) if a.point is not None else a for a in self.budgets
        )
        return self.model_copy(update={"certification": certification, "budgets": found})


def judged(certification: Certification, terms: Terms) -> Answers:
    """The one place where a front is judged: each point once per budget."""
    return Answers(
        certification=certification,
        terms=terms,
        budgets=tuple(_choose(certification.points, budget, terms) for budget in terms.budgets),
    )


def _choose(points: Sequence[CertifiedPoint], budget: LatencyBudget, terms: Terms) -> BudgetAnswer:
    """`met` with its point, `ambiguous` with the best that may meet it, or `infeasible`."""
    best_first = [(p, p.verdict(budget)) for p in ranked(points)]
    found = [(p, verdict) for p, verdict in best_first if terms.admits(p)]
    known: dict[str, Any] = {"budget": budget, **terms.yardstick(budget).model_dump()}
    for wanted in ("met", "ambiguous"):
        best = next((p for p, verdict in found if verdict == wanted), None)
        if best is not None:
            return BudgetAnswer(verdict=wanted, point=best, **known)
    shut_out = next((p for p, verdict in best_first if verdict == "met"), None)
    return BudgetAnswer(verdict="infeasible", point=None, shut_out=shut_out, **known)


def ranked(points: Sequence[CertifiedPoint]) -> list[CertifiedPoint]:
    """Best validation quality first (ties: the faster)."""

    def rank(point: CertifiedPoint) -> tuple[float, float]:
        return pareto.loss(point.validation.value, point.validation.direction), point.latency.ratio

    return sorted(points, key=rank)
