"""Checkpoints timed outside a search: any folder against its dense model, or a study's whole front again.

An export of ours carries `measurement.json`, which names the workload it was certified on and its teacher;
any other folder is timed on the workload that was asked for. This module refuses to know how a
millisecond is taken and what the number is used for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nash_search import device as devices
from nash_search import latency
from nash_search.config import SearchConfig, Workload, WorkloadRequest
from nash_search.errors import InvalidInput
from nash_search.latency import workload as workloads
from nash_search.records import Latency
from nash_search.search import certify
from nash_search.tasks.g2p import teacher_folder

MEASUREMENT = "measurement.json"
LIMIT_S = 900.0


def measure_folder(path: Path, against: Path | None, config: SearchConfig, *, rounds: int, pairs: int) -> Latency:
    """A checkpoint folder in fresh processes, paired with its dense reference.

    Args:
        path: the folder to time.
        against: its dense reference (None: the teacher its record names; else it is timed alone).
        config: what was asked of the workload.
        rounds: fresh processes.
        pairs: timed pairs per process.

    Raises:
        InvalidInput: the folder or its reference is none, or the workload stays open.
    """
    record = measurement_of(path)
    if against is None and record is not None:
        against = dense_of(str(record["teacher"]))
    for folder in (path, against):
        if folder is not None and not (folder / "config.json").is_file():
            raise InvalidInput(f"checkpoint must be a folder with a config.json, but got {folder}")
    workload = _workload(config, record)
    budgets = {"candidate": config.budgets} if config.budgets else None
    found = latency.measure_fresh(
        {"candidate": path}, against, workload, rounds=rounds, pairs=pairs, limit_s=LIMIT_S, budgets=budgets
    )
    return found["candidate"]


def measurement_of(path: Path) -> dict[str, Any] | None:
    """What an export of ours says about itself; None for any other folder."""
    try:
        found = json.loads((path / MEASUREMENT).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"workload", "teacher"} <= set(found) else None


def dense_of(recorded: str) -> Path:
    """The dense model a record names; the shipped teacher is found wherever the package is installed."""
    path = Path(recorded)
    return teacher_folder() if not path.is_dir() and path.name == teacher_folder().name else path


def _workload(config: SearchConfig, record: dict[str, Any] | None) -> Workload:
    request = config.workload
    device = devices.resolve(request.device).name
    if record is not None:
        known = Workload.model_validate(record["workload"])
        # a flag wins over the record; the record over any default
        fixed = {name: value for name, value in request.model_dump().items() if value is not None}
        fixed |= {
            name: getattr(known, name) for name in ("runtime", "quantize") if name not in request.model_fields_set
        }
        return known.model_copy(update={**fixed, "device": device})
    if request.input_tokens is None or request.output_tokens is None:
        raise InvalidInput(
            "input_tokens and output_tokens must be given for a checkpoint that carries no measurement of ours",
            where="--input-tokens, --output-tokens",
        )
    return workloads.resolve(
        request, input_tokens=request.input_tokens, output_tokens=request.output_tokens, device=device
    )


def remeasure_study(folder: Path, device: str, *, rounds: int = 5, pairs: int = 40) -> dict[str, Any]:
    """Every certified point of a study timed again, here, next to the dense model.

    Returns:
        A JSON document: study, device, fingerprint, `same_fingerprint` (were the study's own
        numbers taken on this very device and software?), dense, and one row per point.
    """
    known = certify.read(folder)
    if known is None or not known.points:
        raise InvalidInput(f"study must have a certified front to be timed again, but got {folder}")
    request = WorkloadRequest(device=device)
    old = known.points[0].latency
    workload = old.workload.model_copy(update={"device": devices.resolve(request.device).name})
    folders = {p.checkpoint: folder / p.checkpoint for p in known.points}
    found = latency.measure_fresh(
        folders, dense_of(known.dense_checkpoint), workload, rounds=rounds, pairs=pairs, limit_s=LIMIT_S
    )
    first = next(iter(found.values()))
    return {
        "study": folder.name,
        "device": workload.device,
        "workload": workload.model_dump(mode="json"),
        "fingerprint": first.fingerprint,
        "before": {"fingerprint": old.fingerprint, "device": old.workload.device},
        "same_fingerprint": first.fingerprint.get("hash") == old.fingerprint.get("hash"),
        "dense": {"latency_ms": first.dense_ms},
        "front": [_again(p, found[p.checkpoint], folder) for p in known.points],
    }


def _again(point: certify.Point, now: Latency, folder: Path) -> dict[str, Any]:
    quality = point.test or point.validation
    lower_ms, upper_ms = now.bounds_ms
    return {
        "checkpoint": str(folder / point.checkpoint),
        "architecture": point.architecture.model_dump(mode="json"),
        "latency_ms": now.median_ms,
        "lower_ms": lower_ms,
        "upper_ms": upper_ms,
        "speedup": now.speedup,
        "share": now.ratio,
        "share_bounds": list(now.ratio_bounds),
        "before": {"latency_ms": point.latency.median_ms, "share": point.latency.ratio},
        "quality": quality.value,
        "quality_split": quality.split,
        "status": now.status,
        "runs_ms": list(now.runs_ms),
    }
