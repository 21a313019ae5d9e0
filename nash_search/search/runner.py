"""Trials side by side: Ray Tune runs them, the study remembers them.

The only importer of ray, itself imported only when Ray is wanted. Tune's part is small on purpose: its Searcher
asks the driver for jobs, its Callback hands records back, and what Tune itself remembers lies in a scratch
folder that is deleted; a start never restores a Tune run, it makes a new one over the same study.

    driver.next() -> Asker.suggest -> worker: run_trial(job) -> report(record) -> Ears -> driver.finish()

Records are taken over only in `on_step_begin`: an exception inside Tune's own result handling would become a
trial error. A hung trial reports nothing, so its actor is killed by us. This module refuses to know what is
proposed and what a trial does.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_WARN_THRESHOLD_S": "1000000",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
}
"""Read when ray is imported, so set before."""
for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

from nash_search.config import SearchConfig  # noqa: E402
from nash_search.errors import NashSearchError  # noqa: E402
from nash_search.records import FailureReason, TrialRecord  # noqa: E402
from nash_search.search import log  # noqa: E402
from nash_search.search.jobs import Jobs, Nothing  # noqa: E402
from nash_search.search.recovery import TUNE  # noqa: E402
from nash_search.search.signals import Interruption  # noqa: E402
from nash_search.search.trial import Hooks, Job, failed_record, run_trial  # noqa: E402

OBJECT_STORE_BYTES = 80 * 2**20
NEWS_S = 2.0
"""Seconds between two reports of a trial's progress."""


class News(Hooks):
    """Progress of a trial in a worker, reported to Tune now and then."""

    def __init__(self) -> None:
        self._last = 0.0

    def progress(self, job: Job, stage: str, step: int, steps: int, loss: float) -> None:
        """Report, but not each step: a report waits for the driver."""
        if time.monotonic() - self._last >= NEWS_S:
            self._last = time.monotonic()
            tune.report({"stage": stage, "step": step, "steps": steps, "loss": float(loss)})


def train_one(config: dict[str, Any]) -> None:
    """What a worker runs: one job, one record, both as JSON (Tune flattens dicts)."""
    job = Job.model_validate_json(config["job"])
    log.to_file(Path(job.folder))
    tune.report({"record": run_trial(job, News()).model_dump_json()})


class Asker(Searcher):
    """Tune's idea of a search algorithm: passes the driver's jobs on."""

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


class Ears(tune.Callback):
    """Hears how trials went; acts between Tune's steps."""

    def __init__(self, driver: Jobs, interruption: Interruption) -> None:
        self._driver, self._interruption = driver, interruption
        self.jobs: dict[str, Job] = {}
        self._began: dict[str, float] = {}
        self._ended: list[tuple[str, TrialRecord | None, str]] = []
        self._late: set[str] = set()
        self.error: NashSearchError | None = None

    def next_job(self, trial_id: str) -> Job | Nothing:
        """The driver's next job, remembered under Tune's trial id."""
        with self._interruption.shielded():
            found = self._driver.next()
        if isinstance(found, Job):
            self.jobs[trial_id] = found
        return found

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Hand records to the driver; end trials that are late."""
        while self._ended:
            trial_id, record, why = self._ended.pop(0)
            job = self.jobs.pop(trial_id)
            wall_s = time.monotonic() - self._began.pop(trial_id, time.monotonic())
            if record is None:
                reason = "timeout" if trial_id in self._late else death(why)
                words = f"trial must end within {job.config.trial_timeout_s} s" if reason == "timeout" else why
                record = failed_record(job, reason, words, wall_s)
            with self._interruption.shielded():
                try:
                    self._driver.finish(job, record, wall_s)
                except NashSearchError as error:
                    self.error = error  # Tune would dress it up
                    raise
        limit_s = self._driver.config.trial_timeout_s
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
                self._driver.progress(number, result["stage"], result["step"], result["steps"], result["loss"])

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


def run(driver: Jobs, folder: Path, interruption: Interruption) -> None:
    """Run jobs side by side until there are no more; no process outlives this call.

    Args:
        driver: whose jobs.
        folder: the study's; what Tune writes lies there, deleted at the end or, after a kill, by the next start.
        interruption: raises here on a signal.
    """
    config = driver.config
    on_cpu = driver.workload.device == "cpu"
    scratch = folder.resolve() / TUNE
    ears = Ears(driver, interruption)
    started = False
    try:
        with interruption.interruptible():
            if driver.exhausted():
                return
            started = True
            start_ray(config, driver.workers, on_cpu)
            interruption.install()  # ray.init took SIGTERM
            resources: dict[str, float] = {"cpu": 1} if on_cpu else {"cpu": 1, "gpu": gpu_share(driver.workers)}
            tuner = tune.Tuner(
                tune.with_resources(train_one, resources),
                tune_config=tune.TuneConfig(
                    search_alg=Asker(ears.next_job),
                    num_samples=-1,
                    max_concurrent_trials=driver.workers,
                    reuse_actors=on_cpu,
                    trial_name_creator=lambda trial: f"trial-{trial.trial_id}",
                    trial_dirname_creator=lambda trial: f"trial-{trial.trial_id}",
                ),
                run_config=tune.RunConfig(
                    name="run",
                    storage_path=str(scratch),
                    verbose=0,
                    callbacks=[ears],
                    failure_config=tune.FailureConfig(max_failures=0),
                    checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
                ),
            )
            try:
                tuner.fit()
            except Exception:
                if ears.error is not None:
                    raise ears.error from None
                raise
        ears.on_step_begin(0, [])  # records that came with the last step
    finally:
        with interruption.shielded():
            if started:
                ray.shutdown()
            shutil.rmtree(scratch, ignore_errors=True)


def start_ray(config: SearchConfig, workers: int, on_cpu: bool) -> None:
    """Start a private cluster on the loopback interface, or join the one asked for."""
    ray._private.worker.print_to_stdstream = hush
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL", "configure_logging": True}
    if config.ray_address is not None:
        ray.init(address=config.ray_address, **quiet)
        return
    # its ports listen on all interfaces: Ray turns token authentication on for a cluster it starts
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    asked = os.environ.get("MALLOC_ARENA_MAX")
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # a worker has 26 threads, and an arena each keeps what it needed
    try:
        ray.init(
            address="local",
            num_cpus=max(workers, 1),
            num_gpus=0 if on_cpu else None,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            **quiet,
        )
    finally:
        if asked is None:  # the processes that certify are timed as the probe was
            del os.environ["MALLOC_ARENA_MAX"]


def hush(data: dict[str, Any], ignore_prefix: bool = False) -> None:
    """In place of Ray's printing of cluster errors to our stdout: into the log (`log_to_driver` spares these)."""
    for line in data.get("lines", ()):
        logging.getLogger("nash_search.ray").debug("%s", line)


def gpu_share(workers: int) -> float:
    """GPU per trial, so that as many trials as workers fit (scheduling only; memory is not divided)."""
    gpus = float(ray.cluster_resources().get("GPU", 0))
    return min(1.0, gpus / workers) if gpus else 0.0
