"""Timing that may be signed: folders loaded and timed in fresh processes, one round each.

    look 1     R rounds                    every budget met or missed?  done
    look 2     R more for what is ambiguous                             then it stays ambiguous

Two looks widen the bounds (x 1.15), so that stopping early costs no coverage. Where the same was asked before,
its rounds are pooled with the new ones and the error allowed is halved. Whatever happens, it
ends within the limit, and each number says how it ended. One process times as `timing` does.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nash_search import device as devices
from nash_search.config import LatencyBudget, Workload
from nash_search.device import lock
from nash_search.encoder_rows import Given, document
from nash_search.errors import InvalidInput
from nash_search.intervals import DEFAULT_OCCASION, PEEKING_SCALE, OccasionEffect
from nash_search.latency.fresh_process import MeasurementFailed, OutOfMemory, run_job
from nash_search.latency_record import Latency, pooled

TOKENS_LIMIT_S = 300.0
"""For each folder that writes in a fresh process."""
OWN_SHARE = 0.9
"""Part of its share of the limit that a process plans to use."""
GRACE = 0.15
"""Part of the limit that it may overrun its share by before it is killed."""
MEMORY_SHARE = 0.5
"""Share of the free memory that models loaded side by side may take."""


# 13 parameters: what is timed (4), how much of it (5), what it decides (3), who is told; all but the first three by
# keyword and with a default.
def measure_fresh(
    folders: Mapping[str, str | Path],
    dense_folder: str | Path | None,
    workload: Workload,
    *,
    rounds: int = 5,
    pairs: int = 40,
    limit_s: float = 900.0,
    budgets: Mapping[str, Sequence[LatencyBudget]] | None = None,
    max_rounds: int | None = None,
    inputs: Given | None = None,
    effect: OccasionEffect = DEFAULT_OCCASION,
    before: Mapping[str, Latency] | None = None,
    drawn: int = 0,
    on_round: Callable[[int, int], None] | None = None,
) -> dict[str, Latency]:
    """Time checkpoint folders, each round one fresh process that interleaves all of them with dense.

    Must not be called while this thread holds the device (the fresh processes take it).

    Args:
        folders: checkpoint folders by name.
        dense_folder: the reference; None pairs every folder with the first one.
        workload: what one `generate` is.
        rounds: fresh processes.
        pairs: timed pairs per folder and process; of a traffic, requests, and each process draws its own.
        limit_s: when it ends at the latest; rounds share what is left of it.
        budgets: by name, the budgets to be decided; an ambiguous one asks for more rounds.
        max_rounds: most rounds where a budget is still ambiguous after `rounds` (None: twice `rounds`).
        inputs: real inputs (None: random ones).
        effect: how far this device's medians move between occasions (`latency.occasions`).
        before: by name, what was found when the same was asked before: the rounds are pooled, the looks counted.
        drawn: rounds whose requests of a traffic were drawn already, so that new rounds draw others; where `before`
            is given, its rounds are counted instead.
        on_round: told (rounds done, rounds planned).

    Raises:
        InvalidInput: a folder does not load.
        MeasurementFailed: a process died; what it said last.
    """
    if rounds < 1:
        raise InvalidInput(f"rounds must be at least 1, but got {rounds}")
    if lock.held(devices.lock_name(workload.device)) != "free":
        raise RuntimeError("measure_fresh must be called without the device's lock: its processes take it")
    if not folders:
        return {}
    paths = {name: str(Path(folder).resolve()) for name, folder in folders.items()}
    dense = str(Path(dense_folder).resolve()) if dense_folder is not None else next(iter(paths.values()))
    asked, earlier = budgets or {}, before or {}
    drawn = max((len(latency.rounds) for latency in earlier.values()), default=drawn)
    session = _Session(dense, workload, pairs, inputs, limit_s, drawn)
    scale = PEEKING_SCALE if asked else 1.0

    def joined(parts: Mapping[str, Sequence[Latency]], least: int, *, second: bool = False) -> dict[str, Latency]:
        now = {name: _joined(found, workload, least, scale, effect) for name, found in parts.items()}
        looked = {name: latency.model_copy(update={"second_look": second}) for name, latency in now.items()}
        return {name: pooled(earlier.get(name), latency) for name, latency in looked.items()}

    planned = rounds
    found: dict[str, list[Latency]] = {name: [] for name in paths}
    session.run(found, paths, planned, on_round)
    results = joined(found, planned)
    open_names = [n for n, wanted in asked.items() if any(results[n].verdict(b) == "ambiguous" for b in wanted)]
    planned = max_rounds or 2 * rounds
    if open_names and planned > rounds:
        more = {name: found[name] for name in open_names}
        session.run(more, {name: paths[name] for name in open_names}, planned, on_round)
        results |= joined(more, rounds, second=True)
    if dense_folder is None:
        return {
            n: r.model_copy(update={"details": r.details | {"paired_with_itself": True}}) for n, r in results.items()
        }
    return results


def fresh_tokens(
    folders: Mapping[str, str | Path],
    rows: Given,
    workload: Workload,
    *,
    max_new_tokens: int,
) -> dict[str, list[list[int]]]:
    """What each folder generates in a fresh process, token for token, one list per input row.

    Raises:
        MeasurementFailed: the process died, or took longer than `TOKENS_LIMIT_S` for each folder.
    """
    job = {
        "kind": "tokens",
        "folders": {name: str(Path(folder).resolve()) for name, folder in folders.items()},
        "workload": workload.model_dump(mode="json"),
        "inputs": document(rows),
        "max_new_tokens": max_new_tokens,
    }
    limit_s = TOKENS_LIMIT_S * len(folders)
    result = run_job(job, limit_s)
    if result is None:
        raise MeasurementFailed(f"generating from {', '.join(folders)} must end within {limit_s:.0f} s, but did not")
    return result


class _Session:
    """What stays the same from round to round, and the time they share."""

    def __init__(
        self,
        dense: str,
        workload: Workload,
        pairs: int,
        inputs: Given | None,
        limit_s: float,
        drawn: int,
    ) -> None:
        self.dense, self.workload, self.pairs = dense, workload, pairs
        self.drawn = drawn
        """Rounds whose requests of a traffic were drawn before."""
        self.deadline_s, self.grace_s = time.monotonic() + limit_s, GRACE * limit_s
        self.inputs = None if inputs is None else document(inputs)

    def run(
        self,
        found: dict[str, list[Latency]],
        paths: Mapping[str, str],
        planned: int,
        on_round: Callable[[int, int], None] | None,
    ) -> None:
        """Rounds until each name has `planned`; stops at the deadline.

        Where memory does not hold a batch after all, each half of it gets a process of its own, from then on.
        """
        batches = side_by_side(paths, self.dense, devices.resolve(self.workload.device).free_bytes())
        done = min(len(parts) for parts in found.values())
        while done < planned:
            left, batches = deque(batches), []
            while left:
                batch = left.popleft()
                left_s = self.deadline_s - time.monotonic()
                share_s = left_s / ((planned - done) * (len(batches) + 1 + len(left)) - len(batches))
                job = {
                    "kind": "time",
                    "folders": {name: paths[name] for name in batch},
                    "dense": self.dense,
                    "workload": self.workload.model_dump(mode="json"),
                    "inputs": self.inputs,
                    "pairs": self.pairs,
                    "limit_s": OWN_SHARE * share_s,
                    "details": done == 0,
                    "turn": self.drawn + done,
                }
                try:
                    result = run_job(job, left_s + self.grace_s) if left_s > 0 else None
                except OutOfMemory:
                    if len(batch) == 1:
                        raise
                    left.extendleft([batch[len(batch) // 2 :], batch[: len(batch) // 2]])
                    continue
                if result is None:
                    return
                batches.append(batch)
                for name, value in result.items():
                    found[name].append(Latency.model_validate(value))
            done += 1
            if on_round is not None:
                on_round(done, planned)


def side_by_side(paths: Mapping[str, str], dense: str, free_bytes: int) -> list[list[str]]:
    """Names that fit into the device's free memory together with the dense model; all, unless models are large."""
    room_bytes = MEMORY_SHARE * free_bytes - _weights_bytes(dense)
    batches: list[list[str]] = []
    left_bytes = 0.0
    for name, path in paths.items():
        need_bytes = _weights_bytes(path)
        if not batches or need_bytes > left_bytes:
            batches.append([])
            left_bytes = room_bytes
        batches[-1].append(name)
        left_bytes -= need_bytes
    return batches


def _weights_bytes(folder: str) -> int:
    """Checkpoint and engine's artefact together: more than is loaded, never less."""
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def _joined(
    parts: Sequence[Latency], workload: Workload, planned: int, scale: float, effect: OccasionEffect = DEFAULT_OCCASION
) -> Latency:
    """The rounds of fresh processes as one measurement, of one occasion."""
    if not parts:
        return Latency(rounds=(), workload=workload, fresh=True, interval_scale=scale, effect=effect, cut_short=True)
    hashes = {part.fingerprint["hash"] for part in parts}
    details = dict(parts[0].details)
    if len(hashes) > 1:
        changed = "the device or its software changed between rounds: these samples do not belong together"
        details["warnings"] = [*details.get("warnings", ()), changed]
    return Latency(
        rounds=tuple(r for part in parts for r in part.rounds),
        workload=workload,
        fingerprint=parts[0].fingerprint,
        fresh=True,
        details=details,
        interval_scale=scale,
        effect=effect,
        cut_short=len(parts) < planned or any(part.cut_short for part in parts),
    )
