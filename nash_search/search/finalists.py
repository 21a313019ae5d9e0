"""Winners trained again with other seeds, so that a number says how much of it was luck.

    picked architectures x seeds (seed+1 ... seed+n-1) -> jobs, run like trials -> finalists/<key>-<seed>/

A finalist is a decided architecture, not a proposal: it gets no row in the study, counts as no trial and moves
no sampler, so a study goes on with more trials as if nobody had looked. Its sealed folder is its truth: a whole
one is not trained again, a begun one continues. Which seed's model is exported is decided on the validation
split (`elected`), for the search chose there already; deciding on the test split would spoil the one number
that nothing was chosen by.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nash_search import pareto
from nash_search.errors import StorageDamaged
from nash_search.records import TrialRecord
from nash_search.results import Terms
from nash_search.search.feasibility import MARGIN
from nash_search.search.scheduler import RETRIED, Scheduler
from nash_search.storage import artifacts, recovery
from nash_search.storage.artifacts import FINALISTS
from nash_search.trial.job import Job, Nothing


def expected_winners(records: Sequence[TrialRecord], terms: Terms) -> list[TrialRecord]:
    """Per budget, the best validated quality that the trials' own timings admit, a certificate's half-width below it.

    Certification may decide otherwise; its winners are then trained too, and all is certified once more.

    Args:
        records: complete trials.
        terms: what the front will be judged by.
    """
    found: dict[int, TrialRecord] = {}
    known = [(r, r.latency, r.quality) for r in records]
    timed = [(r, latency.ratio, quality) for r, latency, quality in known if latency and quality]
    if timed:
        direction = timed[0][2].direction
        worst = math.inf if terms.quality_floor is None else pareto.loss(terms.quality_floor, direction)
        timed = [t for t in timed if pareto.loss(t[2].value, direction) <= worst]
        points = pareto.losses([t[1] for t in timed], [t[2].value for t in timed], direction)
        for budget in terms.budgets:
            best = pareto.best_under(points, budget.share_of(terms.dense_ms) / (1 + MARGIN))
            if best is not None:
                found[timed[best][0].number] = timed[best][0]
    return list(found.values())


class Finalists:
    """JobSource of picked trials, one per further seed that has no whole folder yet."""

    def __init__(self, scheduler: Scheduler, picked: Sequence[TrialRecord], say: Callable[[str, dict[str, Any]], None]):
        self.config, self.workload, self.workers = scheduler.config, scheduler.workload, scheduler.workers
        self._scheduler, self._say = scheduler, say
        seeds = range(self.config.seed + 1, self.config.seed + self.config.finalist_seeds)
        jobs = [scheduler.finalist_job(r, seed % 2**32) for r in picked for seed in seeds]
        self._left = deque(job for job in jobs if artifacts.read(job.final, deep=False) is None)
        self._running: set[str] = set()
        self._failed: set[str] = set()
        if self._left:
            say("finalists", {"architectures": len(picked), "trainings": len(self._left)})

    def exhausted(self) -> bool:
        """Is every seed trained?"""
        return not self._left

    def ask(self) -> Job | Nothing:
        """The next seed."""
        if not self._left:
            return Nothing.WAIT if self._running else Nothing.DONE
        job = self._left.popleft()
        self._running.add(job.key)
        return job

    def tell(self, job: Job, record: TrialRecord, wall_s: float = 0.0) -> None:
        """Say how it went; one more try where a trial would get one.

        Raises:
            StorageDamaged: when the disk is full.
        """
        self._running.discard(job.key)
        if record.failure == "disk_full":
            raise StorageDamaged(f"the disk must have room for finalists, but it is full: {record.message}")
        if record.failure in RETRIED and job.key not in self._failed:
            self._left.append(job)
        if record.failure is not None:
            self._failed.add(job.key)
        quality = record.quality.value if record.quality is not None else None
        self._say("finalist", {"number": job.number, "seed": job.seed, "quality": quality, "failure": record.failure})

    def progress(self, number: int, stage: str, step: int, steps: int, loss: float) -> None:
        """Pass it on."""
        self._scheduler.progress(number, stage, step, steps, loss)


def trained(folder: Path, question: str, picked: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Records of picked trials' further seeds, under the trials' numbers; litter of kills is removed."""
    numbers = {r.architecture: r.number for r in picked}
    found = []
    for path in recovery.whole_folders(folder / FINALISTS, question):
        record = artifacts.stored_record(path)
        if record.architecture in numbers:
            checkpoint = f"{FINALISTS}/{path.name}/{record.checkpoint}"
            found.append(record.model_copy(update={"number": numbers[record.architecture], "checkpoint": checkpoint}))
    return sorted(found, key=lambda r: (r.number, r.seed))
