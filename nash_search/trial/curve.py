"""A trial's learning curve: kept beside its training state, and asked at each rung whether to go on.

Rungs that were passed before an interruption are not passed again, so the curve lives in the trial's work
folder. This module refuses to know what is trained and how quality is scored.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from nash_search.files import write_atomic
from nash_search.intervals import chance_difference
from nash_search.pareto import higher_is_better
from nash_search.records import CurvePoint, Quality
from nash_search.trial.early_stopping import reason_to_stop
from nash_search.trial.job import Hooks, Job

FILE = "curve.json"


class Curve:
    """Quality at the rungs of one trial."""

    def __init__(self, job: Job, hooks: Hooks) -> None:
        """Continue the curve of an interrupted trial, or begin one."""
        self._job, self._hooks = job, hooks
        self.points = _read(job.work)
        self._began = time.monotonic() - (self.points[-1].train_s if self.points else 0.0)
        self.stopped: str | None = None

    def add(self, step: int, quality: Quality, *, last: bool) -> bool:
        """Note a rung; True when the trial is to be stopped."""
        point = CurvePoint(step=step, value=quality.value, train_s=time.monotonic() - self._began)
        kept = [p for p in self.points if p.step < step]  # training may continue from before a rung noted here
        self.points = (*kept, point)
        self._job.work.mkdir(parents=True, exist_ok=True)
        write_atomic(self._job.work / FILE, json.dumps([p.model_dump() for p in self.points]))
        self._hooks.rung(self._job, step, quality.value)
        if self._job.config.early_stopping:
            self.stopped = reason_to_stop(
                self._job.share,
                self.points,
                self._job.peers,
                margin=chance_difference(quality.standard_error, quality.standard_error),
                last_rung=last,
                maximize=higher_is_better(quality.direction),
            )
        return self.stopped is not None


def _read(work: Path) -> tuple[CurvePoint, ...]:
    try:
        return tuple(CurvePoint.model_validate(p) for p in json.loads((work / FILE).read_text("utf-8")))
    except (OSError, ValueError):
        return ()
