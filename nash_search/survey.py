"""What `nash-search probe` found, typed: every shape's latency and what each budget admits; nothing was trained.

Survey      `search.probe_only` -> `--json`, the table and the picture of `report.probe`
"""

from __future__ import annotations

from typing import Any

from nash_search.config import Architecture, Workload
from nash_search.summary_rows import Certifies, DenseRow, EnginesRow, JsonRow, PlannedBudget


class ProbedShape(JsonRow):
    """One shape, timed with random weights next to the dense model."""

    architecture: Architecture
    latency_ms: float
    share: float
    """Of the dense latency."""
    share_lower: float | None = None
    share_upper: float | None = None
    """95 % bounds; None: too few rounds bound nothing."""
    status: str


class ProbedBudget(PlannedBudget):
    """A budget and what it admits."""

    feasible: bool
    nearest_feasible: str
    """The tightest budget that some architecture meets, as it would be asked for."""


class Survey(JsonRow):
    """The probe's answer."""

    task: str
    model: str | None = None
    device: str
    decoder_layers: int
    workload: Workload
    fingerprint: dict[str, Any] = {}
    dense: DenseRow
    ms_per_decoder_block: float | None
    """Slope of latency over decoder depth; None: one depth has none."""
    engines: EnginesRow | None = None
    floor_ms: float
    floor_share: float
    fastest: str
    """Slug of the architecture at the floor."""
    shapes: tuple[ProbedShape, ...]
    timed_again: int = 0
    """Shapes timed again because latency did not grow with decoder depth; every repeat counts."""
    remembered: int = 0
    """Shapes that were timed before, on this machine."""
    budgets: tuple[ProbedBudget, ...]
    percentile: float | None = None
    """Of requests, which one the latencies are; None: one call is timed."""
    certifies: Certifies | None = None
    """What a certificate can tell apart here."""
