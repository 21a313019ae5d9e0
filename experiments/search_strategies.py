"""What does a training second buy, against random search and the whole grid?

    grid      6 depths x 6 sparsities of the default task, every trial to its end (about an hour, resumable)
    replay    every strategy on that table, 20 seeds (minutes)
    real      3 searches each of ours, of ours with shared training and of random (`--real TRIALS`),
              until they are there: search-real.json

Prints a table for results/LOG.md and writes `search-table.json.gz`, `search-strategies.json` and a picture into
results/search-strategies. The goals: 95 % of the grid's hypervolume at <= 25 % of its training seconds, and >= 4x fewer
training seconds than random search to the same hypervolume. Whatever comes out is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import mean, median

import torch

from experiments.shared import replay
from nash_search import latency, pruner
from nash_search.config import LatencyBudget, SearchConfig
from nash_search.config_loader import load_config
from nash_search.files import sqlite_url
from nash_search.latency_table import LatencyTable, ProbeEntry
from nash_search.records import TrialRecord
from nash_search.search import search
from nash_search.storage.study import Study, open_storage
from nash_search.tasks.g2p import teacher_folder
from nash_search.trial.nash_evaluator import RUNG_EXAMPLES

BILL = "an hour for the grid, then minutes; 100 minutes for the real searches"

SEEDS = 20
SHARE = 0.95
"""Of the grid's hypervolume: what "as good" means."""
AFTER = (8, 16)
"""Trials after which hypervolumes are compared: a small search's and the default's."""
BUDGETS = (LatencyBudget.parse("70%"), LatencyBudget.parse("50%"))


class Lines:
    """Plain progress on stderr."""

    def on_stage(self, stage, detail):
        print(stage, file=sys.stderr)

    def on_trial(self, record, state):
        quality = f"{record.quality.value:.2f}" if record.quality else record.failure or record.stopped
        print(f"{state.trained}/{state.trials} {record.architecture.slug} {quality}", file=sys.stderr, flush=True)

    def on_progress(self, number, stage, step, steps, loss):
        pass


def grid(config: SearchConfig, results: Path, step_pct: int) -> replay.GridTable:
    """Train every architecture of a coarse grid to its end, or go on with it."""
    asked = config.model_copy(
        update={
            "budgets": (LatencyBudget.parse("100%"),),
            "search_space": replay.grid_space(config, step_pct),
            "sampler": "grid",
            "trials": 10_000,
            "study": "strategies-grid",
        }
    )
    folder = search(asked, results=results, listeners=[Lines()]).folder
    study = Study(open_storage(sqlite_url(folder / "study.db")), "strategies-grid", folder, None)
    known = LatencyTable.model_validate_json((folder / "probe.json").read_bytes())
    table = replay.table_of(study.records(), known, study.facts, RUNG_EXAMPLES)
    study.close()
    return retimed(table, folder)


def retimed(table: replay.GridTable, folder: Path, pairs: int = 30) -> replay.GridTable:
    """The table with every shape and every probed one timed again, all together.

    Trials are timed far apart and beside other work; a replay needs one clock for all.
    """
    torch.set_num_threads(1)
    teacher = pruner.load(teacher_folder()).eval()
    models, shapes = {}, {}
    for path in sorted(folder.glob("trials/*/record.json")):
        record = TrialRecord.model_validate_json(path.read_bytes())
        if record.shapes is not None:
            shapes[record.architecture] = record.shapes
    for e in table.entries:
        kept = [[list(range(n)) for n in counts] for counts in
                (shapes[e.architecture].encoder_heads, shapes[e.architecture].encoder_neurons)]  # fmt: skip
        models[e.architecture.slug] = pruner.cut(pruner.shorten(teacher, e.architecture.decoder_layers), *kept)
        models[f"probe {e.architecture.slug}"] = pruner.random_cut(teacher, e.architecture, seed=0)
    taken = latency.measure_many(models, teacher, table.probe.workload, rounds=3, pairs=pairs // 3, details=False)
    entries = [e.model_copy(update={"share": taken[e.architecture.slug].ratio}) for e in table.entries]
    probed = [(e.architecture, taken[f"probe {e.architecture.slug}"]) for e in table.entries]
    known = LatencyTable(entries=tuple(ProbeEntry(architecture=a, latency=x) for a, x in probed))
    return table.model_copy(update={"entries": tuple(entries), "probe": replay.lean(known)})


def strategies(config: SearchConfig) -> dict[str, SearchConfig]:
    """Ours, and ours with one part taken away."""
    ours = config.model_copy(update={"budgets": BUDGETS, "trials": 10_000})
    return {
        "ours": ours,
        "ours, TPE": ours.model_copy(update={"sampler": "tpe"}),
        "feasible at random": ours.model_copy(update={"sampler": "random"}),
    }


def compare(table: replay.GridTable, config: SearchConfig, seeds: int) -> dict[str, list[list[replay.Progress]]]:
    """Progress of every strategy and seed."""
    loosest = max(b.share for b in BUDGETS)
    found = {
        "random": [replay.at_random(table, loosest, seed) for seed in range(seeds)],
        "grid in order": [replay.in_order(table, loosest)],
        "stock Optuna (TPE)": [replay.stock(table, loosest, seed) for seed in range(seeds)],
    }
    for name, asked in strategies(config).items():
        found[name] = [replay.replay(table, asked, seed) for seed in range(seeds)]
        print(name, file=sys.stderr)
    return found


def summary(table: replay.GridTable, found: dict[str, list[list[replay.Progress]]]) -> list[dict[str, object]]:
    """One row per strategy: median seconds to the goal, share of the grid's compute, ratio to random."""
    loosest = max(b.share for b in BUDGETS)
    goal = SHARE * table.hypervolume(table.within(loosest))
    whole_s = sum(e.train_s for e in table.entries)
    reached = {
        name: [replay.seconds_to(p, goal) if p else None for p in runs] for name, runs in found.items()
    }  # a strategy that never gets there counts as the whole grid
    seconds = {name: [whole_s if s is None else s for s in runs] for name, runs in reached.items()}
    rows = []
    for name, runs in seconds.items():
        ratio, low, high = replay.ratio_bounds(runs, seconds["random"])
        rows.append(
            {
                "strategy": name,
                "train_s": round(median(runs), 1),
                "share_of_grid": round(median(runs) / whole_s, 3),
                "times_fewer_than_random": [round(x, 2) for x in (ratio, low, high)],
                "reached": sum(s is not None for s in reached[name]),
                "seeds": len(runs),
                "hypervolume_after": {str(n): spread(table, found[name], n) for n in AFTER},
                "final_hypervolume_share": round(median(p[-1].hypervolume for p in found[name]) / goal * SHARE, 3),
            }
        )
    return rows


def spread(table: replay.GridTable, runs: list[list[replay.Progress]], trials: int) -> list[float]:
    """Mean and worst over seeds of the hypervolume after so many trials, percent of all feasible ones'."""
    limit = table.hypervolume(table.within(max(b.share for b in BUDGETS)))
    reached = [100 * run[min(trials, len(run)) - 1].hypervolume / limit for run in runs]
    return [round(mean(reached), 2), round(min(reached), 2)]


def draw(table: replay.GridTable, found: dict[str, list[list[replay.Progress]]], path: Path) -> None:
    """Hypervolume against training seconds, medians over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot

    whole_s = sum(e.train_s for e in table.entries)
    limit = table.hypervolume(table.within(max(b.share for b in BUDGETS)))
    axis = np.linspace(0, whole_s, 200)
    figure, axes = pyplot.subplots(figsize=(8, 5))
    for (name, runs), style in zip(found.items(), ("-", ":", "-.", "-", "--", "-.", "--", ":"), strict=False):
        curves = []
        for run in runs:
            times = [0.0] + [p.train_s for p in run]
            values = [0.0] + [p.hypervolume / limit for p in run]
            curves.append([values[np.searchsorted(times, t, side="right") - 1] for t in axis])
        axes.plot(axis / whole_s * 100, np.median(curves, axis=0) * 100, style, label=name, linewidth=2)
    axes.axhline(100 * SHARE, color="grey", linewidth=0.8)
    axes.set(xlabel="training seconds, % of the whole grid", ylabel="hypervolume, % of the whole grid")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


class Reached(Exception):
    """A real search need not go on."""


class UntilGoal(Lines):
    """Ends a search when its finished trials have the goal's hypervolume."""

    def __init__(self, table):
        self.table = table

    def on_trial(self, record, state):
        super().on_trial(record, state)
        if way_to_goal(self.table, sorted(state.records, key=lambda r: r.created))["reached"]:
            raise Reached


REAL: dict[str, dict[str, object]] = {
    "ours": {"budgets": BUDGETS},
    "ours, shared training": {"budgets": BUDGETS},
    "random": {"budgets": (LatencyBudget.parse("100%"),), "sampler": "random"},
}
"""Real searches; random is told of no budget, so it trains what could never meet one, as in the replay."""


def real(table: replay.GridTable, config: SearchConfig, results: Path, out: Path, trials: int, seeds: int) -> None:
    """Real searches, one trial after the other, until they have the goal's hypervolume; a killed one goes on."""
    shared = config.recipe.model_copy(update={"narrowing": "shared"})
    rows: list[dict[str, object]] = []
    for seed in range(seeds):
        for name, fields in REAL.items():
            asked = config.model_copy(
                update=fields
                | {
                    "trials": trials,
                    "seed": seed,
                    "study": f"strategies-{name.replace(', ', '-').replace(' ', '-')}-{seed}",
                }
                | {"recipe": shared if "shared" in name else config.recipe, "certify_rounds": 2, "certify_pairs": 3}
                | {"serial": True}
            )
            folder = results / asked.study_name
            if not way_to_goal(table, records_of(folder))["reached"]:
                with suppress(Reached):
                    search(asked, results=results, listeners=[UntilGoal(table)])
            rows.append({"strategy": name, "seed": seed} | way_to_goal(table, records_of(folder)))
            print(json.dumps(rows[-1]), flush=True)
            out.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def records_of(folder: Path) -> list[TrialRecord]:
    """A study's trials in the order they ended."""
    if not (folder / "study.db").exists():
        return []
    study = Study(open_storage(sqlite_url(folder / "study.db")), folder.name, folder, None)
    records = sorted(study.records(), key=lambda r: r.created)
    study.close()
    return records


def way_to_goal(table: replay.GridTable, records: Sequence[TrialRecord]) -> dict[str, object]:
    """Training that a real search spent until it had the goal's hypervolume, in seconds and in steps."""
    loosest = max(b.share for b in BUDGETS)
    goal = SHARE * table.hypervolume(table.within(loosest))
    seen: list[replay.Entry] = []
    spent = {"train_s": 0.0, "train_steps": 0.0}
    found: dict[str, object] = {"reached": False, "trials": 0}
    for record in records:
        if not record.train_s:  # the dense model, and what was refused
            continue
        spent = {"train_s": spent["train_s"] + record.train_s, "train_steps": spent["train_steps"] + record.train_steps}
        if record.status == "complete" and record.latency.ratio <= loosest:
            seen.append(
                replay.Entry(
                    architecture=record.architecture, share=record.latency.ratio, quality=record.quality,
                    curve=record.curve, train_s=record.train_s,
                )
            )  # fmt: skip
        reached = table.hypervolume(seen) >= goal
        if not found["reached"]:
            found |= spent | {"reached": reached, "trials": found["trials"] + 1}
    return found | {"hypervolume_share": round(table.hypervolume(seen) / goal * SHARE, 3), "trained": len(seen)}


def main() -> int:
    """Grid, replay, and on demand the real searches."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="g2p")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path, default=Path("results/search-strategies"))
    parser.add_argument("--step", type=int, default=16, help="percent between the grid's sparsities")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--table", type=Path, help="a table that was trained before")
    parser.add_argument("--real", type=int, metavar="TRIALS", help="search for real, at most so many trials each")
    parser.add_argument("--real-seeds", type=int, default=3)
    asked = parser.parse_args()
    config = load_config(asked.config)
    asked.out.mkdir(parents=True, exist_ok=True)
    table = replay.read(asked.table) if asked.table else grid(config, asked.results, asked.step)
    if asked.real:
        real(table, config, asked.results, asked.out / "search-real.json", asked.real, asked.real_seeds)
        return 0
    replay.write(table, asked.out / "search-table.json.gz")
    found = compare(table, config, asked.seeds)
    rows = summary(table, found)
    document: dict[str, object] = {"grid_trials": len(table.entries), "replay": rows}
    document["grid_train_s"] = sum(e.train_s for e in table.entries)
    (asked.out / "search-strategies.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    draw(table, found, asked.out / "search-strategies.png")
    print("| strategy | training s to 95 % | of the grid | × fewer than random | reached | hypervolume % @8 | @16 |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        ratio, low, high = row["times_fewer_than_random"]
        print(
            f"| {row['strategy']} | {row['train_s']} | {row['share_of_grid']:.0%} "
            f"| {ratio} ({low} to {high}) | {row['reached']}/{row['seeds']} "
            + "".join(f"| {mean} (worst {worst}) " for mean, worst in row["hypervolume_after"].values())
            + "|"
        )
    ours = next(row for row in rows if row["strategy"] == "ours")
    return 0 if ours["share_of_grid"] <= 0.25 and ours["times_fewer_than_random"][0] >= 4 else 1
