"""What all devices share: the host's part of a fingerprint, and how long its CPUs kept tasks waiting."""

from __future__ import annotations

import functools
import os
import platform
import resource
from pathlib import Path
from typing import Any

SWITCHES = (
    *("ATEN_", "CUBLAS_", "CUDA_LAUNCH_BLOCKING", "CUDNN_", "DNNL_", "GOMP_", "KMP_", "LD_PRELOAD", "MALLOC_"),
    *("MKL_DEBUG", "MKL_ENABLE", "NVIDIA_TF32", "OMP_PLACES", "OMP_PROC_BIND", "OMP_WAIT_POLICY", "ONEDNN_"),
    *("PYTORCH_", "TORCHDYNAMO_", "TORCH_ALLOW_", "TORCH_CUDNN_"),
)
"""Environment variables (prefixes) that change speed. Thread counts are left out: the workload sets them."""

PRESSURE = ("/sys/fs/cgroup/cpu.pressure", "/proc/pressure/cpu")
"""The kernel's account of stalls: a container's own comes first, for a whole node's says little about one of many."""


def cpu_pressure_s() -> float | None:
    """Seconds in which some task waited for a CPU: in this container where the kernel says so, else anywhere."""
    for file in PRESSURE:
        try:
            return int(Path(file).read_text().splitlines()[0].rsplit("total=", 1)[1]) / 1e6
        except (OSError, IndexError, ValueError):
            continue
    return None


def host_pressure() -> dict[str, float]:
    """Stalls of any task of the machine for want of a CPU (seconds), and our own involuntary switches."""
    found: dict[str, float] = {"involuntary_switches": resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw}
    stalled = cpu_pressure_s()
    return found if stalled is None else found | {"cpu_pressure_s": stalled}


@functools.cache
def cpu_model() -> str:
    """The processor's own name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Processor")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def host() -> dict[str, Any]:
    """The part of a fingerprint that every device shares."""
    import torch
    import transformers

    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "affinity": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith(SWITCHES)},
    }
