"""How does the search scale to 32 workers, and to 1,000 trials?

Ray workers on trials that sleep, then ask and tell after 1,000 trials:

    rate = trials decided after the first round of workers / seconds they took; linear = workers / trial seconds
    ask  = `scheduler.ask` (rows read anew, sampler, new row), tell = `scheduler.tell` (row closed, weights of
           dominated trials dropped, backup, listeners): everything between two trials of a serial search

Workers run on Ray's multi-node test cluster. 32 processes start slowly on two cores, so the first round is left
out. Ask and tell are given in wall and in CPU time, which a busy machine changes less. Prints tables for
results/LOG.md and writes results/search-scale/search-scale.json; exit code 1 where a rate is below 0.8 of the linear
one, or ask and tell together take more than 150 ms (p95). About 17 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from nash_search.config import LatencyBudget, SearchConfig, SearchSpace, TaskConfig
from tests import synthetic_evaluator

BILL = "17 minutes"

PER_NODE = 8
SCALE_LEAST = 0.8
ASK_TELL_MOST_MS = 150
PERCENTILES = ("wall_p50", "wall_p95", "cpu_p50", "cpu_p95")


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
    os.environ |= synthetic_evaluator.HERE | {synthetic_evaluator.ORDERS: f"trial_s={trial_s}"}
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


def ask_and_tell(finished: int, timed: int = 60) -> dict[str, float]:
    """Milliseconds of ask and tell after so many finished trials, 50th and 95th percentile."""
    os.environ |= synthetic_evaluator.HERE | {synthetic_evaluator.ORDERS: ""}
    from nash_search.search import scheduler, search
    from nash_search.trial import evaluator

    evaluator._open.clear()  # of the sleeping trials before
    synthetic_evaluator.LAYERS = 24  # 2,304 architectures: enough for so many trials
    asked, told = [], []

    def clocked(method, into):
        def run(self, *arguments):
            wall, cpu = time.perf_counter(), time.process_time()
            found = method(self, *arguments)
            into.append((1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)))
            return found

        return run

    scheduler.Scheduler.ask = clocked(scheduler.Scheduler.ask, asked)
    scheduler.Scheduler.tell = clocked(scheduler.Scheduler.tell, told)
    config = SearchConfig(
        task=TaskConfig(name="rehearsal"),
        search_space=SearchSpace(encoder_sparsity_pct=(0, 95, 1)),
        budgets=(LatencyBudget.parse("95%"),),
        trials=finished + timed,
        serial=True,
        certify_rounds=2,
    )
    with tempfile.TemporaryDirectory() as results:
        search(config, results=results, listeners=[Times()])
    ask, tell = np.array(asked[:-1])[-timed:], np.array(told)[-timed:]  # the last `ask` says that all is done
    found = {"finished": finished}
    for name, samples in (("ask", ask), ("tell", tell), ("both", ask + tell)):
        for kind, column in (("wall", 0), ("cpu", 1)):
            for percent in (50, 95):
                found[f"{name}_{kind}_p{percent}_ms"] = round(float(np.percentile(samples[:, column], percent)), 1)
    return found


def main() -> int:
    """1 to 32 workers, then ask and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--trial-s", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("results/search-scale/search-scale.json"))
    parser.add_argument("--finished", type=int, default=1000)
    asked = parser.parse_args()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, float]] = []
    if asked.out.exists():  # `--workers` without a number: ask and tell alone
        rows = [
            row for row in json.loads(asked.out.read_text("utf-8"))["workers"] if row["workers"] not in asked.workers
        ]
    found: dict[str, float] = {}

    def keep() -> None:
        asked.out.write_text(json.dumps({"workers": rows, "ask_and_tell": found}, indent=1) + "\n", "utf-8")

    print("| workers | trials | of the linear rate | first round s | whole s |\n|---|---|---|---|---|")
    for workers in asked.workers:
        row = measure(workers, asked.trial_s, asked.rounds)
        rows.append(row)
        keep()
        print(
            f"| {row['workers']} | {row['trials']} | {row['of_linear']:.2f} | {row['first_round_s']} "
            f"| {row['elapsed_s']} |",
            flush=True,
        )
    found |= ask_and_tell(asked.finished)
    keep()
    print(f"\n| after {asked.finished} trials, ms | wall p50 | p95 | CPU p50 | p95 |\n|---|---|---|---|---|")
    for name in ("ask", "tell", "both"):
        print(f"| {name} | " + " | ".join(str(found[f"{name}_{k}_ms"]) for k in PERCENTILES) + " |")
    scales = all(row["of_linear"] >= SCALE_LEAST for row in rows)
    return 0 if scales and found["both_wall_p95_ms"] <= ASK_TELL_MOST_MS else 1
