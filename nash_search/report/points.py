"""Every trial as a point: a row of every table and a mark of every plot, on the study's one latency scale.

A certified point stands at its certified latency; any other at `paired ratio x dense latency`, because milliseconds
taken at different moments on a shared machine do not compare, while paired ratios do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nash_search import pareto
from nash_search.config import Architecture
from nash_search.latency_record import Latency
from nash_search.pareto import Direction
from nash_search.records import Status, TrialRecord
from nash_search.report.words import describe
from nash_search.results import Answers, CertifiedPoint

Placed = tuple[float | None, float | None, float | None]
"""Latency on the study's one scale and its 95 % bounds, milliseconds."""


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
    refusal: str = ""
    """Why its certified export is refused; such a point is on no front."""
    dense: bool = False
    """The unpruned model, told to the study as a trial."""
    speedup: float | None
    drop: float | None
    """Quality lost against the dense model on the same split (positive: worse), in the metric's points."""
    searched: TrialRecord | None = None
    """The search's own record, where `record` is of another training of it (at length, with another seed)."""

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
    def quality_half_width(self) -> float | None:
        """Of the quality's 95 % interval."""
        return self.record.quality.half_width if self.record.quality else None

    @property
    def parameters(self) -> int | None:
        """Of the cut model."""
        return self.record.parameters

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
        """Why it has no numbers, ended early or was refused; empty for a complete trial whose export is sound."""
        record = self.record
        if record.failure is not None:
            return f"{record.failure}: {record.message}" if record.message else record.failure
        return record.infeasible or record.stopped or self.refusal


@dataclass(frozen=True, kw_only=True)
class Dense:
    """The unpruned teacher, the row everything is compared with."""

    ms: float
    low_ms: float | None
    high_ms: float | None
    quality: float | None
    low: float | None
    high: float | None
    split: str
    parameters: int | None
    checkpoint: str | None
    test_quality: float | None
    test_error: float | None
    """Standard error of `test_quality`."""
    label: str = "dense"
    speedup: float = 1.0

    @property
    def quality_half_width(self) -> float | None:
        """Of the quality's 95 % interval."""
        return None if self.quality is None or self.high is None else self.high - self.quality


def placed(
    records: Sequence[TrialRecord],
    answers: Answers | None,
    dense: Dense | None,
    direction: Direction,
    *,
    decoder_layers: int | None,
) -> tuple[Point, ...]:
    """The trials as points.

    Args:
        records: what the trials found.
        answers: the certified front; None: nothing is certified yet.
        dense: the unpruned model, where it is known.
        direction: of the quality.
        decoder_layers: of the unpruned model: told to the study as a trial it is a yardstick, not a find.
    """
    certified = {p.number: p for p in answers.certification.points} if answers else {}
    scale_ms = answers.terms.shown_dense_ms if answers else None
    at = {
        r.number: _bounded(certified[r.number].shown_ms(scale_ms))
        if r.number in certified
        else _promised(r.latency, dense)
        for r in records
    }
    unpruned = {
        r.number
        for r in records
        if r.architecture.encoder_sparsity_pct == 0 and r.architecture.decoder_layers == decoder_layers
    }
    sound = {number for number, point in certified.items() if point.sound}
    on_front = sound if certified else _front(records, at, unpruned, direction)
    return tuple(
        Point(
            record=r,
            ms=at[r.number][0],
            low_ms=at[r.number][1],
            high_ms=at[r.number][2],
            on_front=r.number in on_front,
            certified=r.number in certified,
            refusal=certified[r.number].refusal if r.number in certified else "",
            dense=r.number in unpruned,
            speedup=_speedup(r, certified.get(r.number)),
            drop=_drop(r, dense, direction),
        )
        for r in records
    )


def exported(
    points: Sequence[Point], models: Mapping[int, TrialRecord], dense: Dense | None, direction: Direction
) -> dict[int, Point]:
    """By trial number, a point as the model that was exported for it, where that is not the search's own.

    Args:
        points: as the search found them; a certified one stands at its certified latency already.
        models: records of the exported models, by trial number.
        dense: the unpruned model, where it is known.
        direction: of the quality.
    """
    return {
        p.number: replace(p, record=record, drop=_drop(record, dense, direction), searched=p.record)
        for p in points
        if (record := models.get(p.number)) is not None
    }


def ranked(points: Sequence[Point]) -> list[Point]:
    """The front, fastest first."""
    return sorted((p for p in points if p.on_front and p.measured), key=lambda p: p.xy[0])


def _front(
    records: Sequence[TrialRecord], at: Mapping[int, Placed], unpruned: set[int], direction: Direction
) -> set[int]:
    """Trial numbers that no complete trial dominates (where no document says so yet)."""
    rows = [
        (r.number, ms, r.quality.value)
        for r in records
        if r.status == "complete" and r.quality and (ms := at[r.number][0]) is not None and r.number not in unpruned
    ]
    losses = pareto.losses([ms for _, ms, _ in rows], [value for _, _, value in rows], direction)
    return {number for (number, _, _), keep in zip(rows, pareto.front_mask(losses), strict=True) if keep}


def _promised(latency: Latency | None, dense: Dense | None) -> Placed:
    """Latency and bounds before certification: the paired ratio on the study's one scale."""
    if latency is None:
        return None, None, None
    scale = dense.ms if dense else latency.dense_ms
    low, high = latency.ratio_bounds
    return _bounded((latency.ratio * scale, low * scale, high * scale))


def _bounded(found: tuple[float, float, float]) -> Placed:
    """(ms, lower, upper); no bounds where there were too few samples to bound anything."""
    ms, low, high = found
    return (ms, low, high) if math.isfinite(high) else (ms, None, None)


def _drop(record: TrialRecord, dense: Dense | None, direction: Direction) -> float | None:
    if record.quality is None or dense is None or dense.quality is None:
        return None
    return pareto.loss(record.quality.value, direction) - pareto.loss(dense.quality, direction)


def _speedup(record: TrialRecord, certified: CertifiedPoint | None) -> float | None:
    latency = certified.latency if certified is not None else record.latency
    return latency.speedup if latency else None
