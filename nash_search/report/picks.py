"""A trial as a point, and a budget's answer as a pick with its reason.

    pick   what the document answered for one budget, the point it names, why that one,
           and what the next milliseconds would buy

This module refuses to decide anything: which point is picked is the search's answer, it only
puts it into words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nash_search.config import Architecture
from nash_search.records import Status, TrialRecord
from nash_search.report import escape
from nash_search.report.words import describe, format_ms, format_quality, looks_words

Direction = Literal["maximize", "minimize"]
Document = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One trial as a row of every table and a mark of every plot."""

    record: TrialRecord
    ms: float | None
    """Latency on the study's one scale, milliseconds."""
    low_ms: float | None
    high_ms: float | None
    on_front: bool
    certified: bool
    dense: bool = False
    """The unpruned model, told to the study as a trial."""
    speedup: float | None
    drop: float | None
    """Quality lost against the dense model on the same split (positive: worse), in the metric's points."""

    @property
    def number(self) -> int:
        """The trial's number."""
        return self.record.number

    @property
    def architecture(self) -> Architecture:
        """What was kept."""
        return self.record.architecture

    @property
    def label(self) -> str:
        """Short words for a direct label: `2 dec · enc 70%` (percent of the encoder kept)."""
        return "dense" if self.dense else describe(self.architecture)

    @property
    def baseline(self) -> bool:
        """Encoder untouched: shrink-and-fine-tune, what one would do without NASH."""
        return self.architecture.encoder_sparsity_pct == 0 and not self.dense

    @property
    def status(self) -> Status:
        """The record's derived status."""
        return self.record.status

    @property
    def quality(self) -> float | None:
        """The metric's value."""
        return self.record.quality.value if self.record.quality else None

    @property
    def measured(self) -> bool:
        """Has both numbers, so it can be drawn."""
        return self.ms is not None and self.record.quality is not None

    @property
    def xy(self) -> tuple[float, float]:
        """(latency ms, quality) of a measured point."""
        if self.ms is None or self.record.quality is None:
            raise ValueError(f"a point must be measured to be placed, but trial {self.number} is {self.status}")
        return self.ms, self.record.quality.value

    @property
    def reason(self) -> str:
        """Why it has no numbers or ended early; empty for a complete trial."""
        record = self.record
        if record.failure is not None:
            return f"{record.failure}: {record.message}" if record.message else record.failure
        return record.infeasible or record.stopped or ""


@dataclass(frozen=True, kw_only=True)
class Pick:
    """One budget's answer."""

    asked: str
    budget_ms: float
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


def pick_of(entry: Document, points: Sequence[Point], direction: Direction, document: Document) -> Pick:
    """Join one budget of the document with the point it chose, and say why."""
    budget_ms = float(entry["budget_ms"])
    chosen = _find(entry, points)
    ranked = sorted((p for p in points if p.on_front and p.measured), key=lambda p: p.xy[0])
    why, more = "", ""
    if chosen is not None and chosen.measured:
        inside = {p.number for p in ranked if p.high_ms is not None and p.high_ms <= budget_ms} | {chosen.number}
        among = f"the best of {len(inside)} points of the front" if len(inside) > 1 else "the only point of the front"
        why = f"{among} whose 95% upper bound stays within {format_ms(budget_ms)} ms"
        if entry.get("verdict") == "ambiguous":
            why = "the best point of the front that may meet it; none does for certain"
            if document.get("unfinished"):
                why = "by its trial's own timing; nothing is certified yet"
        asked_again = looks_words(entry.get("looks") or 1, entry.get("rounds") or 0)
        why += f"; {asked_again}" if asked_again else ""
        more = _more(chosen, ranked, direction)
    elif entry.get("verdict") == "infeasible":
        why = _why_not(entry, budget_ms)
    return Pick(
        asked=str(entry.get("asked", "")),
        budget_ms=budget_ms,
        floor_ms=entry.get("floor_ms"),
        verdict=str(entry.get("verdict", "")),
        point=chosen,
        latency_ms=entry.get("latency_ms"),
        upper_ms=entry.get("upper_ms"),
        speedup=entry.get("speedup"),
        quality=entry.get("quality"),
        quality_error=entry.get("quality_standard_error"),
        quality_split=str(entry.get("quality_split") or ""),
        checkpoint=entry.get("checkpoint"),
        beside=_beside(chosen, document),
        why=why,
        more=more,
    )


def _why_not(entry: Document, budget_ms: float) -> str:
    """Below the floor, or simply not found; with the nearest budget that can be met where it is known."""
    floor_ms = entry.get("floor_ms")
    if floor_ms is None or floor_ms <= budget_ms:
        return "no certified point of the front meets it"
    nearest = entry.get("nearest_feasible")
    tail = f"; the nearest budget that can be met is {escape.plain(nearest, 20)}" if nearest else ""
    return f"no architecture of the search space meets it: the fastest takes {format_ms(float(floor_ms))} ms{tail}"


def _beside(chosen: Point | None, document: Document) -> str:
    """A share of one metric can flatter (95% of 100-PER allows half as many errors again): say the others too."""
    dense = (document.get("dense") or {}).get("beside") or {}
    entries = [e for e in document.get("front") or () if chosen and e.get("number") == chosen.number]
    found = (entries[0].get("beside") or {}) if entries else {}
    complement = str(document.get("metric", "")).upper().removeprefix("100-")
    return ", ".join(
        f"{name.upper()} {found[name]:.1f} (dense {dense[name]:.1f})"
        for name in found
        if name in dense and name.upper() != complement
    )


def _more(chosen: Point, ranked: Sequence[Point], direction: Direction) -> str:
    """What the next milliseconds buy: the first slower point that is better by a standard error or more."""
    (ms, quality), sign = chosen.xy, 1 if direction == "maximize" else -1
    noise = chosen.record.quality.standard_error if chosen.record.quality else 0.0
    better = [p for p in ranked if p.xy[0] > ms and sign * (p.xy[1] - quality) > 0]
    clear = [p for p in better if abs(p.xy[1] - quality) >= noise]
    if not better:
        return "nothing slower on the front is better"
    point = (clear or better)[0]
    gain = format_quality(abs(point.xy[1] - quality), quality)
    buys = f"buys {'+' if sign > 0 else '−'}{gain}" if clear else f"buys {gain}, within its noise"
    return f"{format_ms(point.xy[0] - ms)} ms more {buys} ({point.label})"


def _find(entry: Document, points: Sequence[Point]) -> Point | None:
    """The point a budget's entry names: by trial number, else by architecture (slug or fields)."""
    if entry.get("number") is not None:
        return next((p for p in points if p.number == entry["number"]), None)
    asked = entry.get("architecture")
    if not asked:
        return None
    named = [p for p in points if asked in (p.architecture.slug, p.architecture.model_dump())]
    return next((p for p in named if p.on_front), named[0] if named else None)
