"""What is shown: the records and the search's document, joined once into rows ready to draw.

Every table, plot and page reads a `StudyView`, so that all of them say the same number. Two
rules are kept here. (1) One latency scale: a certified point stands at its certified wall
time; any other at `paired ratio x dense latency`, because milliseconds taken at different
moments on a shared machine do not compare, while paired ratios do. (2) One split per
comparison: a drop against the dense model is given only where both were scored on the same
split. This module refuses to know colours, widgets and file formats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nash_search import front
from nash_search.records import Latency, TrialRecord
from nash_search.report.picks import Direction, Document, Pick, Point, pick_of


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


@dataclass(frozen=True, kw_only=True)
class StudyView:
    """A study, ready to be shown."""

    study: str
    task: str
    metric: str
    direction: Direction
    split: str
    workload: Mapping[str, Any]
    device: str
    dense: Dense | None
    points: tuple[Point, ...]
    picks: tuple[Pick, ...]
    hypervolume: tuple[tuple[float, float], ...]
    """(training seconds so far, hypervolume of the front so far), one pair per trained trial."""
    document: Document = field(repr=False)

    @property
    def front(self) -> tuple[Point, ...]:
        """The front, fastest first."""
        return tuple(sorted((p for p in self.points if p.on_front and p.measured), key=lambda p: p.xy[0]))

    @property
    def picked(self) -> tuple[Point, ...]:
        """The points budgets chose, each once."""
        found = {pick.point.number: pick.point for pick in self.picks if pick.point is not None and pick.point.measured}
        return tuple(found.values())

    @property
    def scale(self) -> float | None:
        """The largest quality on the front: how many digits the metric deserves."""
        return max((abs(p.xy[1]) for p in self.front), default=None)

    @property
    def drawn(self) -> tuple[Point, ...]:
        """Every point with both numbers."""
        return tuple(p for p in self.points if p.measured)


def build(records: Sequence[TrialRecord], document: Document) -> StudyView:
    """Join the trials with the search's document (both may be incomplete while a search runs)."""
    records = sorted(records, key=lambda r: r.number)
    scored = [r.quality for r in records if r.quality is not None]
    direction: Direction = scored[0].direction if scored else document.get("direction", "maximize")
    split = scored[0].split if scored else "validation"
    dense = _dense(document.get("dense") or {}, records, split)
    certified = {entry["number"]: entry for entry in document.get("front") or () if "number" in entry}
    placed = {r.number: _place(r.latency, certified.get(r.number), dense) for r in records}
    candidates = [r for r in records if r.status == "complete" and r.quality and r.latency]
    if certified:
        on_front = set(certified)
    else:
        losses = _losses(candidates, placed, direction)
        on_front = {r.number for r, keep in zip(candidates, front.front_mask(losses), strict=True) if keep}
    points = tuple(
        Point(
            record=r,
            ms=placed[r.number][0],
            low_ms=placed[r.number][1],
            high_ms=placed[r.number][2],
            on_front=r.number in on_front,
            certified=r.number in certified,
            speedup=_speedup(r, certified.get(r.number)),
            drop=_drop(r, dense, direction),
        )
        for r in records
    )
    latency = next((r.latency for r in records if r.latency is not None), None)
    workload = document.get("workload") or (latency.workload.model_dump() if latency else {})
    return StudyView(
        study=str(document.get("study", "")),
        task=str(document.get("task", "")),
        metric=scored[0].metric if scored else str(document.get("metric", "quality")),
        direction=direction,
        split=split,
        workload=workload,
        device=str(document.get("device") or (latency.workload.device if latency else "")),
        dense=dense,
        points=points,
        picks=tuple(pick_of(entry, points, direction) for entry in document.get("budgets") or ()),
        hypervolume=_hypervolume(candidates, placed, direction, dense, document.get("reference")),
        document=document,
    )


def _dense(found: Document, records: Sequence[TrialRecord], split: str) -> Dense | None:
    """The dense row; its quality on the trials' split, or none (splits are never mixed)."""
    latency = next((r.latency for r in records if r.latency is not None), None)
    ms = found.get("latency_ms") or (latency.dense_ms if latency else None)
    if ms is None:
        return None
    same = found.get("quality_split", "test") == split
    quality = found.get("quality") if same else found.get(f"{split}_quality")
    error = found.get("quality_standard_error" if same else f"{split}_standard_error")
    return Dense(
        ms=float(ms),
        low_ms=found.get("lower_ms"),
        high_ms=found.get("upper_ms"),
        quality=quality,
        low=quality - 1.96 * error if quality is not None and error is not None else None,
        high=quality + 1.96 * error if quality is not None and error is not None else None,
        split=split,
        parameters=found.get("parameters"),
        checkpoint=found.get("checkpoint"),
        test_quality=found.get("quality") if found.get("quality_split", "test") == "test" else None,
    )


def _place(
    latency: Latency | None, certified: Document | None, dense: Dense | None
) -> tuple[float | None, float | None, float | None]:
    """(ms, lower, upper) on the study's one scale: see the module docstring."""
    if certified is not None and certified.get("latency_ms") is not None:
        ms = float(certified["latency_ms"])
        upper = certified.get("upper_ms")
        lower = certified.get("lower_ms", None if upper is None else 2 * ms - float(upper))
        return ms, None if lower is None else float(lower), None if upper is None else float(upper)
    if latency is None:
        return None, None, None
    scale = dense.ms if dense else latency.dense_ms
    low, high = latency.ratio_bounds
    if not math.isfinite(high):  # too few samples to bound anything
        return latency.ratio * scale, None, None
    return latency.ratio * scale, low * scale, high * scale


def _drop(record: TrialRecord, dense: Dense | None, direction: Direction) -> float | None:
    if record.quality is None or dense is None or dense.quality is None:
        return None
    lost = dense.quality - record.quality.value
    return lost if direction == "maximize" else -lost


def _speedup(record: TrialRecord, certified: Document | None) -> float | None:
    if certified is not None and certified.get("speedup") is not None:
        return float(certified["speedup"])
    return record.latency.speedup if record.latency else None


def _losses(
    records: Sequence[TrialRecord], placed: Mapping[int, tuple[float | None, ...]], direction: Direction
) -> front.Array:
    return front.losses(
        [placed[r.number][0] or 0.0 for r in records],
        [r.quality.value for r in records if r.quality is not None],
        direction,
    )


def _hypervolume(
    records: Sequence[TrialRecord],
    placed: Mapping[int, tuple[float | None, ...]],
    direction: Direction,
    dense: Dense | None,
    reference: Document | None,
) -> tuple[tuple[float, float], ...]:
    """The front's growth in the order trials finished; empty without a reference fixed in advance."""
    if not records or dense is None or not reference:
        return ()
    corner = front.losses([float(reference["latency_ms"])], [float(reference["quality"])], direction)[0]
    ordered = sorted(records, key=lambda r: (r.created, r.number))
    points = _losses(ordered, placed, direction)
    spent, curve = 0.0, []
    for index, record in enumerate(ordered):
        spent += record.train_s
        curve.append((spent, front.hypervolume(points[: index + 1], corner)))
    return tuple(curve)
