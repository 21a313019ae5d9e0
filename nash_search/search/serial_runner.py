"""The serial runner: every trial in this process, one after the other, no Ray.

What unit tests and `--serial` use, and the reference for the other runner: same scheduler, same trial function.
A trial that outlives its timeout is ended by an alarm.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from nash_search.search.signals import Interruption
from nash_search.trial.job import Hooks, Job, JobSource, Nothing
from nash_search.trial.run import run_trial


class SerialHooks(Hooks):
    """Progress straight to the scheduler."""

    def __init__(self, scheduler: JobSource) -> None:
        self._scheduler = scheduler

    def progress(self, job: Job, stage: str, step: int, steps: int, loss: float) -> None:
        """Pass it on."""
        self._scheduler.progress(job.number, stage, step, steps, loss)


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TimeoutError in here after so many seconds (main thread only; elsewhere nothing happens)."""
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"trial must end within {seconds:g} s, but went on")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_job(job: Job, scheduler: JobSource, interruption: Interruption, *, dense: bool = False) -> None:
    """Run one job in this process and hand its record to the scheduler."""
    began = time.monotonic()
    with interruption.interruptible():
        record = run_trial(job, SerialHooks(scheduler), dense=dense, limit=time_limit(job.config.trial_timeout_s))
    scheduler.tell(job, record, time.monotonic() - began)


def run(scheduler: JobSource, interruption: Interruption) -> None:
    """Run jobs until there are no more."""
    while True:
        interruption.check()
        job = scheduler.ask()
        if isinstance(job, Nothing):
            return
        run_job(job, scheduler, interruption)
