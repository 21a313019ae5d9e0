"""One latency: every timed call of a model and of the dense model it was paired with, summarised on read.

Round     the calls of one process, in pairs
Latency   its rounds; number, intervals and verdicts are properties, so no summary can disagree with its samples

What the number is follows from what was timed. Of one call it is the median: over the rounds' medians, and for shares
over the ratios of pairs. Of a traffic's requests it is a percentile over all of them, the median unless another is
asked (`at`), and a share is the candidate's percentile over the dense model's. A budget is judged by its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any, Literal

from pydantic import Field

from nash_search import intervals, percentiles
from nash_search.budget import MEDIAN
from nash_search.config import Frozen, LatencyBudget, Workload
from nash_search.intervals import OccasionEffect

REMEMBERED = "remembered"
"""In the details of a latency that was taken before and only checked again."""
Verdict = Literal["met", "missed", "ambiguous"]
MeasurementStatus = Literal["clean", "contended", "cut_short", "unsettled", "zero_durations", "no_samples"]


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
    second_look: bool = False
    """True if a first look at fewer rounds left a budget ambiguous, and more rounds were then added."""
    looks: int = Field(default=1, ge=1)
    """How often the question was asked; each time the rounds are pooled and the bounds widened."""
    cut_short: bool = False
    """True when the time limit came before the last pair."""
    percentile: float = MEDIAN
    """The percentile over the traffic's requests that `median_ms` and `ratio` give; 50 where one call is timed."""

    def at(self, percentile: float) -> Latency:
        """The same samples, of which another percentile is the number.

        Raises:
            ValueError: they are of one call, which has no distribution over requests.
        """
        if percentile == self.percentile:
            return self
        if percentile != MEDIAN and self.workload.traffic is None:
            raise ValueError(f"percentile must be 50 where one call was timed, but got {percentile:g}")
        return self.model_copy(update={"percentile": percentile})

    @property
    def runs_ms(self) -> tuple[float, ...]:
        """All candidate samples, in order."""
        return tuple(x for r in self.rounds for x in r.runs_ms)

    @property
    def _own(self) -> percentiles.Rounds:
        return tuple(r.runs_ms for r in self.rounds)

    @property
    def _dense(self) -> percentiles.Rounds:
        return tuple(r.dense_runs_ms for r in self.rounds)

    @property
    def median_ms(self) -> float:
        """The number, milliseconds: of one call the median over round medians, of requests the percentile asked for.

        NaN without samples.
        """
        return self._number_ms(self._own)

    @property
    def dense_ms(self) -> float:
        """The same of the paired dense reference, milliseconds (NaN without samples)."""
        return self._number_ms(self._dense)

    def _number_ms(self, rounds: percentiles.Rounds) -> float:
        if self.workload.traffic is not None:
            return percentiles.of_requests(rounds, self.percentile)
        return _median_of_medians(rounds)

    @property
    def bounds_ms(self) -> tuple[float, float]:
        """Two-sided 95 % bounds of the number, milliseconds (of rounds, of requests, and the occasion effect)."""
        return self._bounds_ms(self._own)

    @property
    def dense_bounds_ms(self) -> tuple[float, float]:
        """Two-sided 95 % bounds of the dense reference's, milliseconds."""
        return self._bounds_ms(self._dense)

    def _bounds_ms(self, rounds: percentiles.Rounds) -> tuple[float, float]:
        known: dict[str, Any] = {"scale": self.interval_scale, "confidence": intervals.confidence_at(self.looks)}
        known |= {"effect": self.effect, "occasions": tuple(r.occasion for r in self.rounds)}
        if self.workload.traffic is not None:
            return percentiles.bounds(rounds, self.percentile, second_look=self.second_look, **known)
        return intervals.median_bounds(rounds, **known)

    @property
    def ratio(self) -> float:
        """Candidate over dense: of one call the median of per-pair ratios, over rounds; of requests their percentiles'.

        NaN without samples.
        """
        if self.workload.traffic is not None:
            return percentiles.ratio(self._own, self._dense, self.percentile)
        return _median_of_medians([intervals.pair_ratios(r.runs_ms, r.dense_runs_ms).tolist() for r in self.rounds])

    @property
    def ratio_bounds(self) -> tuple[float, float]:
        """Two-sided 95 % bounds of the ratio."""
        known: dict[str, Any] = {"scale": self.interval_scale, "confidence": intervals.confidence_at(self.looks)}
        if self.workload.traffic is not None:
            known["second_look"] = self.second_look
            return percentiles.bounds(self._own, self.percentile, dense=self._dense, **known)
        return intervals.ratio_bounds(list(zip(self._own, self._dense, strict=True)), **known)

    def margin(self, budget: LatencyBudget) -> float:
        """How far below this budget a model must truly lie to be found to meet it here, as a fraction.

        For a traffic's requests it is derived from the measured interval, which holds their scatter too.
        """
        if self.workload.traffic is not None:
            judged = self.at(budget.percentile)
            share = budget.share is not None
            value, upper = (judged.ratio, judged.ratio_bounds) if share else (judged.median_ms, judged.bounds_ms)
            return 1 - (value / upper[1]) ** (1 + intervals.POWER_QUANTILE / intervals.NORMAL_QUANTILE)
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

    def part_of(self, budget: LatencyBudget, dense_ms: float | None = None) -> float:
        """Latency as a fraction of a budget, at the budget's percentile: up to 1 lies within it (no verdict).

        Args:
            budget: a share, or milliseconds.
            dense_ms: the dense model's same percentile, of which milliseconds are a share (None: as it was timed here).
        """
        judged = self.at(budget.percentile)
        return judged.ratio / budget.share_of(judged.dense_ms if dense_ms is None else dense_ms)

    @property
    def speedup(self) -> float:
        """Dense over candidate, paired, same workload."""
        return 1 / self.ratio if self.ratio else math.inf

    @property
    def p95_ms(self) -> float | None:
        """95th percentile of one call, milliseconds; None below 130 samples (too few to say)."""
        return percentiles.p95_of_calls(self.runs_ms)

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
        """Does it meet the budget, at the budget's percentile? Shares are judged on the ratio, ms on wall times.

        A contended absolute verdict is at best ambiguous: the neighbours' share of it is unknown.
        """
        judged = self.at(budget.percentile)
        if budget.share is not None:
            return intervals.verdict(judged.ratio_bounds, budget.share)
        assert budget.ms is not None
        found = intervals.verdict(judged.bounds_ms, budget.ms)
        return "ambiguous" if found == "met" and self.status == "contended" else found

    def certificate(self, budget: LatencyBudget) -> Verdict:
        """The verdict that may be called "meets the budget": at least two fresh rounds, else ambiguous."""
        rounds = sum(bool(r.runs_ms) for r in self.rounds)
        return self.verdict(budget) if self.fresh and rounds >= 2 else "ambiguous"


def pooled(before: Latency | None, now: Latency) -> Latency:
    """Pool a new measurement with an earlier one of the same model: all rounds count, `looks` is summed.

    Where device, software, call or `fresh` differ, the new rounds stand alone and only `looks` is carried over.
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
            "second_look": now.second_look,
            "looks": looks,
        }
    )


def _median_of_medians(rounds: Sequence[Sequence[float]]) -> float:
    """Median over the medians of rounds that have samples; NaN when none has."""
    medians = [median(r) for r in rounds if r]
    return median(medians) if medians else math.nan
