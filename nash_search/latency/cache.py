"""Latencies already measured, kept only as long as the question is exactly the same.

    key = fingerprint + workload + shapes of the model and of its dense reference + protocol version

Any change is a miss. An entry that cannot be read, was altered, or answers another question is a
miss too, with one warning. Every new measurement re-times the dense model; where that has drifted
more than 3 % beyond an old entry's interval, the machine is no longer the one that was measured and
the old entries go. This module refuses to measure.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nash_search.config import Workload, digest
from nash_search.latency.workload import PROTOCOL
from nash_search.records import Latency

DRIFT = 0.03
"""How far beyond its interval a dense reference may move."""


class CacheWarning(UserWarning):
    """A cached latency was not used."""


def shapes_of(model: Any) -> dict[str, Any]:
    """Every tensor's shape and what else of a model's architecture the clock can feel."""
    shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    decoding = model.generation_config.to_diff_dict()
    decoding.pop("transformers_version", None)
    return {
        "class": type(model).__name__,
        "parameters": shapes,
        "decoding": json.loads(json.dumps(decoding, default=str)),
    }


def key(
    fingerprint: Mapping[str, Any], workload: Workload, shapes: Mapping[str, Any], dense_shapes: Mapping[str, Any]
) -> dict[str, Any]:
    """The question a latency answers; every part of it counts."""
    return {
        "protocol": PROTOCOL,
        "fingerprint": {k: v for k, v in fingerprint.items() if k != "hash"},
        "workload": workload.model_dump(mode="json"),
        "shapes": dict(shapes),
        "dense_shapes": dict(dense_shapes),
    }


class LatencyCache:
    """One folder of measurements, a file each."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._warned = False

    def get(self, key: Mapping[str, Any]) -> Latency | None:
        """The latency that answers exactly this question, or None."""
        path = self._path(key)
        if not path.exists():
            return None
        entry = self._read(path)
        if entry is None:
            return None
        if entry["key"] != json.loads(json.dumps(key)):
            self._warn(f"{path.name} answers another question")
            return None
        return self._latency(path, entry)

    def put(self, key: Mapping[str, Any], latency: Latency) -> int:
        """Keep a measurement; returns how many older ones its dense reference has made stale."""
        stale = self.drop_stale(key, latency)
        self.folder.mkdir(parents=True, exist_ok=True)
        entry = {"key": dict(key), "latency": latency.model_dump(mode="json")}
        text = json.dumps(entry | {"sha256": _checksum(entry)})
        file, staged = tempfile.mkstemp(dir=self.folder, prefix=".part-")
        with os.fdopen(file, "w") as out:
            out.write(text)
        os.replace(staged, self._path(key))
        return stale

    def drop_stale(self, key: Mapping[str, Any], latency: Latency) -> int:
        """Forget entries of the same device, workload and dense model from before the dense time moved."""
        stale = 0
        for path in sorted(self.folder.glob("*.json")):
            entry = self._read(path)
            if entry is None or any(
                entry["key"].get(part) != json.loads(json.dumps(key[part]))
                for part in ("protocol", "fingerprint", "workload", "dense_shapes")
            ):
                continue
            known = self._latency(path, entry)
            if known is not None and drifted(known, latency):
                path.unlink()
                stale += 1
        if stale:
            self._warn(f"the dense model's latency has drifted to {latency.dense_ms:.3g} ms: {stale} entries are stale")
        return stale

    def _path(self, key: Mapping[str, Any]) -> Path:
        return self.folder / f"{digest(dict(key))[:32]}.json"

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            entry: dict[str, Any] = json.loads(path.read_text())
            if entry.pop("sha256") == _checksum(entry) and isinstance(entry["key"], dict):
                return entry
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        self._warn(f"{path.name} cannot be read or was altered")
        return None

    def _latency(self, path: Path, entry: Mapping[str, Any]) -> Latency | None:
        try:
            return Latency.model_validate(entry["latency"])
        except (KeyError, ValidationError):
            self._warn(f"{path.name} is of another version")
            return None

    def _warn(self, reason: str) -> None:
        if not self._warned:
            warnings.warn(f"latency cache {self.folder}: {reason}; measuring instead", CacheWarning, stacklevel=4)
        self._warned = True


def drifted(known: Latency, now: Latency) -> bool:
    """Whether the dense reference now lies more than 3 % beyond its interval then."""
    lower, upper = known.dense_bounds_ms
    return not lower * (1 - DRIFT) <= now.dense_ms <= upper * (1 + DRIFT)


def _checksum(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()
