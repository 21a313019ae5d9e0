"""Latencies already measured, kept only as long as the question is exactly the same.

    key = fingerprint + workload + shapes of the model and of its dense reference + protocol version

Any change is a miss. An entry that cannot be read, was altered, or answers another question is a
miss too, with one warning. The dense model is timed again before any entry is used: where it has
drifted more than 3 % beyond an entry's interval, the machine is no longer the one that was measured
and all is timed anew.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import ValidationError

from nash_search import device as devices
from nash_search.budget import MEDIAN
from nash_search.config import Workload, digest
from nash_search.errors import NashSearchWarning
from nash_search.files import replace
from nash_search.latency import runtimes, timing
from nash_search.latency.workload import PROTOCOL
from nash_search.latency_record import REMEMBERED, Latency

DRIFT = 0.03
"""How far beyond its interval a dense reference may move."""
UNWORTHY = {"no_samples", "zero_durations", "cut_short"}
"""Statuses of measurements that are not kept."""
_NOT_FELT = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures", "auto_map"}
_NOT_FELT |= {"prefix", "task_specific_params"}


class CacheWarning(NashSearchWarning):
    """A cached latency was not used."""


def shapes_of(model: Any) -> dict[str, Any]:
    """The model's part of a cache key: tensor shapes, and config and decoding settings that may change its speed."""
    config = {name: value for name, value in model.config.to_dict().items() if name not in _NOT_FELT}
    decoding = model.generation_config.to_diff_dict()
    decoding.pop("transformers_version", None)
    found = {
        "class": type(model).__name__,
        "parameters": {name: list(parameter.shape) for name, parameter in model.named_parameters()},
        "config": config,
        "decoding": decoding,
    }
    plain: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return plain


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

    def measure_many(
        self,
        candidates: Mapping[str, Any],
        dense: Any,
        dense_shapes: Mapping[str, Any],
        workload: Workload,
        *,
        pairs: int,
        limit_s: float,
        again: bool = False,
    ) -> dict[str, Latency]:
        """`timing.measure_many` of what is not known yet; what is taken now is known from then on.

        Args:
            candidates: torch models by name.
            dense: the reference as the runtime serves it; it is timed now in any case.
            dense_shapes: `shapes_of` its torch model.
            workload: what one `generate` is.
            pairs: timed pairs per candidate.
            limit_s: as of `timing.measure_many`, for all of it.
            again: what is known cannot be right: time all, and replace it.

        Returns:
            Latencies by name; the details of those from before say `remembered`.
        """
        began_s = time.monotonic()
        fingerprint = runtimes.fingerprint(devices.resolve(workload.device), workload)
        keys = {n: key(fingerprint, workload, shapes_of(model), dense_shapes) for n, model in candidates.items()}
        known = {} if again else {name: x for name, k in keys.items() if (x := self.get(k)) is not None}
        if known:
            anew = timing.measure_many({"dense": dense}, dense, workload, pairs=pairs, limit_s=limit_s, details=False)
            dense_ms = median([*anew["dense"].runs_ms, *(x for r in anew["dense"].rounds for x in r.dense_runs_ms)])
            if any(drifted(latency, dense_ms) for latency in known.values()):
                self._warn(f"the dense model has drifted to {dense_ms:.3g} ms, what was timed before is stale")
                known = {}
        missing = {name: model for name, model in candidates.items() if name not in known}
        left_s = max(0.0, limit_s - (time.monotonic() - began_s))
        timed: dict[str, Any] = {"pairs": pairs, "limit_s": left_s, "details": False}
        taken = timing.measure_many(missing, dense, workload, **timed) if missing else {}
        for name, latency in taken.items():
            self.put(keys[name], latency)
        return {
            name: taken[name] if name in taken else known[name].model_copy(update={"details": {REMEMBERED: True}})
            for name in candidates
        }

    def get(self, key: Mapping[str, Any]) -> Latency | None:
        """The latency that answers exactly this question, or None."""
        path = self._path(key)
        try:
            return _answer(path.read_bytes(), key)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._warn(f"{path.name} {error}")
            return None

    def put(self, key: Mapping[str, Any], latency: Latency) -> None:
        """Keep a measurement, if it is whole."""
        if latency.status in UNWORTHY:
            return
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        entry = {"key": dict(key), "latency": latency.model_dump(mode="json")}
        replace(self._path(key), json.dumps(entry | {"sha256": _checksum(entry)}).encode())

    def _path(self, key: Mapping[str, Any]) -> Path:
        return self.folder / f"{digest(dict(key))[:32]}.json"

    def _warn(self, reason: str) -> None:
        if not self._warned:
            warnings.warn(f"latency cache {self.folder}: {reason}; measuring instead", CacheWarning, stacklevel=4)
        self._warned = True


def drifted(known: Latency, dense_ms: float) -> bool:
    """Whether the dense reference now lies more than 3 % beyond its interval then."""
    lower, upper = known.at(MEDIAN).dense_bounds_ms
    return not lower * (1 - DRIFT) <= dense_ms <= upper * (1 + DRIFT)


def _answer(text: bytes, key: Mapping[str, Any]) -> Latency:
    """The latency in an entry's text, if it answers this question; ValueError says why not."""
    try:
        entry = json.loads(text)
        whole = entry.pop("sha256") == _checksum(entry)
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ValueError("cannot be read or was altered")
    if entry.get("key") != json.loads(json.dumps(key)):
        raise ValueError("answers another question")
    try:
        return Latency.model_validate(entry["latency"])
    except (KeyError, ValidationError):
        raise ValueError("is of another version") from None


def _checksum(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()
