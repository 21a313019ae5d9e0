"""Who is told how a search goes, and what they are shown; `search` never imports a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from nash_search.records import TrialRecord


@dataclass(frozen=True, kw_only=True)
class StudyState:
    """What a listener is shown after each trial."""

    records: tuple[TrialRecord, ...]
    front: tuple[int, ...]
    """Numbers of the feasible front, fastest first."""
    hypervolume: float
    counts: dict[str, int]
    """complete, stopped, infeasible, failed."""
    trained: int
    trials: int
    train_s: float
    elapsed_s: float
    eta_s: float | None
    dense_ms: float
    dense_quality: float


class Listener(Protocol):
    """Who is told; `search` never imports a report."""

    def on_stage(self, stage: str, detail: dict[str, Any]) -> None:
        """A stage began or ended: workload, probe, search, certify, done."""

    def on_trial(self, record: TrialRecord, state: StudyState) -> None:
        """A trial was decided."""

    def on_progress(self, number: int, stage: str, step: int, steps: int, loss: float) -> None:
        """Training went on."""
