"""Who is next and what became of them: the loop's memory between a study and any runner.

    ask     interrupted or retried -> dense model -> anchors -> sampler      (Job, WAIT or DONE)
    tell    record -> study -> drop dominated weights -> backup -> listeners

All of it is derived from the study's rows, so a new scheduler over the same study goes on where a killed one ended.
A runner (serial or Ray) only calls these two.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from nash_search.config import Architecture, SearchConfig, Workload
from nash_search.errors import StorageDamaged
from nash_search.latency_table import LatencyTable
from nash_search.records import TrialRecord
from nash_search.search import feasibility
from nash_search.search.callbacks import Listener, StudyState
from nash_search.search.candidates import Candidates
from nash_search.search.sampler import Proposals, seed_at
from nash_search.storage import artifacts, recovery
from nash_search.storage.artifacts import WEIGHTS, folder_key
from nash_search.storage.study import Row, Study
from nash_search.trial import shared_training
from nash_search.trial.cost import at_length, finalists, finish_steps, for_trials_s, mean_wall_s, train_threads
from nash_search.trial.job import Job, Nothing, device_id

RETRIED = frozenset({"oom", "worker_died", "disk_full"})
"""Reasons that deserve one more try."""
OUT_OF_TIME = "the time budget is spent"
"""Why a search of a time budget trains no more."""
ROW_LIMIT = 5
"""Failures in a row after which the search ends: something is wrong with all of them."""


class Scheduler:
    """Proposes jobs and takes records."""

    NO_TRIALS: ClassVar[dict[str, int]] = {"complete": 0, "stopped": 0, "infeasible": 0, "failed": 0}

    # 9 parameters: the study and its question (4), and what a resume or the probe found before, by keyword.
    def __init__(
        self,
        study: Study,
        table: LatencyTable,
        config: SearchConfig,
        workload: Workload,
        *,
        workers: int = 1,
        listeners: Sequence[Listener] = (),
        extra_anchors: Sequence[Architecture] = (),
        load_s: float = 0.0,
        spent_s: float = 0.0,
    ) -> None:
        self.study, self.table, self.config, self.workload = study, table, config, workload
        self.candidates = Candidates(study, config.budgets)
        self.workers, self.listeners = workers, listeners
        facts = study.facts
        space = feasibility.worth_training(facts.space, table, config)
        self.feasible = feasibility.trainable(facts, table, config)
        corners = feasibility.anchors(space, table, config.budgets, config.trials)
        wanted = corners if config.sampler not in feasibility.UNGUIDED else []
        known = [a for a in extra_anchors if a in self.feasible]  # a fork's space may hold less than its parent's
        self.anchors = list(dict.fromkeys([*known, *wanted]))
        self.why_done = ""
        self._began = time.monotonic() - spent_s
        self.limit_s = for_trials_s(config, table.call_ms, load_s)
        self._running: dict[int, Job] = {}
        self._failed_in_a_row = 0
        self._spent_s: list[float] = []
        self._dropped: set[int] = set()

    # -- proposing -------------------------------------------------------------------------------

    def ask(self) -> Job | Nothing:
        """The next job, WAIT while others may still make one necessary, or DONE."""
        self.study.refresh()
        rows = self.study.rows()
        if self.trained(rows) + len(self._running) >= self.config.trials:
            return self._done(f"{self.config.trials} trials trained")
        if self._failed_in_a_row >= ROW_LIMIT:
            return self._done(f"{ROW_LIMIT} trials in a row failed")
        if self._out_of_time():
            return self._done(OUT_OF_TIME)
        taken = self._taken(rows)
        planned = self._planned(rows, taken)
        free = [a for a in self.feasible if a not in taken]
        if planned is None and not free:
            return self._done("every feasible architecture is decided")
        seed = seed_at(self.config.seed, sum(row.state in ("COMPLETE", "PRUNED") for row in rows))
        sampler = Proposals(self.config.sampler, seed, self.study.facts.space, free, planned, alone=not self._running)
        number, architecture = self.study.ask(sampler)
        share = self.table.share(architecture)
        if not feasibility.fits(
            self.study.facts, self.table, architecture
        ):  # somebody enqueued it: an answer, not a training
            loosest = self.study.facts.loosest_share
            reason = f"probed at {share:.0%} of the dense latency, the loosest budget is {loosest:.0%}"
            record = TrialRecord(number=number, architecture=architecture, infeasible=reason)
            self.study.tell(number, record, share)
            self._tell_listeners(record)
            return self.ask()
        job = self._job(number, architecture, share)
        self._running[number] = job
        return job

    def exhausted(self) -> bool:
        """Is there nothing left to do? (Asked before anything is started for it.)"""
        rows = self.study.rows()
        taken = self._taken(rows)
        return self.trained(rows) >= self.config.trials or (
            self._planned(rows, taken) is None and not set(self.feasible) - taken
        )

    def dense_job(self) -> Job | None:
        """The dense model as a trial to be taken over untrained; None when its row is there already."""
        baseline = self.study.facts.baseline
        rows = self.study.rows()
        if baseline not in self.study.facts.space.architectures() or baseline in self._taken(rows):
            return None
        sampler = Proposals("random", 0, self.study.facts.space, [], baseline)
        number, _ = self.study.ask(sampler)
        job = self._job(number, baseline, 1.0)
        self._running[number] = job
        return job

    def _done(self, why: str) -> Nothing:
        self.why_done = why
        return Nothing.WAIT if self._running else Nothing.DONE

    def _out_of_time(self) -> bool:
        if self.limit_s is None:
            return False
        expected = max(self._spent_s[-3:], default=0.0)
        return self.elapsed_s + expected * (1 + self._finalists / self.workers) > self.limit_s

    @property
    def _finalists(self) -> float:
        """Most that the winners' further trainings will cost, in units of one trial."""
        models, times = finalists(self.config, self.finish_steps())
        return models * times

    def finish_steps(self) -> int:
        """Steps over which each winner is trained anew, as far as what trials took is known; 0: none is."""
        return finish_steps(self.config, self.trial_wall_s, self.workers, self.limit_s)

    @property
    def trial_wall_s(self) -> float | None:
        """Mean wall time of the trials so far, the dense model's own row left out, seconds; None before any."""
        return mean_wall_s([r for r in self.study.records() if r.architecture != self.study.facts.baseline])

    def finalist_job(self, record: TrialRecord, seed: int, steps: int = 0) -> Job:
        """A decided trial's architecture once more, by its recipe stretched to so many steps (0: as it is)."""
        config = self._trial_config(repeated=record)
        config = at_length(config, steps) if steps else config
        again = {"seed": seed, "finalist": True, "finish_steps": steps, "config": config}
        architecture = record.architecture
        return self._job(record.number, architecture, self.table.share(architecture)).model_copy(update=again)

    def _job(self, number: int, architecture: Architecture, share: float) -> Job:
        return Job(
            number=number,
            architecture=architecture,
            seed=self.config.seed,
            question=self.study.facts.question_digest,
            config=self._trial_config(),
            workload=self.workload,
            share=share,
            folder=str(self.study.folder.resolve()),
            device=device_id(self.table.fingerprint),
            train_threads=train_threads(self.workers),
        )

    def _trial_config(self, *, repeated: TrialRecord | None = None) -> SearchConfig:
        """As asked, without the secret; trained alone where the shared model has proved a poor guide.

        Args:
            repeated: the trial whose recipe is taken instead, whatever has been found of the shared model since.
        """
        asked = self.config.model_copy(update={"storage": None})
        if asked.recipe.narrowing != "shared":
            return asked
        shared = (
            shared_training.trusted(self.study.records())
            if repeated is None
            else shared_training.QUALITY in repeated.pruning
        )
        alone = asked.recipe.model_copy(update={"narrowing": "gates"})
        return asked if shared else asked.model_copy(update={"recipe": alone})

    def _planned(self, rows: Sequence[Row], taken: set[Architecture]) -> Architecture | None:
        """The next architecture to precede the sampler: interrupted or retried ones, then anchors; None: no more."""
        again = [r.architecture for r in rows if r.architecture is not None and r.state == "FAIL"]
        for architecture in dict.fromkeys([*again, *self.anchors]):
            if architecture not in taken and feasibility.fits(self.study.facts, self.table, architecture):
                return architecture
        return None

    def _taken(self, rows: Sequence[Row]) -> set[Architecture]:
        """Architectures that must not be proposed: running, decided, or failed for good."""
        failures: dict[Architecture, list[str]] = {}
        taken = {job.architecture for job in self._running.values()}
        for row in rows:
            if row.architecture is None:
                continue
            if row.state == "FAIL":
                failures.setdefault(row.architecture, []).append(row.failure or "error")
            elif row.state in ("COMPLETE", "PRUNED"):
                taken.add(row.architecture)
        for architecture, reasons in failures.items():
            counted = [r for r in reasons if r != "interrupted"]
            if len(counted) >= 2 or any(r not in RETRIED for r in counted):
                taken.add(architecture)
        return taken

    def trained(self, rows: Sequence[Row]) -> int:
        """Trials that count: neither failed nor refused, the dense model's row left out."""
        refused = {r.number for r in self.study.records() if r.infeasible is not None}
        baseline = {self.study.facts.baseline}  # a hash is cheaper than an equality
        return sum(
            r.state in ("COMPLETE", "PRUNED") and r.number not in refused and r.architecture not in baseline
            for r in rows
        )

    # -- taking results --------------------------------------------------------------------------

    def tell(self, job: Job, record: TrialRecord, wall_s: float = 0.0) -> None:
        """Close the job's row with its record.

        Raises:
            StorageDamaged: when the disk is full; the row is closed first.
        """
        self._running.pop(job.number, None)
        share = record.latency.ratio if record.latency is not None else job.share
        self.study.tell(job.number, record, share)
        self._failed_in_a_row = self._failed_in_a_row + 1 if record.status == "failed" else 0
        if record.status != "failed" and wall_s:
            self._spent_s.append(wall_s)
        if not self.config.keep_all:
            self._drop_dominated()
        if record.failure is not None:
            self.tidy()
        recovery.back_up(self.study.folder)
        self._tell_listeners(record)
        if record.failure == "disk_full":
            raise StorageDamaged(f"the disk must have room for trials, but it is full: {record.message}")

    def tidy(self) -> None:
        """Delete training state that nobody will continue: of trials decided or failed for good."""
        over = self._taken(self.study.rows()) - {job.architecture for job in self._running.values()}
        keys = {folder_key(self.study.facts.question_digest, a) for a in over}
        for path in (self.study.folder / "trials").glob(".work-*"):
            if path.name.removeprefix(".work-") in keys:
                shutil.rmtree(path, ignore_errors=True)

    def interrupted(self) -> None:
        """Close the rows of jobs that will not come back; they are taken up again at the next start."""
        for number in list(self._running):
            self.study.fail(number, "interrupted", "the scheduler was asked to end")
            del self._running[number]

    def _drop_dominated(self) -> None:
        held = [r for r in self.study.records() if r.checkpoint is not None and r.number not in self._dropped]
        kept = {r.number for r in [*self.candidates.front(), *self.candidates.contenders(held)]}
        for record in held:
            if record.number not in kept:
                artifacts.drop(Path(self.study.folder, str(record.checkpoint)).parent, f"{WEIGHTS}/")
                self._dropped.add(record.number)  # dominated once, dominated for good

    def counts(self) -> dict[str, int]:
        """Trials by status; interrupted rows are no trials."""
        found = Counter(str(r.status) for r in self.study.records())
        return {status: found.get(status, 0) for status in self.NO_TRIALS}

    @property
    def elapsed_s(self) -> float:
        """Wall seconds since the search began, what it spent before this scheduler (`spent_s`) included."""
        return time.monotonic() - self._began

    def state(self) -> StudyState:
        """What listeners are shown after a trial."""
        records = tuple(self.study.records())
        trained = self.trained(self.study.rows())
        left = max(0, self.config.trials - trained) + self._finalists
        mean = sum(self._spent_s) / len(self._spent_s) if self._spent_s else None
        return StudyState(
            records=records,
            front=tuple(r.number for r in self.candidates.front()),
            hypervolume=self.candidates.hypervolume(),
            counts=self.counts(),
            trained=trained,
            trials=self.config.trials,
            train_s=sum(r.train_s for r in records),
            elapsed_s=self.elapsed_s,
            eta_s=None if mean is None else left * mean / max(1, self.workers),
            dense_ms=self.study.facts.dense_ms,
            dense_quality=self.study.facts.dense_quality,
        )

    def _tell_listeners(self, record: TrialRecord) -> None:
        if not self.listeners:
            return
        state = self.state()
        for listener in self.listeners:
            listener.on_trial(record, state)

    def progress(self, number: int, stage: str, step: int, steps: int, loss: float) -> None:
        """Pass a running trial's progress on."""
        for listener in self.listeners:
            listener.on_progress(number, stage, step, steps, loss)
