"""An NVIDIA GPU through torch; its neighbours and clocks through NVML, which is only ever read.

    synchronize, wall, event | call | event, synchronize, wall
    disturbed (asked outside the timed window): a foreign process, a slowdown, a power cap that came or went

Nothing reads the host's clock between launch and synchronisation, and nothing sets a clock, a power limit or a
compute mode. A disturbed sample may be retried.
"""

from __future__ import annotations

import gc
import importlib
import os
import time
from collections.abc import Callable
from typing import Any

from nash_search.device import lock
from nash_search.device.host import cpu_model, host, host_pressure
from nash_search.device.protocol import Sample, T

POWER_CAP = 0x4
"""NVML's bit for the software power cap. Small cards (T4, L4) are capped whenever they work: a cap disturbs no sample,
one that appears or disappears between two calls does."""
THROTTLE_BITS = {
    POWER_CAP: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal slowdown (software)",
    0x40: "thermal slowdown (hardware)",
    0x80: "power brake",
}
"""Clock event reasons (nvml.h) that make a sample say less than the device can do."""


class CudaDevice:
    """One NVIDIA GPU through torch; its neighbours and clocks through NVML, which is only read."""

    retries = 5

    def __init__(
        self,
        index: int,
        *,
        cuda: Any = None,
        nvml: Any = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        outside_torch: bool = False,
    ) -> None:
        import torch

        self.name = f"cuda:{index}"
        self.index = index
        self._cuda = torch.cuda if cuda is None else cuda
        self._clock_ns, self._outside_torch = clock_ns, outside_torch
        self._cuda.set_device(index)  # what names no device (a new tensor, a stream) belongs to this one
        self._capped: bool | None = None  # after the last call
        self._properties = self._cuda.get_device_properties(index)
        self.lock_id = f"GPU-{self._properties.uuid}"
        self._nvml, self._handle = _nvml_handle(nvml, str(self._properties.uuid))

    def time(self, call: Callable[[], T]) -> tuple[Sample, T]:
        """Synchronise, launch, synchronise; the wall clock outside, device events inside."""
        start, end = (self._cuda.Event(enable_timing=True) for _ in range(2))
        stream = self._cuda.current_stream(self.index)
        before = self._throttled()
        self._cuda.synchronize(self.index)
        wall = self._clock_ns()
        start.record(stream)
        result = call()
        end.record(stream)
        self._cuda.synchronize(self.index)
        wall_ms = (self._clock_ns() - wall) / 1e6
        device_ms = float(start.elapsed_time(end))
        after = self._throttled()
        # an idle card is not capped, so what was read before the call says nothing about its cap
        bits = (before & ~POWER_CAP) | after
        was, self._capped = self._capped, bool(after & POWER_CAP)
        changed = was is not None and was != self._capped
        slowdowns = {bit: name for bit, name in THROTTLE_BITS.items() if bit != POWER_CAP}
        disturbed = tuple(name for bit, name in slowdowns.items() if bits & bit)
        if changed:
            disturbed += (THROTTLE_BITS[POWER_CAP],)
        foreign = self._foreign_processes()
        if foreign:
            disturbed += ("gpu shared",)
        notes = {"throttle_bits": float(bits), "foreign_processes": float(foreign)}
        clock = self._read("nvmlDeviceGetClockInfo", getattr(self._nvml, "NVML_CLOCK_SM", 1))
        notes |= {} if clock is None else {"sm_mhz": float(clock)}
        return Sample(wall_ms=wall_ms, device_ms=device_ms, disturbed=disturbed, notes=notes), result

    def now_s(self) -> float:
        """Monotonic seconds."""
        return self._clock_ns() / 1e9

    def synchronize(self) -> None:
        """Wait for everything launched on this GPU."""
        self._cuda.synchronize(self.index)

    def surroundings(self) -> dict[str, float]:
        """Whether NVML watches this GPU at all, and the host's stalls: eager decoding waits for its launches."""
        return host_pressure() | {"nvml": float(self._nvml is not None)}

    def peak_bytes(self, call: Callable[[], object]) -> int | None:
        """PyTorch's allocator's peak during the call, beyond what was allocated before."""
        if self._outside_torch:
            return None
        self._cuda.synchronize(self.index)
        self._cuda.reset_peak_memory_stats(self.index)
        before = self._cuda.memory_allocated(self.index)
        call()
        self._cuda.synchronize(self.index)
        return int(self._cuda.max_memory_allocated(self.index) - before)

    def most_bytes(self, call: Callable[[], T]) -> tuple[T, int | None]:
        """The call's result and the most bytes that PyTorch's allocator reserved; the CUDA context is not counted."""
        self._cuda.reset_peak_memory_stats(self.index)
        result = call()
        self._cuda.synchronize(self.index)
        return result, int(self._cuda.max_memory_reserved(self.index))

    def total_bytes(self) -> int:
        """The card's."""
        return int(self._properties.total_memory)

    def free_bytes(self) -> int:
        """The card's own account, whoever holds the rest."""
        return int(self._cuda.mem_get_info(self.index)[0])

    def release(self) -> None:
        """PyTorch keeps what its tensors freed until it is told: a worker's next process would find the card full."""
        gc.collect()  # models are cycles of modules and hooks
        self._cuda.empty_cache()

    def fingerprint(self) -> dict[str, Any]:
        """GPU, driver, CUDA, and the host whose thread launches the kernels."""
        import torch

        driver = self._nvml.nvmlSystemGetDriverVersion() if self._nvml is not None else None
        return {
            "device": self._properties.name,
            "memory_gib": round(self._properties.total_memory / 2**30, 1),
            "capability": f"{self._properties.major}.{self._properties.minor}",
            "driver": driver.decode() if isinstance(driver, bytes) else driver,
            "cuda": torch.version.cuda,
            "cpu": cpu_model(),
            "float32_matmul": torch.get_float32_matmul_precision(),
        } | host()

    def _throttled(self) -> int:
        reasons = self._read("nvmlDeviceGetCurrentClocksEventReasons")
        if reasons is None:  # older drivers and bindings know the older name
            reasons = self._read("nvmlDeviceGetCurrentClocksThrottleReasons")
        return int(reasons or 0)

    def _foreign_processes(self) -> int:
        """Compute processes that do not take our locks.

        In a container NVML lists the host's process ids, none of which is ours: then only a
        surplus over the processes that announced themselves counts.
        """
        listed = {p.pid for p in self._read("nvmlDeviceGetComputeRunningProcesses") or ()}
        known = lock.cooperating_pids(self.lock_id)
        if os.getpid() in listed:
            return len(listed - known)
        return max(0, len(listed) - len(known))

    def _read(self, name: str, *arguments: Any) -> Any:
        """One NVML query; what a driver does not support is not known (None)."""
        query = getattr(self._nvml, name, None)
        if query is None:
            return None
        try:
            return query(self._handle, *arguments)
        except self._nvml.NVMLError:
            return None


def _nvml_handle(nvml: Any, uuid: str) -> tuple[Any, Any]:
    """NVML and the handle of this GPU or MIG slice, or (None, None) where there is none (the notes say so).

    By UUID: CUDA_VISIBLE_DEVICES changes what an index means to torch, not to NVML.
    """
    try:
        nvml = importlib.import_module("pynvml") if nvml is None else nvml
    except ImportError:
        return None, None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None, None
    for kind in ("GPU", "MIG"):
        try:
            return nvml, nvml.nvmlDeviceGetHandleByUUID(f"{kind}-{uuid}")
        except nvml.NVMLError:
            continue
    return None, None
