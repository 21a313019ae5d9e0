"""A trial's learning curve, kept beside its training state.

Rungs that were passed before an interruption are not passed again, so the curve lives in the trial's work
folder.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from nash_search.files import write_atomic
from nash_search.records import CurvePoint, Quality
from nash_search.trial.job import Job

FILE = "curve.json"


class Curve:
    """Quality at the rungs of one trial."""

    def __init__(self, job: Job) -> None:
        """Continue the curve of an interrupted trial, or begin one."""
        self._job = job
        self.points = _read(job.work)
        self._began = time.monotonic() - (self.points[-1].train_s if self.points else 0.0)

    def add(self, step: int, quality: Quality) -> None:
        """Note a rung."""
        point = CurvePoint(step=step, value=quality.value, train_s=time.monotonic() - self._began)
        kept = [p for p in self.points if p.step < step]  # training may continue from before a rung noted here
        self.points = (*kept, point)
        self._job.work.mkdir(parents=True, exist_ok=True)
        write_atomic(self._job.work / FILE, json.dumps([p.model_dump() for p in self.points]))


def _read(work: Path) -> tuple[CurvePoint, ...]:
    try:
        return tuple(CurvePoint.model_validate(p) for p in json.loads((work / FILE).read_text("utf-8")))
    except (OSError, ValueError):
        return ()
