"""What a study tells of its device and learns from the studies beside it: how far milliseconds move here.

    trials, certification, `measure`, `remeasure` -> results/.latencies/occasions.jsonl -> the next certificate

Every trial times the dense model beside itself, at its own moment; so does every certification. This module refuses
to know what a median's scatter means (`nash_search.intervals`) and how lines are kept (`latency.occasions`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nash_search.intervals import OccasionEffect
from nash_search.latency import occasions
from nash_search.records import Latency, TrialRecord

LATENCIES = ".latencies"
"""Beside the studies: every shape timed here, and how long the dense model took at each occasion."""


def learnt(study: Path, fingerprint: Mapping[str, Any]) -> OccasionEffect:
    """How far medians move between occasions on a device, by what is kept beside a study's folder."""
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
