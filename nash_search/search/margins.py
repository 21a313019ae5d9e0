"""How far a device's milliseconds move between occasions: kept by every study, learnt from all that lie beside it.

    trials, certification, `measure`, `remeasure` -> results/.latencies/occasions.jsonl -> the next certificate

Every trial times the dense model beside itself, at its own moment; so does every certification. What a
median's scatter means stands in `nash_search.intervals`, how lines are kept in `latency.occasions`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_search import intervals
from nash_search.budget import MEDIAN
from nash_search.config import Frozen, LatencyBudget, SearchConfig, Workload
from nash_search.intervals import OccasionEffect
from nash_search.latency import occasions
from nash_search.latency_record import Latency, Round
from nash_search.latency_table import LatencyTable
from nash_search.records import TrialRecord
from nash_search.summary_rows import Certifies
from nash_search.trial.cost import certified_pairs

LATE_SHARE, LATER = 0.01, (0.1, 0.7)
"""How many calls come late on idle cores, and by how much, log milliseconds: 1.4 % take more than 1.3 times their
round's median, 0.4 % more than 1.5 times (results/clock/clock.json.gz)."""
ASSUMED_CALLS = 400
"""That assumption counts as so many calls beside those that a probe saw."""
SIMULATED = 32
"""Certificates that are simulated from a probe; the margin is the `POWER` quantile over them."""
LATENCIES = ".latencies"
"""Beside the studies: every shape timed here, and how long the dense model took at each occasion."""


def certifies(
    budgets: Sequence[LatencyBudget],
    effect: OccasionEffect,
    rounds: int,
    found: Latency | SimulatedCertificates | None = None,
) -> Certifies:
    """What a certificate can tell apart on this device, for the plan and the answer.

    Args:
        budgets: as asked.
        effect: the device's occasion effect.
        rounds: fresh rounds of a certificate.
        found: a certificate, whose own rounds say how far they scatter, or simulated ones (None: as `intervals`
            assumes).
    """

    def told(budget: LatencyBudget) -> bool:
        """True if the budget's margin is known: that of requests (`@p95`) needs timings of requests."""
        return found is not None or "@" not in budget.asked

    def margin(budget: LatencyBudget) -> float:
        if found is not None:
            return found.margin(budget)
        return planned_margin(effect, rounds) if budget.share is None else _fraction(intervals.RATIO_ROUND_SD, rounds)

    percentile = MEDIAN if found is None else found.percentile
    ms_margin = margin(LatencyBudget(asked="1", ms=1.0, percentile=percentile))
    share_margin = margin(LatencyBudget(asked="100%", share=1.0, percentile=percentile))
    return Certifies(
        occasion_sd=effect.sd,
        occasions=effect.occasions,
        assumed=effect.assumed,
        ms_margin=ms_margin,
        share_margin=share_margin,
        needs_ms={b.asked: b.ms * (1 - margin(b)) for b in budgets if b.ms is not None and told(b)},
    )


def planned(config: SearchConfig, table: LatencyTable, effect: OccasionEffect) -> Certifies:
    """What a certificate will tell apart, before there is one.

    Args:
        config: rounds, pairs and budgets.
        table: the probe's.
        effect: the device's occasion effect.
    """
    return certifies(config.budgets, effect, config.certify_rounds, simulated_certificates(config, table, effect))


class SimulatedCertificates(Frozen):
    """Simulated certificates of a traffic's requests; the margin is read off them before a real one exists."""

    certificates: tuple[Latency, ...]

    @property
    def percentile(self) -> float:
        """The percentile over requests that the certificates give."""
        return self.certificates[0].percentile

    def margin(self, budget: LatencyBudget) -> float:
        """How far below this budget (fraction) a model must truly lie for `POWER` of them to say that it meets it."""
        every = [latency.at(budget.percentile) for latency in self.certificates]
        whole = every[0].model_copy(update={"rounds": tuple(r for latency in every for r in latency.rounds)})
        if budget.share is None:
            moved = 0.0 if whole.effect is None else whole.effect.sd  # by each one's occasion
            moves = np.exp(moved * np.random.default_rng(1).standard_normal(len(every)))
            true, upper = whole.median_ms, np.asarray([latency.bounds_ms[1] for latency in every]) * moves
        else:
            true, upper = whole.ratio, np.asarray([latency.ratio_bounds[1] for latency in every])
        return 1 - true / float(np.quantile(upper, intervals.POWER, method="higher"))


def simulated_certificates(
    config: SearchConfig, table: LatencyTable, effect: OccasionEffect
) -> SimulatedCertificates | None:
    """Simulate `SIMULATED` certificates from the probe's timings of the shape that lies closest to the first budget.

    Each request that their rounds will draw takes what its lengths do in the probe (least squares), scatters as the
    probe's do, and is `late` as often as is assumed, which the probe's few requests hardly show; rounds move as
    far as `intervals` assumes. None where one call is timed, or where the probe timed every request that there is.
    """
    call, rounds = table.workload, config.certify_rounds
    share = next((b.share_of(table.at(b.percentile).dense_ms) for b in config.budgets), 1.0)
    known = min((entry.latency for entry in table.entries), key=lambda latency: abs(latency.ratio - share))
    seen = known.rounds[0]
    if call.traffic is None or known.cut_short or call.traffic.of <= len(seen.runs_ms):
        return None
    times_N2 = np.transpose([seen.runs_ms, seen.dense_runs_ms])
    asked_N3 = _lengths(call.calls(len(times_N2), 0))
    ms_32 = np.linalg.lstsq(asked_N3, times_N2, rcond=None)[0]
    least_2 = times_N2.min(0) / 2
    scatter_N2 = np.log(times_N2 / np.maximum(asked_N3 @ ms_32, least_2))
    scatter_N2 -= np.median(scatter_N2, axis=0)
    are_late_N2 = scatter_N2 > LATER[0]
    late_share = (LATE_SHARE * ASSUMED_CALLS + are_late_N2.sum()) / (ASSUMED_CALLS + are_late_N2.size)
    scatter_N2[are_late_N2] = 0.0  # they are drawn by `late`
    rng, pairs, found = np.random.default_rng(0), certified_pairs(config, call.longer), []
    for turn in range(SIMULATED):
        moved_R2 = intervals.ROUND_SD * rng.standard_normal((rounds, 1))
        apart_R2 = intervals.RATIO_ROUND_SD * rng.standard_normal((rounds, 1)) * [1, 0]
        taken = []
        for number, moves_2 in enumerate(moved_R2 + apart_R2):
            lengths_P3 = _lengths(call.calls(pairs, turn * rounds + number))
            logs_P2 = np.log(np.maximum(lengths_P3 @ ms_32, least_2)) + moves_2
            logs_P2 += scatter_N2[rng.integers(0, len(scatter_N2), len(logs_P2))] + late(rng, logs_P2.shape, late_share)
            own, dense = np.exp(logs_P2).T.tolist()
            taken.append(Round(runs_ms=tuple(own), dense_runs_ms=tuple(dense)))
        found.append(tuple(taken))
    first = Latency(
        rounds=found[0],
        workload=call,
        fresh=True,
        interval_scale=intervals.PEEKING_SCALE,
        effect=effect,
        percentile=config.percentile,
    )
    return SimulatedCertificates(certificates=tuple(first.model_copy(update={"rounds": taken}) for taken in found))


def late(rng: np.random.Generator, shape: tuple[int, ...], share: float = LATE_SHARE) -> npt.NDArray[np.float64]:
    """Random additions to log times: uniform in `LATER` for `share` of the calls, 0 for the others."""
    return (rng.random(shape) < share) * rng.uniform(*LATER, shape)


def _lengths(calls: Sequence[Workload]) -> npt.NDArray[np.float64]:
    """1, tokens in and tokens out of each call."""
    return np.asarray([(1, call.input_tokens, call.output_tokens) for call in calls], dtype=float)


def planned_margin(effect: OccasionEffect, rounds: int) -> float:
    """How far (fraction) below milliseconds a model must lie, before any round shows how far rounds scatter."""
    return _fraction(min(intervals.ROUND_SD, effect.sd) if not effect.assumed else intervals.ROUND_SD, rounds, effect)


def _fraction(round_sd: float, rounds: int, effect: OccasionEffect | None = None) -> float:
    return -math.expm1(-intervals.margin(effect, round_sd, rounds))


def learnt(study: Path, fingerprint: Mapping[str, Any]) -> OccasionEffect:
    """How far medians move between occasions on a device, by what is kept beside a study's folder (there or not)."""
    return occasions.learnt(study.parent / LATENCIES, str(fingerprint.get("hash")))


def keep_trials(study: Path, records: Sequence[TrialRecord], dense: str | Path) -> None:
    """The dense model's median beside every trial; what is known already is not kept twice."""
    timed = [(r.latency, r.created) for r in records if r.latency is not None and r.created]
    found = [occasions.occasion_of(latency, dense, at) for latency, at in timed]
    occasions.keep(study.parent / LATENCIES, found)


def keep_fresh(study: Path, latency: Latency, dense: str | Path) -> None:
    """The dense model's median of fresh rounds that were taken just now."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    occasions.keep(study.parent / LATENCIES, [occasions.occasion_of(latency, dense, at)])
