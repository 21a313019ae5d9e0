"""What an export says about itself: its folder's name (task, latency, quality, device), and `measurement.json`.

The latency is the one that the document shows: where every budget is a share, the paired ratio times the probe's
dense latency, for wall times of another moment do not compare.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from nash_search.config import Architecture, SearchConfig
from nash_search.latency_record import Latency
from nash_search.records import Quality

MEASUREMENT = "measurement.json"
"""In an export's folder."""


def export_name(
    task: str,
    architecture: Architecture,
    latency: Latency,
    quality: Quality,
    *,
    dense_ms: float | None = None,
    taken: frozenset[str] = frozenset(),
) -> str:
    """What the artifact is, e.g. `g2p-8.4ms-per7.9-epyc1t`: letters, digits, `.`, `_` and `-` only.

    Args:
        task: the task's name.
        architecture: told apart by, where two would have one name.
        latency: as certified.
        quality: on validation.
        dense_ms: the dense latency that shares are shares of (None: the latency as it was timed).
        taken: names there are.
    """
    ms = latency.median_ms if dense_ms is None else latency.ratio * dense_ms
    metric, value = re.sub(r"[^a-z0-9]", "", quality.metric.lower()) or "quality", quality.value
    for error, rate in quality.beside.items():  # "100 - PER" is better known as PER
        if metric == f"100{error}":
            metric, value = error, rate
    name = f"{task}-{ms:.3g}ms-{metric}{value:.1f}-{device_tag(latency)}"
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")
    return f"{name}-{architecture.slug}" if name in taken else name


def device_tag(latency: Latency) -> str:
    """Short word for the device: `epyc1t`, `h100`."""
    found = latency.fingerprint
    text = str(found.get("cpu_model") if latency.workload.device == "cpu" else found.get("name") or "")
    text = text if text and text != "None" else str(found.get("device") or found.get("name") or "cpu")
    dull = {"amd", "intel", "nvidia", "r", "tm", "cpu", "processor", "core", "with", "ghz", "the", "geforce"}
    words = [w for w in re.findall(r"[a-z0-9]+", text.lower()) if w not in dull]
    tag = words[0] if words else "cpu"
    return f"{tag}{latency.workload.threads}t" if latency.workload.device == "cpu" else tag


def measurement(
    config: SearchConfig,
    architecture: Architecture,
    latency: Latency,
    validation: Quality,
    teacher: Path,
    inputs: dict[str, Any] | None,
) -> dict[str, Any]:
    """Everything that anybody needs to feed an export and to time it again, and what was found here; JSON."""
    return {
        "study": config.study_name,
        "task": config.task.name,
        "inputs": inputs,
        "architecture": architecture.model_dump(mode="json"),
        "teacher": str(teacher),
        "workload": latency.workload.model_dump(mode="json"),
        "fingerprint": latency.fingerprint,
        "latency_ms": latency.median_ms,
        "dense_ms": latency.dense_ms,
        "share": latency.ratio,
        "rounds": [r.model_dump(mode="json", include={"runs_ms", "dense_runs_ms"}) for r in latency.rounds],
        "validation": validation.model_dump(mode="json"),
        **({} if latency.workload.traffic is None else {"percentile": latency.percentile}),
    }
