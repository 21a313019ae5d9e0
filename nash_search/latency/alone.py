"""Times the unpruned (dense) model on one other runtime, in every precision that it has here, and lets it generate.

    dense on the asked runtime -+- one paired round -> Latency      one per precision
    dense on this runtime      -+- real inputs      -> tokens       scored by `trial.dense_engines`

An engine converts the model and compares it with eager PyTorch once for all its precisions, because with a real T5 that
takes longest. All of it runs in a process of its own (`fresh_round`, kind `alone`): a conversion that crashes, hangs or
fills the memory loses the results of this runtime and nothing else.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from nash_search import device as devices
from nash_search.config import Frozen, Workload
from nash_search.encoder_rows import EncoderRows, Given, rows_of
from nash_search.errors import InvalidInput, NashSearchError
from nash_search.latency import written_tokens
from nash_search.latency.runtimes import fingerprint, runtime_of
from nash_search.latency.runtimes.conversion import Conversion, Converting
from nash_search.latency.timing_round import DENSE, time_round
from nash_search.latency_record import Latency

PAIRS, REQUESTS = 12, 24
"""Timed pairs per precision: of one call, or of a traffic's requests."""
TIMING_S = 15.0
TIMING_SHARE = 0.4
"""One precision's timing takes at most this long, and at most this share of its time."""
ROWS_AT_ONCE = 32
UNFINISHED = "its process ended first (out of time or memory)"
Write = Callable[[Any], list[list[int]]]
"""Rows of inputs (`EncoderRows`) in, token ids out."""


class Taken(Frozen):
    """Result of one precision of a runtime: latency and tokens, or the reason why it has none."""

    workload: Workload
    """The asked call, on this runtime and in this precision."""
    latency: Latency | None = None
    """Paired with the dense model on the asked runtime."""
    tokens: tuple[tuple[int, ...], ...] | None = None
    """What it wrote for the job's rows; None where the time was over first."""
    reason: str = ""
    """Why it has no latency."""
    refused: bool = False
    """The runtime cannot serve this model at all: asking again changes nothing."""


class Job(Frozen):
    """One runtime on which the dense model is to be tried: the input of a process of kind `alone`."""

    kind: str = "alone"
    folder: str
    """The dense checkpoint."""
    asked: Workload
    """The workload of the search: the reference of every pair."""
    runtime: str
    rows: Any
    """Real inputs to write for, as `encoder_rows.document` says them; the first of them are compared with eager too."""
    generation: dict[str, Any] = {}
    """Settings that scoring adds to the model's own."""
    beams: int
    """Of scoring; the timed call has the workload's."""
    max_new_tokens: int
    limit_s: float


def take(job: Job, started_s: float, keep: Callable[[list[Taken]], None]) -> list[Taken]:
    """Convert, time and run the dense model in every precision of the job's runtime but the one asked for.

    Args:
        job: what is asked.
        started_s: when the process began, monotonic seconds; the limit counts from then.
        keep: called before each precision with the results to report should the process end during it.
    """
    torch.set_num_threads(job.asked.threads)
    deadline_s = started_s + job.limit_s
    named = Workload.model_validate(job.asked.model_dump() | {"runtime": job.runtime, "quantize": "none"})
    asked_for = [
        Workload.model_validate(named.model_dump() | {"dtype": dtype, "quantize": quantize})
        for dtype, quantize in runtime_of(named).precisions(job.asked.device)
    ]
    asked_for = [w for w in asked_for if w != job.asked]
    found: list[Taken] = []
    if not asked_for and named.runtime != job.asked.runtime:
        found.append(Taken(workload=named, reason=f"it has nothing for {job.asked.device}", refused=True))
    with ExitStack() as stack:
        models = _Models(job, stack)
        dense = models.of(job.asked) if asked_for else None
        for done, workload in enumerate(asked_for):
            keep([*found, *(Taken(workload=w, reason=UNFINISHED) for w in asked_for[done:])])
            try:
                found.append(_taken(models, workload, dense, deadline_s, len(asked_for) - done))
            except NashSearchError as error:
                refused = isinstance(error, InvalidInput)
                found.append(Taken(workload=workload, reason=str(error), refused=refused))
            except Exception as error:  # whatever a converter may fail of: this line says so, the others stand
                first = next(iter(str(error).strip().splitlines()), "")
                found.append(Taken(workload=workload, reason=f"{type(error).__name__}: {first}".rstrip(": ")))
    return found


def _taken(models: _Models, workload: Workload, dense: Any, deadline_s: float, left: int) -> Taken:
    """Try one of the `left` precisions; once converted, it may use an equal part of the time until `deadline_s`."""
    job = models.job
    if time.monotonic() >= deadline_s:
        return Taken(workload=workload, reason="not reached in time")
    model = models.of(workload)
    now_s = time.monotonic()
    left_s = (deadline_s - now_s) / left
    if left_s <= 0:
        return Taken(workload=workload, reason="converting it took all the time there was")
    latency = _timed(model, workload, dense, job.asked, left_s)
    runtime = runtime_of(workload)

    def write(rows: EncoderRows) -> list[list[int]]:
        with devices.training_guard(job.asked.device):
            return runtime.tokens(model, rows, beams=job.beams, max_new_tokens=job.max_new_tokens)

    tokens = written(write, job.rows, now_s + left_s)
    return Taken(workload=workload, latency=latency, tokens=None if tokens is None else tuple(map(tuple, tokens)))


class _Models:
    """The dense model as a workload's runtime serves it; an engine converts and compares it when it is first asked."""

    def __init__(self, job: Job, stack: ExitStack) -> None:
        self.job, self._stack = job, stack
        self._converted: dict[str, Conversion | Exception] = {}

    def of(self, workload: Workload) -> Any:
        """What its runtime loads.

        Raises:
            InvalidInput: the engine cannot serve this model.
        """
        runtime = runtime_of(workload)
        if not isinstance(runtime, Converting):
            return self._loaded(workload)
        with devices.training_guard(workload.device), tempfile.TemporaryDirectory() as folder:
            self._conversion(runtime, workload).save(folder, workload)
            return runtime.load(folder, workload)

    def _conversion(self, runtime: Converting, workload: Workload) -> Conversion:
        """The engine's only one, or why there is none."""
        found = self._converted.get(workload.runtime)
        if found is None:
            model = self._loaded(workload.in_pytorch(device="cpu"))
            every = rows_of(self.job.rows)
            rows = every.picked(range(min(written_tokens.INPUTS, len(every))))
            try:
                found = self._stack.enter_context(runtime.conversion(model, self.job.folder, workload, rows))
            except Exception as failure:  # said of every precision; none tries it again
                found = failure
            self._converted[workload.runtime] = found
        if isinstance(found, Exception):
            raise found
        return found

    def _loaded(self, workload: Workload) -> Any:
        model = runtime_of(workload).load(self.job.folder, workload)
        model.generation_config.update(**self.job.generation)
        return model


def _timed(model: Any, workload: Workload, dense: Any, asked: Workload, left_s: float) -> Latency:
    """One round of pairs in this process, each side on its own runtime."""
    outside = any(runtime_of(w).outside_torch for w in (workload, asked))
    device = devices.resolve(asked.device, outside_torch=outside)
    with devices.timing_guard(device.lock_id, left_s):
        calls = asked.calls(REQUESTS, 0)
        pairs = PAIRS if asked.traffic is None else len(calls)
        with ExitStack() as stack:
            sessions = {
                DENSE: _sessions(stack, dense, calls),
                "alone": _sessions(stack, model, workload.calls(REQUESTS, 0)),
            }
            deadline_s = device.now_s() + min(TIMING_S, TIMING_SHARE * left_s)
            found = time_round(sessions, device, calls, pairs=pairs, deadline_s=deadline_s)["alone"]
    short = len(found.runs_ms) < pairs
    return Latency(rounds=(found,), workload=workload, fingerprint=fingerprint(device, workload), cut_short=short)


def _sessions(stack: ExitStack, model: Any, calls: Sequence[Workload]) -> list[Any]:
    """One for each call, closed with the stack."""
    found = []
    for call in calls:
        found.append(runtime_of(call).build(model, call, None))
        stack.callback(found[-1].close)
    return found


def written(write: Write, given: Given, until_s: float) -> list[list[int]] | None:
    """What a model writes for every row, in the rows' order; None where that would end after `until_s` (monotonic)."""
    rows = rows_of(given)
    order = np.argsort(-rows.lengths, kind="stable").tolist()  # the slowest batch first: no surprise
    found: list[list[int]] = [[]] * len(rows)
    batch_s = 0.0
    for start in range(0, len(order), ROWS_AT_ONCE):
        began_s = time.monotonic()
        if began_s + batch_s > until_s:
            return None
        batch = order[start : start + ROWS_AT_ONCE]
        for i, tokens in zip(batch, write(rows.picked(batch)), strict=True):
            found[i] = list(tokens)
        batch_s = time.monotonic() - began_s
    return found
