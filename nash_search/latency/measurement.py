"""A measurement as one JSON document and as rows for a person. Refuses to measure or print."""

from __future__ import annotations

import math
from typing import Any

from nash_search.config import LatencyBudget
from nash_search.intervals import LEVEL_PCT
from nash_search.latency_record import Latency

UNBOUNDED = 100.0
"""Bounds further apart than this factor bound nothing."""


def document(latency: Latency, budget: LatencyBudget | None = None) -> dict[str, Any]:
    """The `measure --json` document; what is not known is None."""
    lower_ms, upper_ms = latency.bounds_ms
    alone = bool(latency.details.get("paired_with_itself"))
    return {
        "latency_ms": known(latency.median_ms),
        "lower_ms": known(lower_ms),
        "upper_ms": known(upper_ms),
        "speedup": None if alone else known(latency.speedup),
        "verdict": None if budget is None else latency.certificate(budget),
        "status": latency.status,
        "workload": latency.workload.model_dump(mode="json"),
        "fingerprint": latency.fingerprint,
        "dense": {"latency_ms": None if alone else known(latency.dense_ms)},
        "runs_ms": list(latency.runs_ms),
    }


def rows(latency: Latency, budget: LatencyBudget | None = None) -> list[tuple[str, str]]:
    """(what, how much) in reading order: the number, what it rests on, what stands beside it."""
    lower_ms, upper_ms = latency.bounds_ms
    bounds = f"{_ms(lower_ms)} to {_ms(upper_ms)}" if upper_ms <= UNBOUNDED * lower_ms else "too few rounds to say"
    found = [("latency", f"{_ms(latency.median_ms)}  ({LEVEL_PCT} %: {bounds})")]
    if not latency.details.get("paired_with_itself"):
        low, high = latency.ratio_bounds
        found += [
            ("dense", _ms(latency.dense_ms)),
            ("of dense", f"{_pct(latency.ratio)}  ({LEVEL_PCT} %: {_pct(low)} to {_pct(high)})"),
            ("speed-up", f"{latency.speedup:.2f} x" if math.isfinite(latency.speedup) else "unknown"),
        ]
    if budget is not None:
        verdict = latency.certificate(budget)
        words = ": asking again starts anew and may meet it by chance; give more --rounds instead"
        found.append(("budget", f"{budget.asked}: {verdict}" + (words if verdict == "ambiguous" else "")))
    rounds = "fresh processes" if latency.fresh else "rounds in one process"
    found.append(("rests on", f"{len(latency.runs_ms)} pairs, {len(latency.rounds)} {rounds}, status {latency.status}"))
    p95_ms = latency.p95_ms
    found.append(("p95", "n/a (fewer than 130 samples)" if p95_ms is None else _ms(p95_ms)))
    beside = latency.details
    if "encoder_ms" in beside:
        found.append(("encoder", _ms(beside["encoder_ms"])))
    if "ms_per_output_token" in beside:
        found.append(("per output token", _ms(beside["ms_per_output_token"])))
    if "natural_ms" in beside:
        read = f"{beside['natural_tokens']} tokens, {beside['inputs']} inputs"
        found.append(("natural length", f"{_ms(beside['natural_ms'])}  ({read})"))
    if "peak_memory_bytes" in beside:
        found.append(("peak memory", f"{beside['peak_memory_bytes'] / 2**20:.1f} MiB (weights and tensors)"))
    if any(r.surroundings.get("nvml") is False for r in latency.rounds):
        found.append(("warning", "NVML does not see this GPU: neighbours and throttling would go unnoticed"))
    return found + [("warning", text) for text in beside.get("warnings", ())]


def known(value: float) -> float | None:
    """The value, or None where JSON has no word for it."""
    return value if math.isfinite(value) else None


def _ms(value_ms: float) -> str:
    return f"{value_ms:.4g} ms" if math.isfinite(value_ms) else "unknown"


def _pct(share: float) -> str:
    return f"{100 * share:.1f} %" if math.isfinite(share) else "unknown"
