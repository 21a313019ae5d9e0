"""Winners trained again: at length, because the search's trials are short, and with other seeds, for an interval.

    picked architectures x seeds -> jobs, run like trials -> finalists/<key>-<seed>-<steps>/    at length
                                                             finalists/<key>-<seed>/            as a trial is trained:
                                                             the search has trained the first seed

A finalist is a decided architecture, not a proposal: it gets no row in the study, counts as no trial and moves
no sampler, so a study goes on with more trials as if nobody had looked. Its sealed folder is its truth: a whole
one is not trained again, a begun one continues. One that fails leaves the search's own model standing. Which
training's model is exported is decided on the validation split (`certify.best_training_each`), the search's own among
them, for the search chose there already; deciding on the test split would spoil the one number that nothing was
chosen by.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from nash_search import pareto
from nash_search.config import LatencyBudget
from nash_search.latency_record import Latency
from nash_search.records import TrialRecord
from nash_search.results import Answers, Terms
from nash_search.search import candidates
from nash_search.search.feasibility import MARGIN
from nash_search.search.fresh_timing import key_of
from nash_search.search.scheduler import RETRIED, Scheduler
from nash_search.storage import artifacts, recovery
from nash_search.storage.artifacts import FINALISTS
from nash_search.trial import cost
from nash_search.trial.job import Job, Nothing, Say

DECIDED = 3
"""Most trials whose certificate is asked for one budget before its winner is trained at length."""
NOTHING_DECIDED: Mapping[str, Latency] = {}


def undecided(records: Sequence[TrialRecord], terms: Terms) -> list[TrialRecord]:
    """Trials to certify first: per budget the `DECIDED` best near it that beat every trial that clearly meets it.

    A trial's own timing is too noisy to tell the best ones apart, and a training at length is spent on one that meets.

    Args:
        records: complete trials.
        terms: what the front will be judged by.
    """
    found: dict[int, TrialRecord] = {}
    able = sorted(_able(records, terms), key=_loss)
    for budget in terms.budgets:
        near = [r for r in able if candidates.near(r, budget)]
        far = [r for r in able if not candidates.near(r, budget)]
        dense_ms = terms.yardstick(budget).dense_ms
        sure = [r for r in far if r.latency and r.latency.part_of(budget, dense_ms) < 1]
        best = _loss(sure[0]) if sure else math.inf
        found |= {r.number: r for r in [r for r in near if _loss(r) < best][:DECIDED]}
    return list(found.values())


def expected_winners(
    records: Sequence[TrialRecord], terms: Terms, decided: Mapping[str, Latency] = NOTHING_DECIDED
) -> list[TrialRecord]:
    """Per budget, the best validated quality that meets it, by certificate or by the trial's own clock.

    A trial without a certificate counts as meeting a budget from `MARGIN` below it on. Certification may decide
    otherwise; its winners are then trained too, and what is new is certified.

    Args:
        records: complete trials.
        terms: what the front will be judged by.
        decided: fresh latencies by trial folder.
    """

    def meets(record: TrialRecord, budget: LatencyBudget) -> bool:
        fresh = decided.get(key_of(record))
        if fresh is not None:
            return fresh.certificate(budget) == "met"
        dense_ms = terms.yardstick(budget).dense_ms
        return record.latency is not None and record.latency.part_of(budget, dense_ms) <= 1 / (1 + MARGIN)

    able = _able(records, terms)
    best = [min((r for r in able if meets(r, budget)), key=_loss, default=None) for budget in terms.budgets]
    return list({r.number: r for r in best if r is not None}.values())


def _able(records: Sequence[TrialRecord], terms: Terms) -> list[TrialRecord]:
    """Those that were timed and scored, and that training at length may make an answer."""
    return [r for r in records if r.latency is not None and r.quality is not None and terms.admits(r, at_length=False)]


def _loss(record: TrialRecord) -> float:
    assert record.quality is not None
    return pareto.loss(record.quality.value, record.quality.direction)


def certified_winners(records: Sequence[TrialRecord], answers: Answers) -> list[TrialRecord]:
    """Per budget, the best validated quality of the search's own models that are certified to meet it.

    Only short trainings are compared: a model that was trained at length may beat a better architecture that was not.
    The present answer stays the winner where its own short training is within chance of the best one, because another
    winner costs a training at length and a certification.

    Args:
        records: of the search's trials that were certified.
        answers: what their certification came to.
    """
    found: dict[int, TrialRecord] = {}
    latencies = answers.certification.latencies()
    able = _able(records, answers.terms)
    known = [(r, latencies[key]) for r in able if (key := key_of(r)) in latencies]
    for budget in answers.terms.budgets:
        answer = answers.winners.get(budget.folder)
        met = [r for r, latency in known if latency.certificate(budget) == "met"]
        if not met:
            continue
        best = min(met, key=_loss)
        if not (best.quality and answer and answer.searched and answer.searched.led_by_chance(best.quality)):
            found[best.number] = best
    return list(found.values())


class Finalists:
    """JobSource of picked trials, one per training that has no whole folder yet."""

    def __init__(
        self,
        scheduler: Scheduler,
        picked: Sequence[TrialRecord],
        steps: int,
        say: Say,
    ) -> None:
        self.config = cost.at_length(scheduler.config, steps) if steps else scheduler.config  # its timeout is theirs
        self.workload, self.workers = scheduler.workload, scheduler.workers
        self._scheduler, self._say = scheduler, say
        first = self.config.seed
        seeds = range(first if steps else first + 1, first + self.config.finalist_seeds)
        jobs = [scheduler.finalist_job(r, seed % 2**32, steps) for r in picked for seed in seeds]
        self._left = deque(job for job in jobs if artifacts.read(job.final, deep=False) is None)
        self._running: set[str] = set()
        self._failed: set[str] = set()
        if self._left:
            told = {"architectures": len({job.number for job in self._left}), "trainings": len(self._left)}
            say("finalists", told | {"steps": steps})

    def exhausted(self) -> bool:
        """Is every training done?"""
        return not self._left

    def ask(self) -> Job | Nothing:
        """The next training."""
        if not self._left:
            return Nothing.WAIT if self._running else Nothing.DONE
        job = self._left.popleft()
        self._running.add(job.key)
        return job

    def tell(self, job: Job, record: TrialRecord, wall_s: float = 0.0) -> None:
        """Say how it went; one more try where a trial would get one."""
        self._running.discard(job.key)
        if record.failure in RETRIED and job.key not in self._failed:
            self._left.append(job)
        if record.failure is not None:
            self._failed.add(job.key)
        quality = record.quality.value if record.quality is not None else None
        told = {"number": job.number, "seed": job.seed, "steps": job.finish_steps, "quality": quality}
        self._say("finalist", told | {"failure": record.failure})

    def progress(self, number: int, stage: str, step: int, steps: int, loss: float) -> None:
        """Pass it on."""
        self._scheduler.progress(number, stage, step, steps, loss)


def trained(folder: Path, question: str, picked: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Records of picked trials' further trainings, under the trials' numbers; litter of kills is removed."""
    numbers = {r.architecture: r.number for r in picked}
    found = []
    for path in recovery.whole_folders(folder / FINALISTS, question):
        record = artifacts.stored_record(path)
        if record.architecture in numbers:
            checkpoint = f"{FINALISTS}/{path.name}/{record.checkpoint}"
            found.append(record.model_copy(update={"number": numbers[record.architecture], "checkpoint": checkpoint}))
    return sorted(found, key=lambda r: (r.number, r.finish_steps, r.seed))
