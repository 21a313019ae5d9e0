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
from nash_search.config import LatencyBudget, SearchConfig, Workload
from nash_search.intervals import OccasionEffect
from nash_search.latency import occasions
from nash_search.latency_record import Latency, Round
from nash_search.latency_table import LatencyTable
from nash_search.records import TrialRecord
from nash_search.summary_rows import Certifies
from nash_search.trial.cost import certified_pairs

LATENCIES = ".latencies"
"""Beside the studies: every shape timed here, and how long the dense model took at each occasion."""


def certifies(
    budgets: Sequence[LatencyBudget], effect: OccasionEffect, rounds: int, found: Latency | None = None
) -> Certifies:
    """What a certificate can tell apart on this device, for the plan and the answer.

    Args:
        budgets: as asked.
        effect: the device's occasion effect.
        rounds: fresh rounds of a certificate.
        found: a certificate, or a foretold one, whose own rounds say how far they scatter (None: as `intervals`
            assumes).
    """

    def told(budget: LatencyBudget) -> bool:
        """Of requests only their timings say how far below a budget one must lie."""
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
    return certifies(config.budgets, effect, config.certify_rounds, foretold(config, table, effect))


def foretold(config: SearchConfig, table: LatencyTable, effect: OccasionEffect) -> Latency | None:
    """A certificate of requests as the probe foretells it, of the shape that lies closest to the first budget.

    Each request that its rounds will draw takes what its lengths do in the probe (least squares) and scatters as the
    probe's do; rounds move as far as `intervals` assumes. None where one call is timed, or where the probe timed
    every request that there is.
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
    moves_R = np.linspace(-1, 1, rounds) / np.linspace(-1, 1, rounds).std(ddof=1)
    apart_R = intervals.RATIO_ROUND_SD * np.roll(moves_R, rounds // 2)
    rng, found = np.random.default_rng(0), []
    for turn, (moved, apart) in enumerate(zip(intervals.ROUND_SD * moves_R, apart_R, strict=True)):
        lengths_P3 = _lengths(call.calls(certified_pairs(config, call.longer), turn))
        scatter_P2 = scatter_N2[rng.integers(0, len(scatter_N2), len(lengths_P3))]
        logs_P2 = np.log(np.maximum(lengths_P3 @ ms_32, least_2)) + scatter_P2 + [moved + apart, moved]
        own, dense = np.exp(logs_P2).T.tolist()
        found.append(Round(runs_ms=tuple(own), dense_runs_ms=tuple(dense)))
    return Latency(
        rounds=tuple(found),
        workload=call,
        fresh=True,
        interval_scale=intervals.PEEKING_SCALE,
        effect=effect,
        percentile=config.percentile,
    )


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
