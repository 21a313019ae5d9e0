"""What do Ray, Optuna and the bookkeeping cost a finished study?

Counted is the workers' time that nobody's work explains:

    wall      = last trial told - dense model told (the runner starts there: Ray's start is in, the probe is not)
    busy      = sum of the trials' `wall_s`: their processes' time from a job's arrival to its record
                (loading, training, timing, scoring, saving, and waiting while another trial is timed)
    tail      = worker time after a worker's last trial, when nothing is left to give it
    overhead  = (workers * wall - tail - busy) / (workers * wall)

so overhead is what passes between a record in one worker and the next job's arrival there: Ray's messages, tell,
backup, ask, plus Ray's own start and its processes'. The tail counts the last tells, one per worker, which never
takes too much off. A study that was interrupted has gaps: take one that ran in one go.

    python -m experiments overhead results/g2p-1a2b3c --workers 2
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import optuna

BILL = "seconds, after a search"

LIMIT = 0.05


def overhead(begin_s: float, told_s: Sequence[float], busy_s: Sequence[float], workers: int) -> dict[str, float]:
    """Overhead of a search, share and seconds per trial.

    Args:
        begin_s: when the runner started, seconds on the clock of `told_s`.
        told_s: when each trial was told.
        busy_s: its process's own seconds.
        workers: trials side by side.
    """
    end_s = max(told_s)
    wall_s = end_s - begin_s
    tail_s = sum(end_s - t for t in sorted(told_s)[-workers:])
    lost_s = workers * wall_s - tail_s - sum(busy_s)
    return {
        "wall_s": wall_s,
        "busy_s": sum(busy_s),
        "tail_s": tail_s,
        "overhead": lost_s / (workers * wall_s),
        "overhead_s_per_trial": lost_s / len(told_s),
    }


def of_study(folder: Path, workers: int) -> dict[str, float]:
    """The overhead of a study in its folder (SQLite)."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
    (name,) = optuna.get_all_study_names(storage)
    rows = [t for t in optuna.load_study(study_name=name, storage=storage).trials if t.state.is_finished()]
    storage.engine.dispose()
    told, busy = [], []
    begin = min(row.datetime_start.timestamp() for row in rows)
    for row in rows:
        if "folder" in row.user_attrs:
            record = json.loads((folder / row.user_attrs["folder"] / "record.json").read_bytes())
        else:
            record = json.loads(row.user_attrs.get("record", "{}"))
        if "wall_s" not in record:
            raise SystemExit(f"trial {row.number} must have its wall seconds, but was recorded by an older version")
        if not record["stages"]:  # the dense model, taken over before the runner starts
            begin = row.datetime_complete.timestamp()
            continue
        told.append(row.datetime_complete.timestamp())
        busy.append(record["wall_s"])
    if len(told) < workers:
        raise SystemExit("a study must have a trial per worker")
    return overhead(begin, told, busy, workers)


def main() -> int:
    """Print it; exit code 1 above 5 %."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    found = of_study(asked.study, asked.workers)
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))
    return 0 if found["overhead"] <= LIMIT else 1
