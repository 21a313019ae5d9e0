"""Latencies of a study in one file, taken once, and a share of the dense model's that holds beside other work."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nash_search import latency
from nash_search.config import Workload
from nash_search.latency_record import Latency


class Samples:
    """Every latency that was taken, kept in one file; what is in it is not taken again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known = json.loads(gzip.decompress(path.read_bytes())) if path.exists() else {}

    def of(self, name: str, models: Mapping[str, Any], dense: Any, workload: Workload) -> dict[str, Latency]:
        """All models next to the dense one."""
        known = self.known.setdefault(name, {})
        if missing := {key: model for key, model in models.items() if key not in known}:
            taken = latency.measure_many(missing, dense, workload, rounds=3, pairs=15, details=False, limit_s=400)
            known |= {key: value.model_dump(mode="json") for key, value in taken.items()}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(gzip.compress(json.dumps(self.known).encode(), mtime=0))
        return {key: Latency.model_validate(known[key]) for key in models}


def share(taken: Latency) -> float:
    """Median of the pairs' ratios in CPU time, which other work on the machine does not stretch (one thread each)."""
    pairs = [pair for r in taken.rounds for pair in zip(r.cpu_ms, r.dense_cpu_ms, strict=True)]
    return float(np.median([own / dense for own, dense in pairs]))
