"""What a runner asks of whoever has work: the next job, and where its record goes.

Two have work: the search's `driver.Driver` and, after it, `finalists.Finalists`. A runner (serial or Ray) takes
either. This module refuses to know what a job does and who decides.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from nash_search.config import SearchConfig, Workload
from nash_search.records import TrialRecord
from nash_search.search.trial import Job


class Nothing(Enum):
    """Answers of `next` that are no job."""

    WAIT = "wait"
    DONE = "done"


class Jobs(Protocol):
    """Work for a runner."""

    config: SearchConfig
    workload: Workload
    workers: int

    def exhausted(self) -> bool:
        """Is there nothing to do at all? (Asked before anything is started for it.)"""

    def next(self) -> Job | Nothing:
        """The next job, WAIT while others may still make one necessary, or DONE."""

    def finish(self, job: Job, record: TrialRecord, wall_s: float = 0.0) -> None:
        """Take a job's record."""

    def progress(self, number: int, stage: str, step: int, steps: int, loss: float) -> None:
        """A running job went on."""
