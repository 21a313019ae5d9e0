"""Paired timing in one process: every candidate next to the dense model, everything else held still.

    warm-up    sweeps over all models until the median sweep moves < 2 % twice
    sweep i    dense a b c d | dense e f g h | ...      rotated by i//2, backwards when i is odd
    pair       (candidate, its group's dense call) of one sweep

Sharing one dense call among four neighbours keeps pairs close in time and a front cheap. On a CPU
no sample is dropped; on a GPU a disturbed one is retried at most 5 times and then kept, flagged.
All time comes from the `Device`. This module refuses to know how a model is loaded or served.
"""

from __future__ import annotations

import gc
import math
import warnings as python_warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from statistics import median
from typing import Any

import torch

from nash_search import device as devices
from nash_search.config import Workload
from nash_search.device import Device, Sample
from nash_search.errors import InvalidInput, NashSearchWarning
from nash_search.intervals import DEFAULT_OCCASION
from nash_search.latency.runtimes import Runtime, Session, WrongOutputLength, fingerprint, runtime_of
from nash_search.records import Latency, Round

GROUP = 4
"""Candidates that share one dense call per sweep."""
WARM_UP_CHANGE, WARM_UP_MIN, WARM_UP_MAX, WARM_UP_S = 0.02, 3, 30, 20.0
WARM_UP_SHARE = 0.25
"""Of a round's time, at most."""
CROWDED_SHARE = 0.1
"""A round is contended when for longer than this share of it some task waited for a CPU (idle machine: 1 %)."""
DETAIL_CALLS, NATURAL_CALLS = 5, 4
"""Samples of each detail; a natural call may take as long as this many forced ones (runtimes end it there)."""
DENSE = "\0dense"


class NotCut(NashSearchWarning):
    """A timed model still carries gates or masks."""


def measure(candidate: Any, dense: Any, workload: Workload, **settings: Any) -> Latency:
    """`measure_many` of one candidate."""
    return measure_many({"candidate": candidate}, dense, workload, **settings)["candidate"]


def measure_many(
    candidates: Mapping[str, Any],
    dense: Any,
    workload: Workload,
    *,
    inputs: Sequence[Sequence[int]] | None = None,
    rounds: int = 1,
    pairs: int = 40,
    limit_s: float = 600.0,
    details: bool = True,
    device: Device | None = None,
    exclusive: bool = True,
    wait_s: float | None = None,
) -> dict[str, Latency]:
    """Time loaded models in this process, all interleaved with the dense one.

    Args:
        candidates: models by name.
        dense: the reference each of them is paired with.
        workload: what one `generate` is.
        inputs: token ids of real inputs (None: random ones; latency does not depend on them).
        rounds: warm-ups with `pairs` sweeps each; rounds of one process are less than fresh ones.
        pairs: timed pairs per candidate and round.
        limit_s: no sweep but the first is begun that would end this many seconds after all models are built
            (an engine's conversion or a compiler may take longer than all timing).
        details: also time encoder and natural length, and count memory.
        device: for tests; None is the workload's own.
        exclusive: take the device's timing lock (False when the caller holds it).
        wait_s: for that lock at most (None: as long as others hold it; a trained model is worth the wait).

    Raises:
        Locked: when others still hold it then.
    """
    runtime = runtime_of(workload)
    device = devices.resolve(workload.device, outside_torch=runtime.outside_torch) if device is None else device
    guard = devices.timing_guard(device.lock_id, wait_s) if exclusive else nullcontext()
    with ExitStack() as stack:
        stack.enter_context(guard)
        stack.enter_context(_threads(workload.threads))
        sessions: dict[str, Session] = {}
        for name, model in {DENSE: dense, **candidates}.items():
            with _named(name):
                sessions[name] = _session(stack, runtime, model, workload, inputs)
        deadline = device.now_s() + limit_s
        stack.enter_context(_collector_off())
        found: list[dict[str, Round]] = []
        for done in range(rounds):
            share_s = (deadline - device.now_s()) / (rounds - done)
            found.append(time_round(sessions, device, workload, pairs=pairs, deadline_s=device.now_s() + share_s))
        taken = [r for by_name in found for r in by_name.values()]
        call_s = max((x for r in taken for x in r.runs_ms + r.dense_runs_ms), default=0.0) / 1e3
        beside = describe(sessions, device, call_s=call_s, deadline_s=deadline) if details else {}
        return {
            name: _latency(name, [r[name] for r in found], workload, device, pairs, beside, session.warnings())
            for name, session in sessions.items()
            if name != DENSE
        }


def time_round(
    sessions: Mapping[str, Session], device: Device, workload: Workload, *, pairs: int, deadline_s: float
) -> dict[str, Round]:
    """One warm-up and up to `pairs` sweeps over the sessions, of which `DENSE` is the reference; never none."""
    start_s = device.now_s()
    warm_up_s = min(WARM_UP_S, WARM_UP_SHARE * (deadline_s - start_s))
    settled, calls = _warm_up(sessions, device, workload, deadline_s=start_s + warm_up_s)
    before, timed_from_s = device.surroundings(), device.now_s()
    names = [name for name in sessions if name != DENSE]
    groups = [[DENSE, *names[i : i + GROUP]] for i in range(0, len(names), GROUP)]
    samples: dict[str, list[tuple[Sample, Sample]]] = {name: [] for name in names}
    discarded, sweep_s = 0, 0.0
    for index in range(pairs):
        began_s = device.now_s()
        if index and began_s + sweep_s > deadline_s:
            break
        sweep: dict[str, tuple[Sample, Sample]] = {}
        for group in groups:
            taken: dict[str, Sample] = {}
            for name in _order(group, index):
                with _named(name):
                    taken[name], lost = _take(sessions[name], device, workload, deadline_s)
                discarded += lost
            sweep |= {name: (taken[name], taken[DENSE]) for name in group[1:]}
        for name, pair in sweep.items():
            samples[name].append(pair)
        sweep_s = device.now_s() - began_s
    after = device.surroundings()
    around: dict[str, Any] = {key: after[key] - before.get(key, 0.0) for key in after if key != "nvml"}
    crowded = around.get("cpu_pressure_s", 0.0) > CROWDED_SHARE * (device.now_s() - timed_from_s)
    around |= {"warm_up_sweeps": calls, "discarded": discarded, "seconds": device.now_s() - start_s}
    if "nvml" in after:
        around["nvml"] = bool(after["nvml"])
    return {name: _round(found, settled, around, crowded) for name, found in samples.items()}


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


def _warm_up(
    sessions: Mapping[str, Session], device: Device, workload: Workload, *, deadline_s: float
) -> tuple[bool, int]:
    """Sweep until the median of three sweeps moves < 2 % twice in a row; (settled, sweeps)."""
    sweeps: list[float] = []
    last, still = math.inf, 0
    while len(sweeps) < WARM_UP_MAX and (not sweeps or device.now_s() + sweeps[-1] / 1e3 <= deadline_s):
        total_ms = 0.0
        for name, session in sessions.items():
            with _named(name):
                sample, output = device.time(session.generate)
                _check_length(session, output, workload)
            total_ms += sample.wall_ms
        sweeps.append(total_ms)
        if len(sweeps) < WARM_UP_MIN:
            continue
        middle = median(sweeps[-3:])
        still = still + 1 if abs(middle - last) < WARM_UP_CHANGE * last else 0
        last = middle
        if still == 2:
            return True, len(sweeps)
    return False, len(sweeps)


def _order(group: Sequence[str], index: int) -> list[str]:
    """ABBA and its rotations: no model is always first, and none always follows the same one."""
    turn = (index // 2) % len(group)
    order = [*group[turn:], *group[:turn]]
    return order[::-1] if index % 2 else order


def _take(session: Session, device: Device, workload: Workload, deadline_s: float) -> tuple[Sample, int]:
    """One sample and how many disturbed ones were thrown away before it."""
    lost = 0
    while True:
        sample, output = device.time(session.generate)
        _check_length(session, output, workload)
        if not sample.disturbed or lost == device.retries or device.now_s() >= deadline_s:
            return sample, lost
        lost += 1


def _check_length(session: Session, output: Any, workload: Workload) -> None:
    tokens = session.generated_tokens(output)
    if tokens != workload.output_tokens:
        raise WrongOutputLength(f"output_tokens must be exactly {workload.output_tokens}, but got {tokens} generated")


def _round(found: Sequence[tuple[Sample, Sample]], settled: bool, around: dict[str, Any], crowded: bool) -> Round:
    own, dense = [a for a, _ in found], [b for _, b in found]
    reasons = sorted({reason for pair in found for sample in pair for reason in sample.disturbed})
    reasons += ["others waited for a cpu"] if crowded else []
    notes = {key: [s.notes[key] for s in own if key in s.notes] for key in sorted({k for s in own for k in s.notes})}
    return Round(
        runs_ms=tuple(s.wall_ms for s in own),
        dense_runs_ms=tuple(s.wall_ms for s in dense),
        cpu_ms=_known(s.cpu_ms for s in own),
        dense_cpu_ms=_known(s.cpu_ms for s in dense),
        device_ms=_known(s.device_ms for s in own),
        dense_device_ms=_known(s.device_ms for s in dense),
        contended=tuple(crowded or bool(a.disturbed or b.disturbed) for a, b in found),
        settled=settled,
        surroundings=around | ({"disturbed_by": reasons} if reasons else {}) | notes,
    )


def _known(values: Iterator[float | None]) -> tuple[float, ...]:
    return tuple(v for v in values if v is not None)


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
    short = any(len(r.runs_ms) < pairs for r in rounds)
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


def _session(
    stack: ExitStack, runtime: Runtime, model: Any, workload: Workload, inputs: Sequence[Sequence[int]] | None
) -> Session:
    session = runtime.build(model, workload, inputs)
    stack.callback(session.close)
    return session


@contextmanager
def _named(name: str) -> Iterator[None]:
    """What is refused says which of the models it is."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(f"{'the dense model' if name == DENSE else name}: {error}") from error


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
