"""What is shown: the records, the search's summary and its certified front, joined once into rows ready to draw.

Every table, plot and page reads a `StudyView`, so that all of them say the same number. Two rules are kept: one
latency scale (`points`), and one split per comparison: a drop against the dense model is given only where both were
scored on the same split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nash_search import pareto
from nash_search.config import Workload
from nash_search.intervals import normal_bounds
from nash_search.latency_record import Latency
from nash_search.pareto import Direction
from nash_search.records import TrialRecord
from nash_search.report import escape
from nash_search.report.picks import Pick, Study, picks_of
from nash_search.report.points import Dense, Point, exported, placed, ranked
from nash_search.report.words import certifies_words, renewing, window_words
from nash_search.results import Answers, CertifiedPoint
from nash_search.summaries import Summary
from nash_search.summary_rows import DenseRow, Inputs, Reference


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One shape of the probe."""

    decoder_layers: int
    encoder_sparsity_pct: int
    ratio: float
    """Share of the dense latency, paired."""


@dataclass(frozen=True, kw_only=True)
class StudyView:
    """A study, ready to be shown."""

    study: str
    task: str
    metric: str
    direction: Direction
    split: str
    workload: Workload | None
    device: str
    dense: Dense | None
    points: tuple[Point, ...]
    """As the search found them."""
    exported: Mapping[int, Point] = field(default_factory=dict)
    """By number, those of which another training is exported: at length, or with another seed."""
    answers: Answers | None = field(repr=False)
    """The certified front; None: nothing is certified yet."""
    picks: tuple[Pick, ...]
    hypervolume: tuple[tuple[float, float], ...]
    """(training seconds so far, hypervolume of the front so far), one pair per trained trial."""
    probe: tuple[Cell, ...]
    environment: tuple[tuple[str, str], ...]
    """What it was measured on, label and words."""
    summary: Summary = field(repr=False)

    @property
    def front(self) -> tuple[Point, ...]:
        """The front, fastest first, as its models are exported."""
        return tuple(ranked([self.exported.get(p.number, p) for p in self.points]))

    @property
    def front_rows(self) -> tuple[Point | Dense, ...]:
        """The front's points, then the dense model where it is known."""
        return (*self.front, *([self.dense] if self.dense else []))

    @property
    def percentile(self) -> str:
        """Of requests, which one the latencies are: `p95`; empty where one call is timed."""
        found = self.summary.percentile
        return "" if found is None else f"p{found:g}"

    @property
    def ms_name(self) -> str:
        """Head of a column of latencies."""
        return f"{self.percentile} ms".lstrip()

    @property
    def latency_words(self) -> str:
        """What a latency is of."""
        return f"{self.percentile} latency over requests" if self.percentile else "latency of one generate call"

    @property
    def clock_words(self) -> tuple[str, ...]:
        """What a shorter window gained, what this machine can certify, whether the old protocol certified the study."""
        found, shortened = self.summary.certifies, self.summary.window
        return (
            *((window_words(shortened),) if shortened else ()),
            *((f"this machine certifies: {certifies_words(found)}",) if found and self.certified else ()),
            *((renewing(self.study),) if self.old_protocol else ()),
        )

    @property
    def old_protocol(self) -> bool:
        """Certified before bounds in milliseconds carried the occasion effect."""
        return any(p.latency.effect is None for p in self.certified)

    @property
    def certified(self) -> tuple[CertifiedPoint, ...]:
        """The front's certificates, fastest first."""
        return self.answers.certification.points if self.answers else ()

    @property
    def picked(self) -> tuple[Point, ...]:
        """The points that budgets are met by, each once; what only may meet one is nobody's pick."""
        met = [pick.point for pick in self.picks if pick.point is not None and pick.verdict == "met"]
        return tuple({point.number: point for point in met if point.measured}.values())

    def picked_for(self, point: Point) -> tuple[str, ...]:
        """The budgets, as asked, whose answer this point is."""
        met = [pick for pick in self.picks if pick.point is not None and pick.verdict == "met"]
        return tuple(pick.asked for pick in met if pick.point is not None and pick.point.number == point.number)

    @property
    def loaded(self) -> str | None:
        """The checkpoint that "load it" loads: the last met budget's."""
        return next(iter(self.met), None)

    @property
    def met(self) -> dict[str, str]:
        """Checkpoints that meet budgets, the last budget's first, each with the budgets as asked: `70%, 60%`."""
        found = dict[str, str]()
        for pick in reversed(self.picks):
            if pick.checkpoint and pick.verdict == "met":
                others = found.get(pick.checkpoint)
                found[pick.checkpoint] = pick.asked if others is None else f"{pick.asked}, {others}"
        return found

    @property
    def inputs(self) -> Inputs | None:
        """How a text, or a recording, becomes an input; None: the summary does not say."""
        return self.summary.inputs

    @property
    def is_speech(self) -> bool:
        """Inputs are recordings whose length is known: a latency is a share of real time too."""
        return self.workload is not None and self.inputs is not None and bool(self.inputs.clip_seconds)

    def real_time(self, ms: float | None) -> float | None:
        """Seconds of computing for a second of sound (the median recording's), where inputs are recordings."""
        if ms is None or self.workload is None or self.inputs is None or not self.inputs.clip_seconds:
            return None
        return ms / 1000 / (self.inputs.clip_seconds * self.workload.batch_size)

    @property
    def window_gain(self) -> float | None:
        """How many times faster the shorter window makes the dense model; None: its window is whole."""
        found = self.summary.window
        return None if found is None or not found.share else 1 / found.share

    @property
    def dtype(self) -> str:
        """Precision of the exported weights, in which "load it" loads them: the one that was timed and scored."""
        return self.workload.weights_dtype if self.workload is not None else "float32"

    @property
    def scale(self) -> float | None:
        """The largest quality on the front: how many digits the metric deserves."""
        return max((abs(p.xy[1]) for p in self.front), default=None)

    @property
    def drawn(self) -> tuple[Point, ...]:
        """Every point with both numbers, as exported and as searched; the dense model has a mark of its own."""
        short = [replace(p, on_front=False) for p in self.points if p.number in self.exported]
        shown = [*(self.exported.get(p.number, p) for p in self.points), *short]
        return tuple(p for p in shown if p.measured and (p.on_front or not p.dense))


def build(
    records: Sequence[TrialRecord],
    summary: Summary,
    answers: Answers | None = None,
    *,
    probe: Sequence[Cell] = (),
    models: Mapping[int, TrialRecord] = MappingProxyType({}),
    folder: Path = Path(),
) -> StudyView:
    """Join the trials with the search's summary and its certified front.

    Args:
        records: what the trials found, in any order (some are missing while a search runs).
        summary: what the search found out, or so far (`Plan.begun`).
        answers: the certified front and what each budget gets from it; None: nothing is certified yet.
        probe: the (depth x width) shapes timed before training.
        models: by trial number, records of exported models that are not the search's own.
        folder: the study's, in which the exports lie.
    """
    records = sorted(records, key=lambda r: r.number)
    scored = [r.quality for r in records if r.quality is not None]
    direction: Direction = scored[0].direction if scored else summary.direction
    split = scored[0].split if scored else "validation"
    dense = _dense(summary.dense or DenseRow(), records, split)
    points = placed(records, answers, dense, direction, decoder_layers=summary.decoder_layers)
    latency = next((r.latency for r in records if r.latency is not None), None)
    finished = exported(points, models, dense, direction)
    shown = [finished.get(p.number, p) for p in points]
    return StudyView(
        study=summary.study,
        task=summary.task,
        metric=scored[0].metric if scored else summary.metric or "quality",
        direction=direction,
        split=split,
        workload=summary.workload or (latency.workload if latency else None),
        device=_device(summary, latency),
        dense=dense,
        points=points,
        exported=finished,
        answers=answers,
        picks=picks_of(answers, shown, Study(summary=summary, direction=direction, folder=folder)),
        hypervolume=_hypervolume(records, direction, dense, summary.reference),
        probe=tuple(probe),
        environment=_environment(summary, records),
        summary=summary,
    )


def _device(summary: Summary, latency: Latency | None) -> str:
    """The device's own name where a fingerprint has it, else `cpu` or `cuda:0`."""
    named = latency.fingerprint.get("device") if latency else None
    asked = summary.device or (latency.workload.device if latency else "")
    return str(named if named and (asked == "cpu" or str(asked).startswith("cuda")) else asked)


def _dense(found: DenseRow, records: Sequence[TrialRecord], split: str) -> Dense | None:
    """The dense row; its quality on the trials' split, or none."""
    latency = next((r.latency for r in records if r.latency is not None), None)
    ms = found.latency_ms or (latency.dense_ms if latency else None)
    if ms is None:
        return None
    quality, error = found.quality_on(split)
    low, high = normal_bounds(quality, error) if quality is not None and error is not None else (None, None)
    return Dense(
        ms=ms,
        low_ms=found.lower_ms,
        high_ms=found.upper_ms,
        quality=quality,
        low=low,
        high=high,
        split=split,
        parameters=found.parameters,
        checkpoint=found.checkpoint,
        test_quality=found.quality if found.quality_split == "test" else None,
        test_error=found.quality_standard_error,
    )


def _hypervolume(
    records: Sequence[TrialRecord], direction: Direction, dense: Dense | None, reference: Reference | None
) -> tuple[tuple[float, float], ...]:
    """The front's growth, share of dense latency x quality, in the order trials finished.

    Empty without a reference point that was fixed before the search, and where nothing says when a trial ended.
    """
    rows = [(r, r.latency.ratio, r.quality.value) for r in records if r.latency and r.quality and r.created]
    if not rows or dense is None or reference is None:
        return ()
    share = reference.share or reference.latency_ms / dense.ms
    corner = pareto.losses([share], [reference.quality], direction)[0]
    rows.sort(key=lambda row: (row[0].created, row[0].number))
    losses = pareto.losses([share for _, share, _ in rows], [value for _, _, value in rows], direction)
    spent, curve = 0.0, []
    for index, (record, _, _) in enumerate(rows):
        spent += record.train_s
        curve.append((spent, pareto.hypervolume(losses[: index + 1], corner)))
    return tuple(curve)


def _environment(summary: Summary, records: Sequence[TrialRecord]) -> tuple[tuple[str, str], ...]:
    """The fingerprint's and the versions' plain values, and the summary's own."""
    found: dict[str, Any] = {}
    measured = next((r for r in records if r.latency is not None), None)
    if measured is not None and measured.latency is not None:
        found |= measured.latency.fingerprint | measured.versions
    found |= summary.environment
    kept = ((name, value) for name, value in found.items() if isinstance(value, (str, int, float)))
    return tuple((escape.plain(name, 40), escape.plain(value, 200)) for name, value in kept)
