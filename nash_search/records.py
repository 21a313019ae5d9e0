"""What was found: frozen values with every raw sample, summarised on read.

A `Latency` keeps each timed call of the candidate and of the dense reference it was paired
with; medians, intervals and verdicts are properties. A `TrialRecord`'s status is derived,
never stored.
"""

from __future__ import annotations

import math
from statistics import median
from typing import Any, Literal

from pydantic import Field

from nash_search import intervals
from nash_search.config import Architecture, Frozen, LatencyBudget, Workload
from nash_search.intervals import OccasionEffect

REMEMBERED = "remembered"
"""In the details of a latency that was taken before and only checked again."""
Verdict = Literal["met", "missed", "ambiguous"]
MeasurementStatus = Literal["clean", "contended", "cut_short", "unsettled", "zero_durations", "no_samples"]
Status = Literal["complete", "infeasible", "stopped", "failed"]
FailureReason = Literal[
    "oom", "nan", "timeout", "interrupted", "worker_died", "disk_full", "contended", "invalid_architecture", "error"
]


class Shapes(Frozen):
    """The physical size of a model, block by block; latency depends on nothing else."""

    encoder_heads: tuple[int, ...]
    """Heads kept per encoder block."""
    encoder_neurons: tuple[int, ...]
    """FFN neurons kept per encoder block."""
    decoder_blocks: tuple[int, ...]
    """Indices, in the teacher, of the decoder blocks kept."""


class Round(Frozen):
    """One process's paired timings: sample i of the candidate next to sample i of the dense model."""

    runs_ms: tuple[float, ...]
    """Wall time of each `generate` of the candidate."""
    dense_runs_ms: tuple[float, ...]
    """Wall time of the dense model's call paired with it."""
    cpu_ms: tuple[float, ...] = ()
    """Process CPU time of each candidate call (empty where it means nothing)."""
    contended: tuple[bool, ...] = ()
    """Pairs in which something else used the device (flagged, never dropped)."""
    dense_cpu_ms: tuple[float, ...] = ()
    """Process CPU time of each dense call (empty where it means nothing)."""
    device_ms: tuple[float, ...] = ()
    """Time between two events on the GPU around each candidate call (empty on a CPU)."""
    dense_device_ms: tuple[float, ...] = ()
    """Time between two events on the GPU around each dense call (empty on a CPU)."""
    occasion: int = Field(default=0, ge=0)
    """Which measurement it is of, counted from 0: rounds taken one after the other share their moment's speed."""
    settled: bool = True
    """Whether the warm-up became stable before the first of these samples."""
    surroundings: dict[str, Any] = Field(default_factory=dict)
    """What else went on: warm_up_calls, discarded samples, involuntary_switches, cpu_pressure_s, sm_mhz, …"""


class Latency(Frozen):
    """Wall time of one whole `generate`, milliseconds, with the samples it rests on."""

    rounds: tuple[Round, ...]
    workload: Workload
    fingerprint: dict[str, Any] = Field(default_factory=dict)
    """What it was measured on, readable; `fingerprint["hash"]` identifies it."""
    fresh: bool = False
    """True when every round was a fresh process (certification)."""
    details: dict[str, Any] = Field(default_factory=dict)
    """Beside the number: encoder_ms, ms_per_output_token, natural_ms, natural_tokens, peak_memory_bytes, warnings."""
    interval_scale: float = Field(default=1.0, ge=1)
    """Widening of the bounds, because they were looked at before deciding on more rounds."""
    effect: OccasionEffect | None = None
    """How far this device's medians move between occasions, as it was known then; bounds in milliseconds carry it.
    None: judged by the old protocol, which took no account of it."""
    looks: int = Field(default=1, ge=1)
    """How often the question was asked; each time the rounds are pooled and the bounds widened."""
    cut_short: bool = False
    """True when the time limit came before the last pair."""

    @property
    def runs_ms(self) -> tuple[float, ...]:
        """All candidate samples, in order."""
        return tuple(x for r in self.rounds for x in r.runs_ms)

    @property
    def median_ms(self) -> float:
        """Median over round medians, milliseconds (NaN without samples)."""
        return _median_of_medians([r.runs_ms for r in self.rounds])

    @property
    def dense_ms(self) -> float:
        """The paired dense reference's median, milliseconds (NaN without samples)."""
        return _median_of_medians([r.dense_runs_ms for r in self.rounds])

    @property
    def bounds_ms(self) -> tuple[float, float]:
        """Two-sided 95 % bounds of the median, milliseconds (t over round medians, and the occasion effect)."""
        return self._bounds_ms([r.runs_ms for r in self.rounds])

    @property
    def dense_bounds_ms(self) -> tuple[float, float]:
        """Two-sided 95 % bounds of the dense reference's median, milliseconds."""
        return self._bounds_ms([r.dense_runs_ms for r in self.rounds])

    def _bounds_ms(self, rounds: list[tuple[float, ...]]) -> tuple[float, float]:
        return intervals.median_bounds(
            rounds,
            scale=self.interval_scale,
            effect=self.effect,
            occasions=[r.occasion for r in self.rounds],
            confidence=intervals.confidence_at(self.looks),
        )

    @property
    def ratio(self) -> float:
        """Candidate over dense: median of per-pair ratios, median over rounds (NaN without samples)."""
        return _median_of_medians([intervals.pair_ratios(r.runs_ms, r.dense_runs_ms).tolist() for r in self.rounds])

    @property
    def ratio_bounds(self) -> tuple[float, float]:
        """Two-sided 95 % bounds of the paired ratio."""
        pairs = [(r.runs_ms, r.dense_runs_ms) for r in self.rounds]
        return intervals.ratio_bounds(pairs, scale=self.interval_scale, confidence=intervals.confidence_at(self.looks))

    def margin(self, budget: LatencyBudget) -> float:
        """How far below this budget a model must truly lie to be found to meet it here, as a fraction."""
        if budget.share is not None:
            taken = [intervals.pair_ratios(r.runs_ms, r.dense_runs_ms).tolist() for r in self.rounds]
        else:
            taken = [list(r.runs_ms) for r in self.rounds]
        where = [r.occasion for r in self.rounds]
        found = intervals.margin(
            self.effect if budget.share is None else None,
            intervals.round_sd(taken, where),
            max(1, sum(bool(r) for r in taken)),
            looks=self.looks,
        )
        return -math.expm1(-found)

    @property
    def speedup(self) -> float:
        """Dense over candidate, paired, same workload."""
        return 1 / self.ratio if self.ratio else math.inf

    @property
    def p95_ms(self) -> float | None:
        """95th percentile, milliseconds; None below 130 samples (too few to say)."""
        return intervals.p95(self.runs_ms)

    @property
    def contended_share(self) -> float:
        """Share of pairs flagged as contended."""
        flags = [c for r in self.rounds for c in r.contended]
        return sum(flags) / len(flags) if flags else 0.0

    @property
    def status(self) -> MeasurementStatus:
        """What to know before trusting the number; `contended`: over a quarter of the pairs flagged."""
        if not self.runs_ms:
            return "no_samples"
        if min(min(r.runs_ms + r.dense_runs_ms, default=1.0) for r in self.rounds) <= 0:
            return "zero_durations"
        if self.contended_share > 0.25:
            return "contended"
        if self.cut_short:
            return "cut_short"
        return "clean" if 2 * sum(r.settled for r in self.rounds) >= len(self.rounds) else "unsettled"

    def verdict(self, budget: LatencyBudget) -> Verdict:
        """Does it meet the budget? Shares are judged on the paired ratio, ms on wall times.

        A contended absolute verdict is at best ambiguous: the neighbours' share of it is unknown.
        """
        if budget.share is not None:
            return intervals.verdict(self.ratio_bounds, budget.share)
        assert budget.ms is not None
        found = intervals.verdict(self.bounds_ms, budget.ms)
        return "ambiguous" if found == "met" and self.status == "contended" else found

    def certificate(self, budget: LatencyBudget) -> Verdict:
        """The verdict that may be called "meets the budget": at least two fresh rounds, else ambiguous."""
        rounds = sum(bool(r.runs_ms) for r in self.rounds)
        return self.verdict(budget) if self.fresh and rounds >= 2 else "ambiguous"


def pooled(before: Latency | None, now: Latency) -> Latency:
    """The same question asked again: all rounds count, and the looks are counted; nothing is started anew.

    Rounds of another device, software or call do not belong to it: of them only the looks count.
    """
    if before is None or not before.runs_ms:
        return now
    looks = before.looks + now.looks
    same = before.fingerprint.get("hash") == now.fingerprint.get("hash") and before.workload == now.workload
    if not same or before.fresh != now.fresh:
        return now.model_copy(update={"looks": looks})
    first = 1 + max(r.occasion for r in before.rounds)
    again = tuple(r.model_copy(update={"occasion": first + r.occasion}) for r in now.rounds)
    return now.model_copy(
        update={
            "rounds": before.rounds + again,
            "details": before.details | now.details,
            "interval_scale": max(before.interval_scale, now.interval_scale),
            "looks": looks,
        }
    )


class Quality(Frozen):
    """The task metric on one split, higher or lower being better as `direction` says."""

    metric: str
    value: float
    standard_error: float
    n: int
    """Examples scored."""
    split: Literal["validation", "test", "train"]
    direction: Literal["maximize", "minimize"] = "maximize"
    signature: str = ""
    """Metric, version, tokenisation and decoding settings, as sacrebleu's signature does."""
    beside: dict[str, float] = Field(default_factory=dict)
    """Other metrics of the same outputs, e.g. the word error rate beside 100 - PER."""

    @property
    def half_width(self) -> float:
        """Of the normal 95 % interval."""
        return intervals.half_width(self.standard_error)

    @property
    def bounds(self) -> tuple[float, float]:
        """Normal 95 % bounds."""
        return intervals.normal_bounds(self.value, self.standard_error)


class Artefact(Frozen):
    """What a serving engine loads instead of a Hugging Face folder, and lies in a folder of its own beside it."""

    runtime: str
    version: str
    """The engine's, when it was written."""
    dtype: str
    quantize: str
    loading: tuple[str, ...]
    """Lines of Python with which the engine alone loads it and generates; the folder is called `folder`."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """What generation needs beside the weights; the engine's own words."""


class CurvePoint(Frozen):
    """Quality at one rung of a trial's training."""

    step: int
    value: float
    train_s: float


class TrialRecord(Frozen):
    """One trial: what was asked, what came out, or the reason it has none."""

    number: int
    architecture: Architecture
    seed: int = 0
    shapes: Shapes | None = None
    latency: Latency | None = None
    quality: Quality | None = None
    curve: tuple[CurvePoint, ...] = ()
    parameters: int | None = None
    """Parameters of the cut model."""
    sparsity_expected: float | None = None
    """Expected encoder sparsity just before hardening (fraction)."""
    sparsity_counted: float | None = None
    """Encoder sparsity counted on the cut model (fraction)."""
    pruning: dict[str, float] = Field(default_factory=dict)
    """Diagnostics: undecided_share, loss_before_hardening, loss_after_hardening, …"""
    checkpoint: str | None = None
    """Folder of the trained weights, relative to the study's folder."""
    stages: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Per stage: steps and seconds."""
    versions: dict[str, str] = Field(default_factory=dict)
    infeasible: str | None = None
    """Why it was refused untrained."""
    stopped: str | None = None
    """Why training ended early; studies of before 2026-11-27 could end a dominated trial at a rung."""
    failure: FailureReason | None = None
    message: str = ""
    """One line about the failure."""
    created: str = ""
    """UTC stamp, ISO 8601."""
    wall_s: float = 0.0
    """Seconds of its process, from the job's arrival to the record: loading, training, timing, scoring, saving."""

    @property
    def status(self) -> Status:
        """Derived from what the record holds."""
        if self.failure is not None:
            return "failed"
        if self.infeasible is not None:
            return "infeasible"
        if self.stopped is not None:
            return "stopped"
        return "complete"

    @property
    def train_s(self) -> float:
        """Training seconds over all stages."""
        return sum(stage.get("seconds", 0.0) for stage in self.stages.values())

    @property
    def train_steps(self) -> float:
        """Optimizer steps over all stages."""
        return sum(stage.get("steps", 0.0) for stage in self.stages.values())


def _median_of_medians(rounds: list[tuple[float, ...]] | list[list[float]]) -> float:
    """Median over the medians of rounds that have samples; NaN when none has."""
    medians = [median(r) for r in rounds if r]
    return median(medians) if medians else math.nan
