"""How long the dense model took, kept per device from study to study: they show how far milliseconds move here.

    .latencies/occasions.jsonl    one line a measurement: when, on what, of what, how long

A line counts for one device, software and setting (the fingerprint's hash). Only lines about the same model, the same
call and the same way of timing are compared with each other (`of`): in a trial's process, or in fresh ones. A line
that cannot be read is left out. `intervals.occasion_effect` says what the lines mean; this module only keeps them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from nash_search import percentiles
from nash_search.config import Frozen, digest
from nash_search.intervals import OccasionEffect, occasion_effect
from nash_search.latency_record import Latency

FILE = "occasions.jsonl"
MOST = 200
"""Newest lines of a device that are looked at: an effect that was is not the effect that is."""


class Occasion(Frozen):
    """One measurement of a dense model."""

    at: str
    """UTC stamp, ISO 8601."""
    fingerprint: str
    """Hash of the device, the software and the setting."""
    of: str
    """Digest of the dense model, the call and the way of timing."""
    dense_ms: float
    """Median of one call; of requests their geometric mean: each occasion draws others, out of the same strata."""


def occasion_of(latency: Latency, dense: str | Path, at: str) -> Occasion | None:
    """What a measurement says of the dense model it was paired with; None where it was not taken undisturbed.

    Args:
        latency: with its dense samples.
        dense: names the dense model, e.g. its folder.
        at: when, UTC, ISO 8601.
    """
    if latency.status not in ("clean", "unsettled") or "hash" not in latency.fingerprint:
        return None
    last = max(r.occasion for r in latency.rounds)  # the earlier ones were kept when they were taken
    taken = tuple(r for r in latency.rounds if r.occasion == last)
    if latency.workload.traffic is None:
        dense_ms = latency.model_copy(update={"rounds": taken}).dense_ms
    else:
        dense_ms = percentiles.level(tuple(r.dense_runs_ms for r in taken))
    call = latency.workload.model_dump(mode="json")
    of = digest({"dense": str(dense), "call": call, "fresh": latency.fresh})[:16]
    return Occasion(at=at, fingerprint=str(latency.fingerprint["hash"]), of=of, dense_ms=dense_ms)


def keep(folder: Path, found: Iterable[Occasion | None]) -> None:
    """Add what is not there yet; a folder that cannot be written to keeps nothing.

    Args:
        folder: of the latencies kept beside the studies.
        found: measurements; None is passed over.
    """
    known = set(_read(folder))
    new = [occasion for occasion in dict.fromkeys(found) if occasion is not None and occasion not in known]
    if not new:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:
        return
    with os.fdopen(file, "a") as out:
        out.write("".join(f"{occasion.model_dump_json()}\n" for occasion in new))


def learnt(folder: Path, fingerprint: str) -> OccasionEffect:
    """How far medians move on this device between occasions, as far as it is known.

    Args:
        folder: of the latencies kept beside the studies.
        fingerprint: hash of the device, the software and the setting.
    """
    own = sorted((o for o in _read(folder) if o.fingerprint == fingerprint), key=lambda o: o.at)[-MOST:]
    groups: dict[str, list[float]] = {}
    for occasion in own:
        groups.setdefault(occasion.of, []).append(occasion.dense_ms)
    return occasion_effect(list(groups.values()))


def _read(folder: Path) -> list[Occasion]:
    try:
        lines = (folder / FILE).read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(Occasion.model_validate_json(line))
        except ValidationError:
            continue
    return [occasion for occasion in found if occasion.dense_ms > 0]
