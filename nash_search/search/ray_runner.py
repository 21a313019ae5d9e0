"""Trials side by side: Ray Tune runs them, the study remembers them.

Imported only when Ray is wanted. Tune's part is small on purpose: its Searcher asks the scheduler for
jobs, its Callback hands records back, and what Tune itself remembers lies in a scratch folder that is
deleted; a start never restores a Tune run, it makes a new one over the same study.

    scheduler.ask -> JobSearcher.suggest -> worker: run_trial(job), report(record) -> TuneCallback -> scheduler.tell

Records are taken over only in `on_step_begin`: an exception inside Tune's own result handling would become a
trial error. A hung trial reports nothing, so its actor is killed by us.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nash_search.errors import NashSearchError
from nash_search.records import FailureReason, TrialRecord
from nash_search.search.ray_cluster import Searcher, gpu_share, ray, start_ray, stop_ray, tune
from nash_search.search.signals import Interruption
from nash_search.storage import log
from nash_search.storage.recovery import TUNE
from nash_search.trial.job import Hooks, Job, JobSource, Nothing
from nash_search.trial.run import failed_record, run_trial

NEWS_S = 2.0
"""Seconds between two reports of a trial's progress."""


class TuneHooks(Hooks):
    """Progress of a trial in a worker, reported to Tune now and then."""

    def __init__(self) -> None:
        self._last = 0.0

    def progress(self, job: Job, stage: str, step: int, steps: int, loss: float) -> None:
        """Report, but not each step: a report waits for the scheduler."""
        if time.monotonic() - self._last >= NEWS_S:
            self._last = time.monotonic()
            tune.report({"stage": stage, "step": step, "steps": steps, "loss": float(loss)})


def train_one(config: dict[str, Any]) -> None:
    """What a worker runs: one job, one record, both as JSON (Tune flattens dicts)."""
    job = seen_by_a_worker(Job.model_validate_json(config["job"]))
    log.to_file(Path(job.folder))
    tune.report({"record": run_trial(job, TuneHooks()).model_dump_json()})


def seen_by_a_worker(job: Job) -> Job:
    """The job on the GPU that Ray gave this process: it sees no other, so an index means nothing here."""
    if not job.config.workload.device.startswith("cuda:"):
        return job
    workload = job.config.workload.model_copy(update={"device": "cuda"})
    return job.model_copy(update={"config": job.config.model_copy(update={"workload": workload})})


class JobSearcher(Searcher):
    """Tune's idea of a search algorithm: passes the scheduler's jobs on."""

    def __init__(self, next_job: Callable[[str], Job | Nothing]) -> None:
        super().__init__(metric=None, mode=None)  # the strict metric check is off without a metric
        self._next_job = next_job

    def suggest(self, trial_id: str) -> Any:
        """A job, None for "not now", or FINISHED."""
        found = self._next_job(trial_id)
        if isinstance(found, Nothing):
            return None if found is Nothing.WAIT else Searcher.FINISHED
        return {"job": found.model_dump_json()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Records come through the callback, which knows why a trial ended."""

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher; ours has nothing to keep."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to keep."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is ever restored."""


class TuneCallback(tune.Callback):
    """Collects what Tune reports of its trials and hands it to the scheduler between Tune's steps."""

    def __init__(self, scheduler: JobSource, interruption: Interruption) -> None:
        self._scheduler, self._interruption = scheduler, interruption
        self.jobs: dict[str, Job] = {}
        self._began: dict[str, float] = {}
        self._ended: list[tuple[str, TrialRecord | None, str]] = []
        self._late: set[str] = set()
        self.error: NashSearchError | None = None

    def next_job(self, trial_id: str) -> Job | Nothing:
        """The scheduler's next job, remembered under Tune's trial id."""
        with self._interruption.shielded():
            found = self._scheduler.ask()
        if isinstance(found, Job):
            self.jobs[trial_id] = found
        return found

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Hand records to the scheduler; end trials that are late."""
        while self._ended:
            trial_id, record, why = self._ended.pop(0)
            job = self.jobs.pop(trial_id, None)
            if job is None:  # it reported its record, and then its end came for another reason
                continue
            wall_s = time.monotonic() - self._began.pop(trial_id, time.monotonic())
            if record is None:
                reason = "timeout" if trial_id in self._late else death(why)
                words = f"trial must end within {job.config.trial_timeout_s} s" if reason == "timeout" else why
                record = failed_record(job, reason, words, wall_s)
            with self._interruption.shielded():
                try:
                    self._scheduler.tell(job, record, wall_s)
                except NashSearchError as error:
                    self.error = error  # Tune would dress it up
                    raise
        limit_s = self._scheduler.config.trial_timeout_s
        if limit_s is None:
            return
        for trial in trials:
            began = self._began.get(trial.trial_id)
            actor = trial.temporary_state.ray_actor
            if began is None or actor is None or trial.trial_id in self._late or trial.trial_id not in self.jobs:
                continue
            if time.monotonic() - began > limit_s:
                self._late.add(trial.trial_id)
                with suppress(Exception):
                    ray.kill(actor)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The clock of a trial starts when its actor does."""
        self._began.setdefault(trial.trial_id, time.monotonic())

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Progress, or the record."""
        if "record" in result:
            self._ended.append((trial.trial_id, TrialRecord.model_validate_json(result["record"]), ""))
        elif "stage" in result and trial.trial_id in self.jobs:
            with self._interruption.shielded():
                number = self.jobs[trial.trial_id].number
                self._scheduler.progress(number, result["stage"], result["step"], result["steps"], result["loss"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A dead worker (`trial.get_error()` is still None here; the file is written)."""
        try:
            why = Path(trial.error_file).read_text("utf-8", "replace")
        except (OSError, TypeError):
            why = "the worker ended without a word"
        if not any(trial.trial_id == ended for ended, _, _ in self._ended):
            self._ended.append((trial.trial_id, None, why))

    def __getstate__(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}


def death(why: str) -> FailureReason:
    """What a worker died of, from Ray's words."""
    return "oom" if "OutOfMemory" in why or "memory pressure" in why else "worker_died"


def run(scheduler: JobSource, folder: Path, interruption: Interruption) -> None:
    """Run jobs side by side until there are no more; no process outlives this call.

    Args:
        scheduler: whose jobs.
        folder: the study's; what Tune writes lies there, deleted at the end or, after a kill, by the next start.
        interruption: raises here on a signal.
    """
    config = scheduler.config
    on_cpu = scheduler.workload.device == "cpu"
    scratch = folder.resolve() / TUNE
    callback = TuneCallback(scheduler, interruption)
    started = False
    try:
        with interruption.interruptible():
            if scheduler.exhausted():
                return
            started = True
            start_ray(config, scheduler.workers, on_cpu)
            interruption.install()  # ray.init took SIGTERM
            resources: dict[str, float] = {"cpu": 1} if on_cpu else {"cpu": 1, "gpu": gpu_share(scheduler.workers)}
            tuner = tune.Tuner(
                tune.with_resources(train_one, resources),
                tune_config=tune.TuneConfig(
                    search_alg=JobSearcher(callback.next_job),
                    num_samples=-1,
                    max_concurrent_trials=scheduler.workers,
                    reuse_actors=True,  # model and data stay loaded; a trial gives freed memory of a GPU back
                    trial_name_creator=lambda trial: f"trial-{trial.trial_id}",
                    trial_dirname_creator=lambda trial: f"trial-{trial.trial_id}",
                ),
                run_config=tune.RunConfig(
                    name="run",
                    storage_path=str(scratch),
                    verbose=0,
                    callbacks=[callback],
                    failure_config=tune.FailureConfig(max_failures=0),
                    checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
                ),
            )
            try:
                tuner.fit()
            except Exception:
                if callback.error is not None:
                    raise callback.error from None
                raise
        callback.on_step_begin(0, [])  # records that came with the last step
    finally:
        with interruption.shielded():
            if started:
                stop_ray()
            shutil.rmtree(scratch, ignore_errors=True)
