"""What this machine is, and what its ceilings are: launches, copies, products, and what watching it costs."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch

from nash_search import device as devices

FIELDS = (
    "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,temperature.gpu,pstate,"
    "clocks_event_reasons.active"
)
GIB = 2**30


def run(device_name: str, tiny: bool, write: Any, until: float) -> None:
    """Host, fingerprint, ceilings."""
    write(
        what="host",
        smi=_shell(f"nvidia-smi --query-gpu={FIELDS} --format=csv"),
        cpu=_shell("lscpu | grep -E 'Model name|^CPU\\(s\\)|MHz'"),
        memory=_shell("free -g | head -2"),
        pressure=_shell("cat /proc/pressure/cpu"),
        kernel=_shell("uname -r"),
        packages=sorted(f"{d.name}=={d.version}" for d in importlib.metadata.distributions()),
    )
    device = devices.resolve(device_name)
    gpu = device.name != "cpu"
    write(what="fingerprint", fingerprint=device.fingerprint(), lock=device.lock_id, name=device.name)

    def per_call_us(call: Callable[[], object], times: int = 2000) -> float:
        for _ in range(50):
            call()
        device.synchronize()
        began = time.perf_counter()
        for _ in range(times):
            call()
        device.synchronize()
        return 1e6 * (time.perf_counter() - began) / times

    with torch.no_grad():
        found = _launches(device.name, per_call_us) | (_ceilings(device.name, per_call_us) if gpu else {})
    watching: dict[str, Any] = {}
    if gpu:
        for query in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetComputeRunningProcesses"):
            watching[query] = [per_call_us(lambda query=query: device._read(query), 10), str(device._read(query))[:200]]
        watching |= {"pid": os.getpid(), "foreign": device._foreign_processes(), "nvml": device._nvml is not None}
    one = torch.zeros(1, device=device.name)
    samples = [device.time(lambda: one.add_(1).item())[0] for _ in range(5)]
    said = " ".join(f"{key} {value:.3g}" for key, value in found.items())
    write(
        what="ceilings",
        **found,
        watching=watching,
        samples=[[s.wall_ms, s.device_ms, s.disturbed, s.notes] for s in samples],
        say=f"{said}; nvml {watching.get('nvml')}, foreign {watching.get('foreign')}",
    )


def _launches(name: str, per_call_us: Callable[..., float]) -> dict[str, float]:
    """What one operation costs when it is launched by itself."""
    x, one = torch.randn(1, 512, device=name, dtype=torch.bfloat16), torch.zeros(1, device=name)
    linear = torch.nn.Linear(512, 512, bias=False, device=name, dtype=torch.bfloat16)
    return {
        "add_us": per_call_us(lambda: one.add_(1)),
        "linear_module_us": per_call_us(lambda: linear(x)),
        "item_us": per_call_us(lambda: one.item(), 500),
    }


def _ceilings(name: str, per_call_us: Callable[..., float]) -> dict[str, float]:
    """Memory and arithmetic at their best, a T5-base head, a kernel inside a CUDA graph."""
    one, half = torch.zeros(1, device=name), torch.bfloat16
    head = torch.nn.Linear(768, 32128, bias=False, device=name, dtype=half)
    y = torch.randn(1, 768, device=name, dtype=half)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(200):
            one.add_(1)
    a, b = (torch.empty(GIB, device=name, dtype=torch.uint8) for _ in range(2))
    m, n = (torch.randn(8192, 8192, device=name, dtype=half) for _ in range(2))
    p, q = (x[:4096, :4096].float() for x in (m, n))
    return {
        "head_us": per_call_us(lambda: head(y), 500),
        "graph_us_per_kernel": per_call_us(graph.replay, 50) / 200,
        "copy_tb_s": 2 * GIB / per_call_us(lambda: b.copy_(a), 20) / 1e6,
        "matmul_tflop_s": 2 * 8192**3 / per_call_us(lambda: m @ n, 20) / 1e6,
        "matmul_fp32_tflop_s": 2 * 4096**3 / per_call_us(lambda: p @ q, 10) / 1e6,
    }


def _shell(command: str) -> str:
    found = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=20)
    return (found.stdout + found.stderr).strip()
