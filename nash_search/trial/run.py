"""A trial is a plain function: a job goes in, a record comes out, finished work lies in its own folder.

    Job -> train, cut, measure, score (a `Evaluator`) -> record.json + weights/ -> manifest -> rename -> TrialRecord

Nothing here knows Ray or Optuna; unit tests call `run_trial` as it is. A failure is a result with a reason
from the closed list, not an exception: whoever called goes on with the next proposal. A job whose folder is
already whole is not run again; an interrupted one continues from its own work folder, which is named, like
the final one, by the hash of (question, parameters).
"""

from __future__ import annotations

import errno
import gc
import math
import shutil
import sys
import time
from contextlib import AbstractContextManager, nullcontext

import pydantic

from nash_search.errors import InvalidInput
from nash_search.records import FailureReason, TrialRecord
from nash_search.storage import artifacts
from nash_search.storage.artifacts import RECORD, stored_record
from nash_search.storage.provenance import stamp, versions
from nash_search.trial.evaluator import open_evaluator
from nash_search.trial.job import Failed, Hooks, Job, device_id


def run_trial(
    job: Job,
    hooks: Hooks | None = None,
    *,
    dense: bool = False,
    limit: AbstractContextManager[None] | None = None,
) -> TrialRecord:
    """Run one job to its record; never raises except for an interruption.

    Args:
        job: what to train.
        hooks: who listens.
        dense: take the dense model as it is instead of training.
        limit: entered around the work; raises TimeoutError when it takes too long.
    """
    if artifacts.read(job.final) is not None:
        return stored_record(job.final).model_copy(update={"number": job.number})
    found: TrialRecord | tuple[FailureReason, str]
    began = time.monotonic()
    try:
        shutil.rmtree(job.scratch, ignore_errors=True)
        job.scratch.mkdir(parents=True)
        evaluator = open_evaluator(job.config)
        with limit or nullcontext():
            if dense:
                record = evaluator.take_dense(job, job.scratch)
            elif job.short:
                record = evaluator.train_short(job, hooks or Hooks())
            else:
                record = evaluator.train(job, job.scratch, hooks or Hooks())
        check_values(record, timed=not job.short)
        if job.device and record.latency is not None and device_id(record.latency.fingerprint) != job.device:
            raise Failed("error", "the trial must be timed on the study's device, but this worker has another one")
        made = {"versions": versions(), "created": stamp(), "wall_s": time.monotonic() - began}
        made["finish_steps"] = job.finish_steps
        record = record.model_copy(update=made if dense else made | {"recipe": job.config.recipe})
        (job.scratch / RECORD).write_text(record.model_dump_json(indent=1), "utf-8")
        artifacts.commit(job.scratch, job.final, {"question": job.question, "architecture": job.architecture.slug})
        shutil.rmtree(job.work, ignore_errors=True)
        found = record
    except Exception as error:
        found = reason_of(error)
    # outside the except block: the traceback that pinned the tensors is gone
    _release()
    if isinstance(found, TrialRecord):
        return found
    shutil.rmtree(job.scratch, ignore_errors=True)
    return failed_record(job, *found, seconds=time.monotonic() - began)


def _release() -> None:
    """Give cached GPU memory back: between two trials of a worker others may need it."""
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        gc.collect()
        sys.modules["torch"].cuda.empty_cache()


def failed_record(job: Job, reason: FailureReason, message: str, seconds: float = 0.0) -> TrialRecord:
    """The record of a trial that has no result."""
    return TrialRecord(
        number=job.number,
        architecture=job.architecture,
        seed=job.seed,
        failure=reason,
        message=" ".join(message.split())[:300],
        recipe=job.config.recipe,
        stages={"lost": {"seconds": seconds, "steps": 0.0}},
        versions=versions(),
        created=stamp(),
        wall_s=seconds,
    )


def check_values(record: TrialRecord, *, timed: bool = True) -> None:
    """The values gate: what is told to the study is finite, complete and in range.

    Args:
        record: of a trial that did not fail.
        timed: it must have a latency too.

    Raises:
        Failed: with the reason `nan` when a value would poison the study.
    """
    if record.status not in ("complete", "stopped"):
        return
    numbers = [p.value for p in record.curve]
    if record.status == "complete" and not timed:
        numbers.append(math.nan if record.quality is None else record.quality.value)
    elif record.status == "complete":
        if record.latency is None or record.quality is None:
            raise Failed("error", "a complete trial must have a latency and a quality, but one is missing")
        numbers += [record.latency.median_ms, record.latency.ratio, record.quality.value]
        if not all(x > 0 for x in numbers[-3:-1]):
            raise Failed("nan", f"latency must be greater than 0, but got {numbers[-3]}")
    for number in numbers:
        if not math.isfinite(number):
            raise Failed("nan", f"values must be finite, but got {number}")


def reason_of(error: BaseException) -> tuple[FailureReason, str]:
    """A reason from the closed list and one line about it."""
    text = f"{type(error).__name__}: {error}"
    kinds = {cls.__name__ for cls in type(error).__mro__}
    if isinstance(error, Failed):
        return error.reason, str(error)
    if isinstance(error, MemoryError) or "OutOfMemoryError" in kinds or "can't allocate memory" in text:
        return "oom", text
    full = (errno.ENOSPC, errno.EDQUOT)  # safetensors has no errno, it writes "(os error 28)"
    if (isinstance(error, OSError) and error.errno in full) or any(f"(os error {code})" in text for code in full):
        return "disk_full", text
    if isinstance(error, FloatingPointError) or "NotFinite" in kinds:
        return "nan", text
    if isinstance(error, pydantic.ValidationError) and any(e["type"] == "finite_number" for e in error.errors()):
        return "nan", text
    if isinstance(error, TimeoutError):
        return "timeout", text
    if isinstance(error, InvalidInput):
        return "invalid_architecture", text
    return "error", text
