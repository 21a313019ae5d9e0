"""Artefacts name themselves: `g2p-8.4ms-per7.9-epyc1t` says task, latency, quality and device.

Letters, digits, `.`, `_` and `-` only: an `@` is refused as a Hub name and makes transformers
warn on every load of a folder's code. This module refuses to know paths.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_MAKERS = frozenset(
    "amd intel nvidia apple arm corporation r tm cpu gpu processor core with radeon graphics geforce".split()
)

_SERIES = frozenset(("rtx", "gtx", "quadro", "tesla", "ryzen"))
"""Names that say little without the number after them."""


def artifact_name(
    task: str, latency_ms: float, metric: str, value: float, device: str, workload: Mapping[str, Any]
) -> str:
    """The folder name of an exported model.

    Args:
        task: the task's name.
        latency_ms: median of one generate call, milliseconds.
        metric: the metric's label; `100-PER` is named by its error rate.
        value: its value.
        device: the device's own name, e.g. `AMD EPYC 7B13 64-Core Processor`.
        workload: `threads`, `device` and `dtype` of the timed call.
    """
    parts = [_safe(task) or "model", f"{_short(latency_ms)}ms", _quality(metric, value)]
    on_cpu = not str(workload.get("device", "cpu")).startswith("cuda")
    machine = device_name(device)
    parts.append(f"{machine}{workload.get('threads', 1)}t" if on_cpu else machine)
    dtype = {"bfloat16": "bf16", "float16": "fp16"}.get(str(workload.get("dtype")))
    return "-".join([*parts, *([dtype] if dtype else [])])[:96].rstrip("-.")


def device_name(device: str) -> str:
    """The word people use: `epyc`, `xeon`, `h100`, `m2`; `device` where there is none."""
    words = re.sub(r"\((r|tm)\)", " ", device.lower())
    kept = [word for word in re.findall(r"[a-z0-9]+", words) if word not in _MAKERS]
    if not kept:
        return "device"
    return "".join(kept[: 2 if kept[0] in _SERIES else 1])


def _quality(metric: str, value: float) -> str:
    name = metric.strip().lower()
    complement = re.fullmatch(r"100\s*-\s*(\w+)", name)
    if complement:
        name, value = complement[1], 100 - value
    digits = f"{value:.3f}" if abs(value) <= 1 and not complement else f"{value:.1f}"
    return f"{_safe(name) or 'quality'}{digits}"


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _safe(text: str) -> str:
    """Only what a Hub name and a file system both take; never two dots or dashes in a row."""
    kept = re.sub(r"[^a-z0-9._]+", "-", text.lower())
    return re.sub(r"([._-])[._-]+", r"\1", kept).strip("-._")
