"""How the search scales on a Ray cluster: 1 to 32 workers on trials that sleep, on Ray's multi-node test cluster.

    rate = trials decided after the first round of workers / seconds they took; linear = workers / trial seconds

32 processes start slowly on two cores, so the first round is left out. Prints a table for results/LOG.md and
writes results/reference/search-scale.json; exit code 1 where a rate is below 0.8 of the linear one. About 15 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from nash_search.config import LatencyBudget, SearchConfig, SearchSpace, TaskConfig

PER_NODE = 8


class Times:
    """When each trial was decided."""

    def __init__(self):
        self.decided = []

    def on_stage(self, stage, detail):
        pass

    def on_trial(self, record, state):
        if record.status != "infeasible" and record.stages:
            self.decided.append(time.monotonic())

    def on_progress(self, number, stage, step, steps, loss):
        pass


def measure(workers: int, trial_s: float, rounds: int) -> dict[str, float]:
    """One search with so many workers on a fresh cluster of fake nodes."""
    os.environ["NASH_SEARCH_REHEARSAL"] = f"trial_s={trial_s}"
    from ray.cluster_utils import Cluster

    from nash_search.search import search

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": min(workers, PER_NODE), "num_gpus": min(workers, PER_NODE)}
    )
    left = workers - PER_NODE
    while left > 0:
        cluster.add_node(num_cpus=min(left, PER_NODE), num_gpus=min(left, PER_NODE))
        left -= PER_NODE
    times = Times()
    config = SearchConfig(
        task=TaskConfig(name="rehearsal"),
        search_space=SearchSpace(encoder_sparsity_pct=(0, 90, 1)),
        budgets=(LatencyBudget.parse("95%"),),
        trials=workers * rounds,
        workers=workers,
        early_stopping=False,
        ray_address=cluster.address,
    )
    try:
        with tempfile.TemporaryDirectory() as results:
            began = time.monotonic()
            search(config, results=results, listeners=[times])
            elapsed_s = time.monotonic() - began
    finally:
        cluster.shutdown()
    after = times.decided[workers:]
    rate = len(after) / (after[-1] - times.decided[workers - 1])
    linear = workers / trial_s
    return {
        "workers": workers,
        "trials": len(times.decided),
        "rate_per_s": round(rate, 4),
        "of_linear": round(rate / linear, 3),
        "elapsed_s": round(elapsed_s, 1),
        "first_round_s": round(times.decided[workers - 1] - began, 1),
    }


def main() -> int:
    """1 to 32 workers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--trial-s", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("results/reference/search-scale.json"))
    asked = parser.parse_args()
    rows = []
    print("| workers | trials | of the linear rate | first round s | whole s |\n|---|---|---|---|---|")
    for workers in asked.workers:
        row = measure(workers, asked.trial_s, asked.rounds)
        rows.append(row)
        print(
            f"| {row['workers']} | {row['trials']} | {row['of_linear']:.2f} | {row['first_round_s']} "
            f"| {row['elapsed_s']} |",
            flush=True,
        )
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    return 0 if all(row["of_linear"] >= 0.8 for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
