"""The CPU's clock, memory and fingerprint, and which devices there are."""

from __future__ import annotations

import pytest

from nash_search import device
from nash_search.errors import InvalidInput


@pytest.mark.parametrize("asked", ["tpu", "cuda:x", "cpu:0", ""])
def test_unknown_devices_are_refused_by_rule(asked):
    with pytest.raises(InvalidInput, match="device must be auto, cpu, cuda or cuda:N, but got"):
        device.resolve(asked)


def test_a_missing_gpu_is_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert device.resolve("auto").name == "cpu"
    with pytest.raises(
        InvalidInput, match=r"device must exist on this machine \(0 CUDA devices found\), but got cuda:1"
    ):
        device.resolve("cuda:1")


class Clock:
    """Nanoseconds that move only when told."""

    def __init__(self):
        self.ns = 0

    def __call__(self):
        return self.ns


@pytest.mark.parametrize(("wall_ms", "cpu_ms", "disturbed"), [(10, 10, ()), (10, 9.2, ()), (10, 9, ("cpu shared",))])
def test_a_cpu_call_that_waited_for_its_core_is_flagged(wall_ms, cpu_ms, disturbed):
    wall, cpu = Clock(), Clock()

    def call():
        wall.ns += int(wall_ms * 1e6)
        cpu.ns += int(cpu_ms * 1e6)
        return "out"

    sample, result = device.CpuDevice(wall, cpu).time(call)
    assert (sample.wall_ms, sample.cpu_ms, sample.disturbed, result) == (wall_ms, cpu_ms, disturbed, "out")


def test_cpu_memory_of_a_call_is_counted_in_tensor_bytes():
    import torch

    kept = torch.zeros(1000)
    peak = device.CpuDevice().peak_bytes(lambda: (kept + torch.zeros(1000)).sum())
    assert 8000 <= peak <= 16000


def test_the_fingerprint_names_hardware_software_and_speed_switches(monkeypatch):
    monkeypatch.setenv("KMP_AFFINITY", "compact")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    found = device.CpuDevice().fingerprint()
    assert {"device", "memory_gib", "cores", "affinity", "torch", "transformers", "environment"} <= set(found)
    assert found["environment"]["KMP_AFFINITY"] == "compact" and "OMP_NUM_THREADS" not in found["environment"]


def test_the_most_that_a_call_held_is_the_process_s_own():
    import torch

    cpu = device.CpuDevice()
    _, before = cpu.most_bytes(lambda: None)
    _, most = cpu.most_bytes(lambda: torch.ones(50_000_000).sum())
    assert before is not None and 180e6 < most - before < 300e6 and cpu.total_bytes() > cpu.free_bytes() > 0
