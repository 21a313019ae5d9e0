"""What a study tells of its device and learns from the studies beside it: how far milliseconds move here.

    trials, certification, `measure`, `remeasure` -> results/.latencies/occasions.jsonl -> the next certificate

Every trial times the dense model beside itself, at its own moment; so does every certification. What a
median's scatter means is `nash_search.intervals`'; how lines are kept, `latency.occasions`'.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nash_search import intervals
from nash_search.config import LatencyBudget
from nash_search.intervals import OccasionEffect
from nash_search.latency import occasions
from nash_search.latency_record import Latency
from nash_search.records import TrialRecord
from nash_search.summary_rows import Certifies

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
        found: a certificate, whose own rounds say how far they scatter (None: as `intervals` assumes).
    """

    def told(budget: LatencyBudget) -> bool:
        """Of requests only a certificate's own timings say how far below a budget one must lie."""
        return found is not None or "@" not in budget.asked

    if found is None:
        ms_margin, share_margin = planned_margin(effect, rounds), _fraction(intervals.RATIO_ROUND_SD, rounds)
    else:
        ms_margin = found.margin(LatencyBudget(asked="1", ms=1.0, percentile=found.percentile))
        share_margin = found.margin(LatencyBudget(asked="100%", share=1.0, percentile=found.percentile))
    return Certifies(
        occasion_sd=effect.sd,
        occasions=effect.occasions,
        assumed=effect.assumed,
        ms_margin=ms_margin,
        share_margin=share_margin,
        needs_ms={b.asked: b.ms * (1 - ms_margin) for b in budgets if b.ms is not None and told(b)},
    )


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
