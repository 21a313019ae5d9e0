"""What `nash-search remeasure` found, typed: a finished front timed again, beside what it was.

Remeasured   `search.remeasure` -> `--json`, the table and the picture of `report.remeasured`
"""

from __future__ import annotations

from typing import Any

from nash_search.config import Architecture, Workload
from nash_search.summary_rows import DenseRow, JsonRow


class TimedBefore(JsonRow):
    """A point when its study ended."""

    latency_ms: float | None = None
    share: float
    """Of the dense latency."""


class TimedAgain(JsonRow):
    """A point of the front, now."""

    checkpoint: str = ""
    architecture: Architecture | None = None
    latency_ms: float = 0.0
    lower_ms: float | None = None
    upper_ms: float | None = None
    speedup: float | None = None
    share: float
    """Of the dense latency."""
    share_bounds: tuple[float, float]
    """95 %."""
    before: TimedBefore
    quality: float
    """As it was certified: nothing is scored again."""
    quality_split: str = "test"
    status: str = ""
    runs_ms: tuple[float, ...] = ()
    """Every raw sample."""


class MeasuredOn(JsonRow):
    """Where the study's own numbers were taken."""

    fingerprint: dict[str, Any]
    device: str


class Remeasured(JsonRow):
    """A study's front, timed again here."""

    study: str
    renewed: bool = False
    """The study's certificate counts these rounds too."""
    not_renewed: str = ""
    """Why it does not."""
    device: str
    workload: Workload | None = None
    fingerprint: dict[str, Any]
    before: MeasuredOn
    same_fingerprint: bool
    """The study's own numbers were taken on this very device and software."""
    dense: DenseRow | None = None
    front: tuple[TimedAgain, ...]
