"""Which device, what it is, and who may use it when.

`resolve` names it, `training_guard` shares it, `timing_guard` owns it. `cpu` and `cuda` are the two real devices
behind one `protocol`: how one call is timed on each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from nash_search.device import lock
from nash_search.device.cpu import CpuDevice
from nash_search.device.cuda import CudaDevice
from nash_search.device.lock import DeviceGuard
from nash_search.device.protocol import Device, Sample
from nash_search.errors import InvalidInput

__all__ = [
    "CpuDevice",
    "CudaDevice",
    "Device",
    "DeviceGuard",
    "Sample",
    "lock_name",
    "resolve",
    "timing_guard",
    "training_guard",
]


def resolve(asked: str = "auto", *, outside_torch: bool = False) -> Device:
    """`auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.

    Args:
        asked: which.
        outside_torch: what it will time computes and allocates outside PyTorch, in threads of its own.

    Raises:
        InvalidInput: when it is none of these, or there is no such GPU.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "cpu" or (asked == "auto" and not gpus):
        return CpuDevice(outside_torch=outside_torch)
    index = asked.removeprefix("cuda:") if asked.startswith("cuda:") else "0"
    if asked not in ("auto", "cuda") and not (asked.startswith("cuda:") and index.isdecimal()):
        raise InvalidInput(f"device must be auto, cpu, cuda or cuda:N, but got {asked}")
    if int(index) >= gpus:
        raise InvalidInput(f"device must exist on this machine ({gpus} CUDA devices found), but got {asked}")
    return CudaDevice(int(index), outside_torch=outside_torch)


def training_guard(device_name: str) -> DeviceGuard:
    """Entered around every optimizer step: shares the device with other trainers, waits for timings."""
    return DeviceGuard(lock_name(device_name), "shared", drain=_drain(device_name))


def timing_guard(device_name: str, timeout_s: float | None = None) -> DeviceGuard:
    """Entered around a timing: the device to itself.

    Raises on entry:
        Locked: when others still hold it after `timeout_s` (None: wait as long as it takes).
    """
    return DeviceGuard(lock_name(device_name), "exclusive", timeout_s)


@functools.cache
def _drain(device_name: str) -> Callable[[], None] | None:
    """A GPU returns from a step before it has done it: the step's share is kept until its kernels have run."""
    return resolve(device_name).synchronize if device_name.startswith("cuda") else None


@functools.cache
def lock_name(device_name: str) -> str:
    """What a device's locks are named after: `cpu`, or the GPU's UUID, whatever its index here.

    A process that asks for a GPU's locks announces itself, so that it is not foreign to the others.
    """
    lock_id = resolve(device_name).lock_id if device_name.startswith("cuda") else device_name
    if lock_id.startswith("GPU-"):
        lock.announce(lock_id)
    return lock_id
