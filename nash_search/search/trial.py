"""A trial is a plain function: a job goes in, a record comes out, finished work lies in its own folder.

    Job -> train, cut, measure, score (a `Bench`) -> record.json + weights/ -> manifest -> rename -> TrialRecord

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
from pathlib import Path
from typing import Any, Protocol

import pydantic

from nash_search.config import Architecture, Frozen, LatencyBudget, SearchConfig, Workload, digest
from nash_search.errors import InvalidInput
from nash_search.fidelity import Fidelity
from nash_search.records import FailureReason, Latency, Quality, TrialRecord
from nash_search.results import Engines
from nash_search.search.cost import TrialCost
from nash_search.search.engines import Say
from nash_search.search.stopping import Peer
from nash_search.storage import artifacts
from nash_search.storage.artifacts import FINALISTS, RECORD, folder_key, stored_record
from nash_search.storage.provenance import stamp, versions

TEACHER_OUTPUTS = ".teacher-outputs"
"""In the study's folder: what the teacher says about each batch, shared by its trials, gone when it ends."""


class Job(Frozen):
    """Everything one trial needs, as a value that travels to any process."""

    number: int
    architecture: Architecture
    seed: int
    question: str
    """Digest of the resolved question of the study."""
    config: SearchConfig
    workload: Workload
    share: float
    """Probed latency as a fraction of the dense model's, known before training."""
    folder: str
    """The study's folder."""
    device: str = ""
    """Identity of the device the study is about (`device_id`); only equal ones share a front."""
    train_threads: int = 1
    """CPU threads of training; fixed per study, for sums depend on it."""
    peers: tuple[Peer, ...] = ()
    """Finished trials' learning curves, for early stopping."""
    finalist: bool = False
    """A decided architecture trained once more, with a seed that is not the search's."""

    @property
    def key(self) -> str:
        """Name of the trial's folder."""
        key = folder_key(self.question, self.architecture)
        return f"{key}-{self.seed}" if self.finalist else key

    @property
    def home(self) -> Path:
        """Where jobs of this kind lie."""
        return Path(self.folder) / (FINALISTS if self.finalist else "trials")

    @property
    def final(self) -> Path:
        """Where the finished trial lies."""
        return self.home / self.key

    @property
    def work(self) -> Path:
        """Where unfinished training keeps its state."""
        return self.home / f".work-{self.key}"

    @property
    def scratch(self) -> Path:
        """Where artefacts are written before the rename."""
        return self.home / f".tmp-{self.key}"


def device_id(fingerprint: dict[str, Any]) -> str:
    """Identity of device and software, whatever the environment's switches."""
    return digest({name: value for name, value in fingerprint.items() if name not in ("environment", "hash")})


class Hooks:
    """What a running trial tells the outside; the default tells nobody."""

    def progress(self, job: Job, stage: str, step: int, steps: int, loss: float) -> None:
        """Training went on."""

    def rung(self, job: Job, step: int, value: float) -> None:
        """Quality was scored during training."""


class Bench(Protocol):
    """All that touches models and clocks; `bench.NashBench` is the real one, `rehearsal.Rehearsal` analytic."""

    def facts(self) -> dict[str, Any]:
        """What joins the question: digests of model and data, versions of protocols."""

    def notes(self) -> tuple[str, ...]:
        """What was decided about the data (columns, splits, truncation), for people."""

    def data(self) -> dict[str, Any] | None:
        """Rows of the user's splits and what was dropped (`tasks.data.DataFacts`); None: an embedded task."""

    def inputs(self) -> dict[str, Any]:
        """How a text becomes an input: `prefix`, put before it, and `max_tokens` (None: it is never cut)."""

    def decoder_layers(self) -> int:
        """Decoder depth of the dense model."""

    def workload(self) -> Workload:
        """The resolved call that is timed."""

    def fingerprint(self) -> dict[str, Any]:
        """Device and software, `hash` their identity."""

    def probe(
        self, shapes: list[Architecture], limit_s: float, known: Path, *, again: bool = False
    ) -> dict[Architecture, Latency]:
        """Random-weight models of these shapes next to the dense one; `known` keeps them, `again` replaces them."""

    def dense_quality(self) -> Quality:
        """The dense model on the validation split."""

    def check_export(self, beside: Path) -> None:
        """Write the dense model as an export on the disk of `beside` (the study's folder), and read it back."""

    def dense_on_engines(self, dense_ms: float, known: Path, say: Say) -> Engines:
        """The dense model, nothing pruned, on every other engine here; `known` keeps it for as long as `dense_ms`."""

    def trial_cost(self, architecture: Architecture, threads: int, limit_s: float) -> TrialCost:
        """What one trial costs, from a few timed steps of this architecture (about `limit_s` seconds of them)."""

    def train(self, job: Job, scratch: Path, hooks: Hooks) -> TrialRecord:
        """Train, cut, measure and score; weights go to `scratch / WEIGHTS`, resumable state to `job.work`."""

    def take_dense(self, job: Job, scratch: Path) -> TrialRecord:
        """The dense model as a trial that needs no training."""

    def settle(self, study: Path, *, opened: bool = False) -> dict[str, Any] | None:
        """What trimming gained and cost (None: nothing was trimmed), and the test split too once it is `opened`."""

    def dense_folder(self) -> Path:
        """A folder that fresh processes load the dense model from."""

    def time_fresh(
        self, folders: dict[str, Path], budgets: dict[str, list[LatencyBudget]], **settings: Any
    ) -> dict[str, Latency]:
        """Exports next to the dense model, `budgets` to be decided; the settings are `latency.measure_fresh`'s."""

    def same_tokens(self, exports: dict[str, Path], trials: dict[str, Path]) -> dict[str, bool]:
        """Does each export write what the trained model wrote?"""

    def fidelity(self, folders: dict[str, Path]) -> dict[str, Fidelity]:
        """Exports as they are served against their float twins; empty where tokens are the same by construction."""

    def test_quality(self, folders: dict[str, Path]) -> dict[str, Quality]:
        """Models on the sealed test split, which is opened once for all of them."""


class Failed(Exception):
    """A trial that ends with a reason of its own choosing."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def open_bench(config: SearchConfig) -> Bench:
    """The bench a configuration asks for; models and data stay loaded for the next trial of this process."""
    parts = {"task", "model", "revision", "trim_vocab", "workload", "recipe", "seed"}
    key = digest(config.model_dump(mode="json", include=parts))
    if key not in _benches:
        _benches.clear()
        if config.task.name == "rehearsal" and config.task.data is None:
            from nash_search.search.rehearsal import Rehearsal

            _benches[key] = Rehearsal(config)
        else:
            from nash_search.search.bench import NashBench

            _benches[key] = NashBench(config)
    return _benches[key]


_benches: dict[str, Bench] = {}


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
    failure: tuple[FailureReason, str] | None = None
    began = time.monotonic()
    try:
        shutil.rmtree(job.scratch, ignore_errors=True)
        job.scratch.mkdir(parents=True)
        bench = open_bench(job.config)
        with limit or nullcontext():
            if dense:
                record = bench.take_dense(job, job.scratch)
            else:
                record = bench.train(job, job.scratch, hooks or Hooks())
        check_values(record)
        if job.device and record.latency is not None and device_id(record.latency.fingerprint) != job.device:
            raise Failed("error", "the trial must be timed on the study's device, but this worker has another one")
        made = {"versions": versions(), "created": stamp(), "wall_s": time.monotonic() - began}
        record = record.model_copy(update=made)
        (job.scratch / RECORD).write_text(record.model_dump_json(indent=1), "utf-8")
        artifacts.commit(job.scratch, job.final, {"question": job.question, "architecture": job.architecture.slug})
        shutil.rmtree(job.work, ignore_errors=True)
        return record
    except Exception as error:
        failure = reason_of(error)
    # outside the except block: the traceback that pinned the tensors is gone
    gc.collect()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()
    shutil.rmtree(job.scratch, ignore_errors=True)
    return failed_record(job, *failure, seconds=time.monotonic() - began)


def failed_record(job: Job, reason: FailureReason, message: str, seconds: float = 0.0) -> TrialRecord:
    """The record of a trial that has no result."""
    return TrialRecord(
        number=job.number,
        architecture=job.architecture,
        seed=job.seed,
        failure=reason,
        message=" ".join(message.split())[:300],
        stages={"lost": {"seconds": seconds, "steps": 0.0}},
        versions=versions(),
        created=stamp(),
        wall_s=seconds,
    )


def check_values(record: TrialRecord) -> None:
    """The values gate: what is told to the study is finite, complete and in range.

    Raises:
        Failed: with the reason `nan` when a value would poison the study.
    """
    if record.status not in ("complete", "stopped"):
        return
    numbers = [p.value for p in record.curve]
    if record.status == "complete":
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
