"""Turns a measurement into one JSON object and into (label, text) rows for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nash_search.config import LatencyBudget
from nash_search.intervals import LEVEL_PCT
from nash_search.latency_record import Latency
from nash_search.percentiles import P95_CALLS, SHOWN_PERCENTILES, requests_needed
from nash_search.plain_json import finite

UNBOUNDED = 100.0
"""Bounds further apart than this factor bound nothing."""


def document(latency: Latency, budgets: Sequence[LatencyBudget] = ()) -> dict[str, Any]:
    """The `measure --json` document; what is not known is None, and so is `verdict` of several budgets."""
    lower_ms, upper_ms = latency.bounds_ms
    alone = bool(latency.details.get("paired_with_itself"))
    verdicts = {budget.asked: latency.certificate(budget) for budget in budgets}
    return {
        "latency_ms": finite(latency.median_ms),
        "lower_ms": finite(lower_ms),
        "upper_ms": finite(upper_ms),
        "speedup": None if alone else finite(latency.speedup),
        "verdict": next(iter(verdicts.values())) if len(verdicts) == 1 else None,
        "status": latency.status,
        "workload": latency.workload.model_dump(mode="json"),
        "fingerprint": latency.fingerprint,
        "dense": {"latency_ms": None if alone else finite(latency.dense_ms)},
        "runs_ms": list(latency.runs_ms),
        **({"verdicts": verdicts} if len(verdicts) > 1 else {}),
        **({} if latency.workload.traffic is None else _distribution(latency)),
    }


def _distribution(latency: Latency) -> dict[str, Any]:
    """Of requests: which percentile is told, others beside it, and the dense runs."""
    alone = bool(latency.details.get("paired_with_itself"))
    dense_ms = [] if alone else [x for r in latency.rounds for x in r.dense_runs_ms]
    return {"percentile": latency.percentile, "percentiles": of_requests(latency), "dense_runs_ms": dense_ms}


def of_requests(latency: Latency) -> dict[str, dict[str, Any] | None]:
    """By percentile, what requests took, the dense model's beside it; None where there are too few of them."""
    told: dict[str, dict[str, Any] | None] = {}
    alone = bool(latency.details.get("paired_with_itself"))
    for percentile in sorted({*SHOWN_PERCENTILES, latency.percentile}):
        seen = latency.at(percentile)
        row: dict[str, Any] | None = None
        if len(latency.runs_ms) >= requests_needed(percentile):
            low_ms, high_ms = seen.bounds_ms
            row = {"latency_ms": finite(seen.median_ms), "lower_ms": finite(low_ms), "upper_ms": finite(high_ms)}
            if not alone:
                row |= {"dense_ms": finite(seen.dense_ms), "share": finite(seen.ratio)}
                row["share_bounds"] = [finite(bound) for bound in seen.ratio_bounds]
        told[f"{percentile:g}"] = row
    return told


def rows(latency: Latency, budgets: Sequence[LatencyBudget] = ()) -> list[tuple[str, str]]:
    """(what, how much) in reading order: the number, what it rests on, what stands beside it."""
    lower_ms, upper_ms = latency.bounds_ms
    bounds = f"{_ms(lower_ms)} to {_ms(upper_ms)}" if upper_ms <= UNBOUNDED * lower_ms else "too few rounds to say"
    of_requests = latency.workload.traffic is not None
    name = f"p{latency.percentile:g} latency" if of_requests else "latency"
    found = [(name, f"{_ms(latency.median_ms)}  ({LEVEL_PCT} %: {bounds})")]
    if not latency.details.get("paired_with_itself"):
        low, high = latency.ratio_bounds
        found += [
            ("dense", _ms(latency.dense_ms)),
            ("of dense", f"{_pct(latency.ratio)}  ({LEVEL_PCT} %: {_pct(low)} to {_pct(high)})"),
            ("speed-up", f"{latency.speedup:.2f} x" if math.isfinite(latency.speedup) else "unknown"),
        ]
    for budget in budgets:
        verdict = latency.certificate(budget)
        words = ": asking again starts anew and may meet it by chance; give more --rounds instead"
        found.append(("budget", f"{budget.asked}: {verdict}" + (words if verdict == "ambiguous" else "")))
    rounds = "fresh processes" if latency.fresh else "rounds in one process"
    what = f"{len(latency.runs_ms)} {latency.workload.units}"
    found.append(("rests on", f"{what}, {len(latency.rounds)} {rounds}, status {latency.status}"))
    if of_requests:
        found += [(f"p{each:g}", _row_of(latency, each)) for each in SHOWN_PERCENTILES]
    else:
        p95_ms = latency.p95_ms
        found.append(("p95", f"n/a (fewer than {P95_CALLS} samples)" if p95_ms is None else _ms(p95_ms)))
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


def _row_of(latency: Latency, percentile: float) -> str:
    needed, seen = requests_needed(percentile), latency.at(percentile)
    if len(latency.runs_ms) < needed:
        return f"needs at least {needed} {latency.workload.units}, but got {len(latency.runs_ms)}"
    low, high = seen.bounds_ms
    beside = (
        "" if latency.details.get("paired_with_itself") else f", dense {_ms(seen.dense_ms)}, {_pct(seen.ratio)} of it"
    )
    return f"{_ms(seen.median_ms)} ({_ms(low)} to {_ms(high)}){beside}"


def _ms(value_ms: float) -> str:
    return f"{value_ms:.4g} ms" if math.isfinite(value_ms) else "unknown"


def _pct(share: float) -> str:
    return f"{100 * share:.1f} %" if math.isfinite(share) else "unknown"
