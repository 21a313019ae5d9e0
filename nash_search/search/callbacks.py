"""What a caller of `search` hands in and gets back: listeners, what they are shown, and the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nash_search.config import LatencyBudget
from nash_search.records import TrialRecord
from nash_search.results import Answers, CertifiedPoint, judged
from nash_search.summaries import Summary


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


@dataclass
class Listeners:
    """Stages passed on to every listener."""

    listeners: Sequence[Listener]

    def __call__(self, stage: str, detail: dict[str, Any]) -> None:
        for listener in self.listeners:
            listener.on_stage(stage, detail)


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search answers."""

    folder: Path
    answers: Answers
    """The certified front, and what each budget gets from it."""
    summary: Summary
    """What the search found out."""

    @property
    def document(self) -> dict[str, Any]:
        """The `--json` document."""
        return self.summary.public()

    @property
    def full_document(self) -> dict[str, Any]:
        """The same with what reports need beside it; equals `summary.json`."""
        return self.summary.to_json()

    @property
    def front(self) -> tuple[CertifiedPoint, ...]:
        """The certified points, fastest first."""
        return self.answers.certification.points

    @property
    def quality_floor(self) -> float | None:
        """Worst validation quality that an answer may have; None: no limit."""
        return self.answers.terms.quality_floor

    @property
    def exit_code(self) -> int:
        """0: a budget is met; 3: none is."""
        return 0 if self.answers.winners else 3

    def best_under(self, budget: float | str) -> CertifiedPoint | None:
        """The best certified point under a budget (milliseconds, or `"50%"`); None when nothing meets it."""
        terms = self.answers.terms.model_copy(update={"budgets": (LatencyBudget.parse(budget),)})
        return next(iter(judged(self.answers.certification, terms).winners.values()), None)
