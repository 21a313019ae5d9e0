"""Paired timing in one process: every candidate next to the dense model, everything else held still.

    lock the device -> build every session -> rounds (`timing_round`) -> details -> Latency

What a round is, and how its calls are ordered, is `timing_round`'s. All time comes from the `Device`.
"""

from __future__ import annotations

import gc
import warnings as python_warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from statistics import median
from typing import Any

import torch

from nash_search import device as devices
from nash_search.config import Workload
from nash_search.device import Device, Sample
from nash_search.encoder_rows import Given
from nash_search.errors import NashSearchWarning
from nash_search.intervals import DEFAULT_OCCASION
from nash_search.latency.runtimes import Runtime, Session, fingerprint, runtime_of
from nash_search.latency.runtimes.conversion import Converting
from nash_search.latency.timing_round import DENSE, named, time_round
from nash_search.latency_record import Latency, Round

DETAIL_CALLS, NATURAL_CALLS = 5, 4
"""Samples of each detail; a natural call may take as long as this many forced ones (runtimes end it there)."""


class NotCut(NashSearchWarning):
    """A timed model still carries gates or masks."""


def measure(candidate: Any, dense: Any, workload: Workload, **settings: Any) -> Latency:
    """`measure_many` of one candidate."""
    return measure_many({"candidate": candidate}, dense, workload, **settings)["candidate"]


# 12 parameters: each bounds the work or says whose device it is, by keyword and with a default; callers name two or
# three, and a value that grouped them would be unpacked again here.
def measure_many(
    candidates: Mapping[str, Any],
    dense: Any,
    workload: Workload,
    *,
    inputs: Given | None = None,
    rounds: int = 1,
    pairs: int = 40,
    limit_s: float = 600.0,
    details: bool = True,
    device: Device | None = None,
    exclusive: bool = True,
    wait_s: float | None = None,
    turn: int = 0,
) -> dict[str, Latency]:
    """Time loaded models in this process, all interleaved with the dense one.

    Args:
        candidates: models by name.
        dense: the reference each of them is paired with.
        workload: what one `generate` is.
        inputs: real inputs (None: random ones; latency does not depend on them).
        rounds: rounds in this process, a warm-up and `pairs` sweeps each; fresh processes show more of the scatter.
        pairs: timed pairs per candidate and round; of a traffic, its requests (all of it where it has fewer).
        limit_s: no sweep but the first is begun that would end this many seconds after all models are built
            (an engine's conversion or a compiler may take longer than all timing).
        details: also time encoder and natural length, and count memory.
        device: for tests; None is the workload's own.
        exclusive: take the device's timing lock (False when the caller holds it).
        wait_s: for that lock at most (None: as long as others hold it; a trained model is worth the wait).
        turn: which rounds these are, counted from 0: each draws its own requests of a traffic.

    Raises:
        Locked: when others still hold the device after `wait_s`.
    """
    runtime = runtime_of(workload)
    device = devices.resolve(workload.device, outside_torch=runtime.outside_torch) if device is None else device
    guard = devices.timing_guard(device.lock_id, wait_s) if exclusive else nullcontext()
    with ExitStack() as stack:
        stack.enter_context(guard)
        stack.enter_context(_threads(workload.threads))
        of_round = [workload.calls(pairs, turn + done) for done in range(rounds)]
        models: dict[str, list[list[Session]]] = {}
        for name, model in {DENSE: dense, **candidates}.items():
            with named(name):
                models[name] = _sessions(stack, runtime, model, of_round, inputs)
        deadline = device.now_s() + limit_s
        stack.enter_context(_collector_off())
        found: list[dict[str, Round]] = []
        for done, calls in enumerate(of_round):
            share_s = (deadline - device.now_s()) / (rounds - done)
            side_by_side = {name: sessions[done] for name, sessions in models.items()}
            until_s = device.now_s() + share_s
            sweeps = pairs if workload.traffic is None else len(calls)
            found.append(time_round(side_by_side, device, calls, pairs=sweeps, deadline_s=until_s))
        taken = [r for by_name in found for r in by_name.values()]
        call_s = max((x for r in taken for x in r.runs_ms + r.dense_runs_ms), default=0.0) / 1e3
        firsts = {name: sessions[0][0] for name, sessions in models.items()}
        beside: dict[str, dict[str, Any]] = {}
        if details and workload.traffic is None:
            beside = describe(firsts, device, call_s=call_s, deadline_s=deadline)
        elif details:  # encoder, natural length and memory are one call's
            beside = {name: session.facts() for name, session in firsts.items()}
        return {
            name: _latency(name, [r[name] for r in found], workload, device, pairs, beside, session.warnings())
            for name, session in firsts.items()
            if name != DENSE
        }


def describe(
    sessions: Mapping[str, Session], device: Device, *, call_s: float, deadline_s: float
) -> dict[str, dict[str, Any]]:
    """Encoder, natural length and memory of each session; what might not fit the limit is left out.

    Args:
        sessions: by name.
        device: whose clock and memory.
        call_s: the longest forced call seen so far.
        deadline_s: on the device's clock.
    """

    def timed(call: Callable[[], Any], expected_s: float) -> list[tuple[Sample, Any]]:
        taken: list[tuple[Sample, Any]] = []
        while len(taken) < DETAIL_CALLS and device.now_s() + expected_s <= deadline_s:
            taken.append(device.time(call))
            expected_s = max(sample.wall_ms for sample, _ in taken) / 1e3
        return taken

    found: dict[str, dict[str, Any]] = {}
    for name, session in sessions.items():
        beside = session.facts()
        found[name] = beside
        if session.encode is not None and (encoded := timed(session.encode, call_s)):
            beside["encoder_ms"] = median(sample.wall_ms for sample, _ in encoded)
        if natural := timed(session.natural, NATURAL_CALLS * call_s):
            beside["natural_ms"] = median(sample.wall_ms for sample, _ in natural)
            beside["natural_tokens"] = natural[-1][1]
        if device.now_s() + call_s <= deadline_s:
            peak = device.peak_bytes(session.generate)
            if peak is not None:
                beside["peak_memory_bytes"] = session.weight_bytes() + peak
    return found


def _latency(
    name: str,
    rounds: Sequence[Round],
    workload: Workload,
    device: Device,
    pairs: int,
    beside: Mapping[str, dict[str, Any]],
    warnings: list[str],
) -> Latency:
    details: dict[str, Any] = dict(beside.get(name, {}))
    if DENSE in beside:
        details["dense"] = dict(beside[DENSE])
    for warning in warnings:
        python_warnings.warn(f"{name}: {warning}", NotCut, stacklevel=4)
    if warnings:
        details["warnings"] = warnings
    due = pairs if workload.traffic is None else min(pairs, len(workload.traffic.requests))
    short = any(len(r.runs_ms) < due for r in rounds)
    found = Latency(
        rounds=tuple(rounds),
        workload=workload,
        fingerprint=fingerprint(device, workload),
        details=details,
        effect=DEFAULT_OCCASION,
        cut_short=short,
    )
    if "encoder_ms" in details and found.runs_ms:
        per_token_ms = (found.median_ms - details["encoder_ms"]) / workload.output_tokens
        found = found.model_copy(update={"details": details | {"ms_per_output_token": per_token_ms}})
    return found


def _sessions(
    stack: ExitStack,
    runtime: Runtime,
    model: Any,
    of_round: Sequence[Sequence[Workload]],
    inputs: Given | None,
) -> list[list[Session]]:
    """Every call of every round, ready; calls that are the same share a session."""
    built: dict[Workload, Session] = {}
    if isinstance(runtime, Converting) and not isinstance(model, runtime.engine):  # once, not for every call
        model = runtime.converted(model, of_round[0][0])
    for call in dict.fromkeys(call for calls in of_round for call in calls):
        built[call] = runtime.build(model, call, inputs)
        stack.callback(built[call].close)
    return [[built[call] for call in calls] for calls in of_round]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _collector_off() -> Iterator[None]:
    """No garbage collection inside a timed call."""
    was_on = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()
