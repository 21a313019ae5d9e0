"""One round of paired timing: a warm-up, then sweeps in which every candidate lies next to the dense model.

    warm-up    sweeps over all models until the median sweep moves < 2 % twice
    sweep i    dense a b c d | dense e f g h | ...      rotated by i//2, backwards when i is odd
    pair       (candidate, its group's dense call) of one sweep

A model has one session, or one for each request of a round: sweep i is then of request i. It warms up on the middle
one, then once on the longest and on one of every other input length.

Sharing one dense call among four neighbours keeps pairs close in time and a front cheap. On a CPU no sample is dropped;
on a GPU a disturbed one is retried at most 5 times and then kept, flagged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

from nash_search.config import Workload
from nash_search.device import Device, Sample
from nash_search.errors import InvalidInput
from nash_search.latency.runtimes import Session, WrongOutputLength
from nash_search.latency_record import Round

DENSE = "\0dense"
"""Name of the reference among the sessions."""
GROUP = 4
"""Candidates that share one dense call per sweep."""
WARM_UP_CHANGE, WARM_UP_MIN, WARM_UP_MAX, WARM_UP_S = 0.02, 3, 30, 20.0
WARM_UP_SHARE = 0.25
"""Of a round's time, at most."""
CROWDED_SHARE = 0.1
"""A round is contended when for longer than this share of it some task waited for a CPU (idle machine: 1 %)."""


def time_round(
    models: Mapping[str, Sequence[Session]], device: Device, calls: Sequence[Workload], *, pairs: int, deadline_s: float
) -> dict[str, Round]:
    """One warm-up and up to `pairs` sweeps over the models, of which `DENSE` is the reference; never none.

    Args:
        models: each one's sessions, one per call.
        device: whose clock.
        calls: of fixed lengths; one, or a round's requests.
        pairs: sweeps, each over all models and of one call.
        deadline_s: on the device's clock.
    """
    start_s = device.now_s()
    warm_up_s = min(WARM_UP_S, WARM_UP_SHARE * (deadline_s - start_s))
    settled, warm_ups = _warm_up(models, device, calls, deadline_s=start_s + warm_up_s)
    before, timed_from_s = device.surroundings(), device.now_s()
    names = [name for name in models if name != DENSE]
    groups = [[DENSE, *names[i : i + GROUP]] for i in range(0, len(names), GROUP)]
    samples: dict[str, list[tuple[Sample, Sample]]] = {name: [] for name in names}
    discarded, sweep_s = 0, 0.0
    for index in range(pairs):
        began_s, turn = device.now_s(), index % len(calls)
        if index and began_s + sweep_s > deadline_s:
            break
        sweep: dict[str, tuple[Sample, Sample]] = {}
        for group in groups:
            taken: dict[str, Sample] = {}
            for name in _order(group, index):
                with named(name):
                    taken[name], lost = _take(models[name][turn], device, calls[turn], deadline_s)
                discarded += lost
            sweep |= {name: (taken[name], taken[DENSE]) for name in group[1:]}
        for name, pair in sweep.items():
            samples[name].append(pair)
        sweep_s = device.now_s() - began_s
    after = device.surroundings()
    around: dict[str, Any] = {key: after[key] - before.get(key, 0.0) for key in after if key != "nvml"}
    crowded = around.get("cpu_pressure_s", 0.0) > CROWDED_SHARE * (device.now_s() - timed_from_s)
    around |= {"warm_up_sweeps": warm_ups, "discarded": discarded, "seconds": device.now_s() - start_s}
    if "nvml" in after:
        around["nvml"] = bool(after["nvml"])
    return {name: _round(found, settled, around, crowded) for name, found in samples.items()}


def _warm_up(
    models: Mapping[str, Sequence[Session]], device: Device, calls: Sequence[Workload], *, deadline_s: float
) -> tuple[bool, int]:
    """Sweep over the middle call until the median of three sweeps moves < 2 % twice in a row; (settled, sweeps)."""

    def sweep(turn: int) -> float:
        total_ms = 0.0
        for name, sessions in models.items():
            with named(name):
                sample, output = device.time(sessions[turn].generate)
                _check_length(sessions[turn], output, calls[turn])
            total_ms += sample.wall_ms
        return total_ms

    order = sorted(range(len(calls)), key=lambda i: (calls[i].output_tokens, calls[i].input_tokens))
    middle_call, longest = order[len(order) // 2], order[-1]
    shortest_of = {calls[i].input_tokens: i for i in reversed(order)}
    sweeps: list[float] = []
    last, still = math.inf, 0
    while still < 2 and len(sweeps) < WARM_UP_MAX and (not sweeps or device.now_s() + sweeps[-1] / 1e3 <= deadline_s):
        sweeps.append(sweep(middle_call))
        if len(sweeps) < WARM_UP_MIN:
            continue
        middle = median(sweeps[-3:])
        still = still + 1 if abs(middle - last) < WARM_UP_CHANGE * last else 0
        last = middle
    met = {calls[middle_call].input_tokens, calls[longest].input_tokens}
    others = [] if longest == middle_call else [longest]
    others += [turn for width, turn in shortest_of.items() if width not in met]
    for turn in others:  # what a library prepares for a length it prepares at the first call of it
        if device.now_s() + sweeps[-1] / 1e3 <= deadline_s:
            sweep(turn)
    return still == 2, len(sweeps)


def _order(group: Sequence[str], index: int) -> list[str]:
    """ABBA and its rotations: no model is always first, and none always follows the same one."""
    turn = (index // 2) % len(group)
    order = [*group[turn:], *group[:turn]]
    return order[::-1] if index % 2 else order


def _take(session: Session, device: Device, call: Workload, deadline_s: float) -> tuple[Sample, int]:
    """One sample and how many disturbed ones were thrown away before it."""
    lost = 0
    while True:
        sample, output = device.time(session.generate)
        _check_length(session, output, call)
        if not sample.disturbed or lost == device.retries or device.now_s() >= deadline_s:
            return sample, lost
        lost += 1


def _check_length(session: Session, output: Any, call: Workload) -> None:
    tokens = session.generated_tokens(output)
    if tokens != call.output_tokens:
        raise WrongOutputLength(f"output_tokens must be exactly {call.output_tokens}, but got {tokens} generated")


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


@contextmanager
def named(name: str) -> Iterator[None]:
    """What is refused says which of the models it is."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(f"{'the dense model' if name == DENSE else name}: {error}") from error
