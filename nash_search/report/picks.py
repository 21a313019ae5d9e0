"""A budget's answer as a pick, with its reason.

    certified_pick   a `BudgetAnswer` in words: the point, why that one, and what the next milliseconds would buy
    promised_pick    a budget before anything is certified, as a plan or an unfinished study says it

Nothing is decided here: which point is picked is the answer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nash_search import intervals, pareto
from nash_search.config import LatencyBudget
from nash_search.pareto import Direction
from nash_search.report import escape
from nash_search.report.points import Point, ranked
from nash_search.report.words import format_ms, format_quality, looks_words, shut_out_words, twice_words
from nash_search.results import Answers, BudgetAnswer, CertifiedPoint
from nash_search.summaries import Summary
from nash_search.summary_rows import BudgetRow

MUCH = 0.2
"""Share of the dense model's quality beyond which a loss is said aloud."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What the reason for a pick needs of its study."""

    summary: Summary = field(repr=False)
    direction: Direction
    folder: Path
    """Where its exports lie."""

    @property
    def dense_quality(self) -> float | None:
        """The dense model's on validation, where it is known."""
        dense = self.summary.dense
        return None if dense is None else dense.quality_on("validation")[0]

    def nearest(self, asked: str) -> str | None:
        """The tightest budget that can be met, as the summary says it beside a budget."""
        return next((b.nearest_feasible for b in self.summary.budgets if b.asked == asked), None)

    def drawn_ms(self, asked: str, budget_ms: float) -> float:
        """A budget on the front's scale, milliseconds."""
        summary = self.summary
        front_ms = summary.probe_dense_ms or (summary.dense.latency_ms if summary.dense is not None else None)
        if summary.percentile is None or front_ms is None:
            return budget_ms
        budget = LatencyBudget.parse(asked)
        if budget.percentile == summary.percentile:
            return budget_ms
        known = summary.yardsticks.get(f"{budget.percentile:g}")
        share = budget.share if known is None else budget.share_of(known.dense_ms)
        return budget_ms if share is None else share * front_ms


@dataclass(frozen=True, kw_only=True)
class Pick:
    """One budget's answer."""

    asked: str
    budget_ms: float
    drawn_ms: float
    """Where the budget stands among the front's latencies: one of another percentile at its share of the dense model's.
    """
    floor_ms: float | None
    verdict: str
    point: Point | None
    latency_ms: float | None
    upper_ms: float | None
    speedup: float | None
    quality: float | None
    quality_error: float | None
    """Standard error of `quality`."""
    quality_split: str
    checkpoint: str | None
    beside: str
    """Other metrics of the same outputs and the dense model's: `WER 24.1 (dense 22.9)`."""
    why: str
    more: str
    """What the next point of the front would buy: `2 ms more buys +0.6`."""
    spend: str = ""
    """What more training would buy: longer trainings, or more trials."""


def certified_pick(
    answer: BudgetAnswer, points: Sequence[Point], study: Study, front: Sequence[CertifiedPoint]
) -> Pick:
    """A certified front's answer, with the reason for it."""
    found = answer.point
    row = next((p for p in points if found is not None and p.number == found.number), None)
    why, more = "", ""
    if found is not None and row is not None:
        latency = found.latency
        why = _why(answer, row, front)
        if asked_again := looks_words(latency.looks, len(latency.rounds)):
            why += f"; {asked_again}"
        more = _lost(row) + _more(row, points, study.direction)
    elif answer.verdict == "infeasible":
        why = _why_not(answer.budget_ms, answer.floor_ms, study.nearest(answer.budget.asked))
        if answer.shut_out is not None:
            why = shut_out_words(answer.budget.asked, answer.shut_out.validation.value, study.dense_quality)
    return Pick(
        asked=answer.budget.asked,
        budget_ms=answer.budget_ms,
        drawn_ms=study.drawn_ms(answer.budget.asked, answer.budget_ms),
        floor_ms=answer.floor_ms,
        verdict=answer.verdict,
        point=row,
        latency_ms=answer.latency_ms,
        upper_ms=answer.upper_ms,
        speedup=answer.latency.speedup if answer.latency else None,
        quality=found.quality.value if found else None,
        quality_error=found.quality.standard_error if found else None,
        quality_split=found.quality.split if found else "",
        checkpoint=str(study.folder / found.checkpoint) if found else None,
        beside=_beside(found, study) if found else "",
        why=why,
        more=more,
        spend=_spend(answer, points, study),
    )


def promised_pick(row: BudgetRow, points: Sequence[Point], study: Study) -> Pick:
    """A budget before its front is certified: of a plan, or by a trial's own timing where certification failed."""
    point = _find(row, points)
    why, more = "", ""
    if point is not None and point.measured:
        why, more = "by its trial's own timing; nothing is certified yet", _more(point, points, study.direction)
    elif row.verdict == "infeasible":
        why = _why_not(row.budget_ms, row.floor_ms, row.nearest_feasible)
    return Pick(
        asked=row.asked,
        budget_ms=row.budget_ms,
        drawn_ms=study.drawn_ms(row.asked, row.budget_ms),
        floor_ms=row.floor_ms,
        verdict=row.verdict,
        point=point,
        latency_ms=row.latency_ms,
        upper_ms=row.upper_ms,
        speedup=row.speedup,
        quality=row.quality,
        quality_error=row.quality_standard_error,
        quality_split=row.quality_split or "",
        checkpoint=row.checkpoint,
        beside="",
        why=why,
        more=more,
    )


def picks_of(answers: Answers | None, points: Sequence[Point], study: Study) -> tuple[Pick, ...]:
    """Every budget's, in the summary's order; where certification failed, what the trials' timings promise."""
    rows = study.summary.budgets
    if answers is None:
        return tuple(promised_pick(row, points, study) for row in rows)
    promised = {row.asked: row for row in rows} if study.summary.unfinished else {}
    return tuple(
        promised_pick(promised[a.budget.asked], points, study)
        if a.verdict != "met" and a.budget.asked in promised
        else certified_pick(a, points, study, answers.certification.points)
        for a in answers.budgets
    )


def _why(answer: BudgetAnswer, row: Point, front: Sequence[CertifiedPoint]) -> str:
    if answer.verdict == "ambiguous":
        return "the best point of the front that may meet it; none does for certain"
    inside = {p.number for p in front if p.sound and answer.bounds_ms(p)[1] <= answer.budget_ms}
    count = len(inside | {row.number})
    among = f"the best of {count} points of the front" if count > 1 else "the only point of the front"
    return f"{among} whose {intervals.LEVEL_PCT}% upper bound stays within {format_ms(answer.budget_ms)} ms"


def _why_not(budget_ms: float, floor_ms: float | None, nearest: str | None) -> str:
    """Below the floor, or simply not found; with the nearest budget that can be met where it is known."""
    if floor_ms is None or floor_ms <= budget_ms:
        return "no certified point of the front meets it"
    tail = f"; the nearest budget that can be met is {escape.plain(nearest, 20)}" if nearest else ""
    return f"no architecture of the search space meets it: the fastest takes {format_ms(float(floor_ms))} ms{tail}"


def _beside(found: CertifiedPoint, study: Study) -> str:
    """A share of one metric can flatter (95% of 100-PER allows half as many errors again): say the others too."""
    dense = study.summary.dense.beside if study.summary.dense is not None else {}
    theirs = found.quality.beside
    complement = study.summary.metric.upper().removeprefix("100-")
    return ", ".join(
        f"{name.upper()} {theirs[name]:.1f} (dense {dense[name]:.1f})"
        for name in theirs
        if name in dense and name.upper() != complement
    )


def _lost(row: Point) -> str:
    """A warning beside an answer that lost more than `MUCH` of the dense quality, beyond its standard error; else none.

    A budget can be met by a model that nobody would deploy.
    """
    quality = row.record.quality
    if quality is None or row.drop is None or row.drop <= quality.standard_error:
        return ""
    dense = quality.value + (row.drop if pareto.higher_is_better(quality.direction) else -row.drop)
    lost = row.drop / abs(dense) if dense else 0.0
    if lost <= MUCH:
        return ""
    return (
        f"it is worse than the dense model by {lost:.0%}: train longer (--finish-steps) or allow more latency; "
        "--max-drop 10 refuses such an answer. "
    )


def _more(chosen: Point, points: Sequence[Point], direction: Direction) -> str:
    """What the next milliseconds buy: the first slower point that is better by a standard error or more."""
    ms, quality = chosen.xy
    noise = chosen.record.quality.standard_error if chosen.record.quality else 0.0
    slower = [p for p in ranked(points) if p.xy[0] > ms]
    better = [p for p in slower if pareto.loss(p.xy[1], direction) < pareto.loss(quality, direction)]
    clear = [p for p in better if abs(p.xy[1] - quality) >= noise]
    if not better:
        return "nothing slower on the front is better"
    point = (clear or better)[0]
    gain = format_quality(abs(point.xy[1] - quality), quality)
    sign = "+" if pareto.higher_is_better(direction) else "−"
    buys = f"buys {sign}{gain}" if clear else f"buys {gain}, within its noise"
    return f"{format_ms(point.xy[0] - ms)} ms more {buys} ({point.label})"


def _spend(answer: BudgetAnswer, points: Sequence[Point], study: Study) -> str:
    """Are twice the steps worth more, or more trials? By the answer's two lengths, and by what its trials brought."""
    dense = study.dense_quality
    longer = answer.point.twice(dense) if answer.point is not None and dense is not None else None
    if longer is None or dense is None:
        return ""
    words = twice_words(f"its {longer.begin:,.0f} steps", longer)
    later = brought_by_later(points, answer.budget, study.direction)
    if later is None:
        return words
    about = "about as much either way"
    worth = "longer trainings are worth more" if later < longer.low else about
    worth = "more trials may be worth more" if later > longer.high else worth
    return f"{words}, the later half of the trials brought {format_quality(later, dense)}: {worth}"


def brought_by_later(points: Sequence[Point], budget: LatencyBudget, direction: Direction) -> float | None:
    """How much better the later half of the trials made the best that meets a budget, by trials' own numbers.

    Returns:
        None where the earlier half has none that meets it, or fewer than four trials are known.
    """
    records = [p.searched or p.record for p in points if not p.dense]
    told = [r for r in records if r.created and r.quality is not None and r.latency is not None]
    trained = sorted(told, key=lambda r: r.number)  # none of a committed study, which comes without its trials
    if len(trained) < 4:
        return None
    half = trained[len(trained) // 2].number
    able = [r for r in trained if r.latency is not None and r.latency.verdict(budget) == "met"]
    losses = [(r.number, pareto.loss(r.quality.value, direction)) for r in able if r.quality is not None]
    earlier = [value for number, value in losses if number < half]
    return min(earlier) - min(value for _, value in losses) if earlier else None


def _find(row: BudgetRow, points: Sequence[Point]) -> Point | None:
    """The point of a budget's architecture, of the front where there are several."""
    named = [p for p in points if p.architecture == row.architecture]
    return next((p for p in named if p.on_front), named[0] if named else None)
