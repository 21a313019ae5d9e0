"""The host's processor: wall time beside CPU time.

    wall, thread CPU | call | thread CPU, wall          disturbed: wall > 1.1 x CPU

A disturbed sample is kept and flagged: dropping it bought no precision and flatters the median. A call
that computes in threads of its own (a serving engine) is held against the whole process's CPU time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nash_search.device.host import cpu_model, host, host_pressure
from nash_search.device.protocol import Sample, T

CPU_SHARE = 1.1
"""A CPU call is disturbed when its wall time exceeds this multiple of its CPU time."""


class CpuDevice:
    """The host's processor, seen by the calling thread (by the process, for what computes outside PyTorch)."""

    name = "cpu"
    lock_id = "cpu"
    retries = 0

    def __init__(
        self,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        cpu_clock_ns: Callable[[], int] | None = None,
        outside_torch: bool = False,
    ) -> None:
        self._clock_ns, self._outside_torch = clock_ns, outside_torch
        own_ns = time.process_time_ns if outside_torch else time.thread_time_ns
        self._cpu_clock_ns = own_ns if cpu_clock_ns is None else cpu_clock_ns

    def time(self, call: Callable[[], T]) -> tuple[Sample, T]:
        """Wall and CPU time; with several threads the CPU time is the calling thread's."""
        wall = self._clock_ns()
        cpu = self._cpu_clock_ns()
        result = call()
        cpu_ms = (self._cpu_clock_ns() - cpu) / 1e6
        wall_ms = (self._clock_ns() - wall) / 1e6
        shared = wall_ms > CPU_SHARE * cpu_ms
        return Sample(wall_ms=wall_ms, cpu_ms=cpu_ms, disturbed=("cpu shared",) if shared else ()), result

    def now_s(self) -> float:
        """Monotonic seconds."""
        return self._clock_ns() / 1e9

    def synchronize(self) -> None:
        """CPU work is done when the call returns."""

    def surroundings(self) -> dict[str, float]:
        """Stalls of any task of the machine for want of a CPU, and our own involuntary switches."""
        return host_pressure()

    def peak_bytes(self, call: Callable[[], object]) -> int | None:
        """Largest sum of live tensor bytes that the call allocated (it runs once, under a profiler)."""
        if self._outside_torch:  # the profiler sees PyTorch's tensors only
            return None
        import torch

        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it writes its start and stop to stderr
        with torch.autograd.profiler.profile(profile_memory=True) as profile:
            call()
        live = peak = 0
        for event in profile.kineto_results.events():
            if event.name() == "[memory]":
                live += event.nbytes()
                peak = max(peak, live)
        return peak or None

    def most_bytes(self, call: Callable[[], T]) -> tuple[T, int | None]:
        """The call's result and the process's peak resident memory (VmHWM, reset first), with libraries and data."""
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        result = call()
        try:
            (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")]
        except (OSError, ValueError):
            return result, None
        return result, 1024 * int(line.split()[1])

    def total_bytes(self) -> int:
        """Memory of the machine."""
        import psutil

        return int(psutil.virtual_memory().total)

    def free_bytes(self) -> int:
        """What the system can still give."""
        import psutil

        return int(psutil.virtual_memory().available)

    def release(self) -> None:
        """Freed memory is the system's already."""

    def fingerprint(self) -> dict[str, Any]:
        """Processor, memory, cores we may use, software."""
        import psutil
        import torch

        memory_gib = round(psutil.virtual_memory().total / 2**30, 1)
        capability = torch.backends.cpu.get_cpu_capability()
        return {"device": cpu_model(), "memory_gib": memory_gib, "capability": capability} | host()
