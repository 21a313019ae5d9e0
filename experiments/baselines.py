"""Is NASH better than shrink-and-fine-tune and than its own ablations, at equal steps and latency?

Arms at two points of the default task's front, (3 blocks, 30 %) and (2 blocks, 50 %), three seeds each; those that
leave the encoder whole are at the same depths, so their latency differs and stands beside them.
The bill: 2 points x 12 arms x 3 seeds, and shrink-and-fine-tune at 1 and 6 blocks: 78 trainings of about 75 s of CPU,
50 minutes of two cores.

The fronts are compared at equal measured latency: for each depth of shrink-and-fine-tune, the best of NASH's trained
grid (`make study NAME=mild-sparsity`, the same steps and seeds) that is as fast or faster.
Lines go to results/baselines/baselines.jsonl, the tables for results/LOG.md to stdout, a picture beside the lines.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from experiments.shared.drawing import forest
from experiments.shared.trainings import Arm, Line, architecture, difference, read, seed_deviation, trained, values
from nash_search import latency, pruner
from nash_search.config import Workload
from nash_search.tasks.g2p import teacher_folder

BILL = "about an hour (78 trainings)"

Cell = tuple[int, int, str]
"""Decoder blocks and percent removed of the point, and the arm's name."""

POINTS = ((3, 30), (2, 50))
NASH, SFT, SCRATCH = "NASH (trained gates)", "shrink and fine-tune", "small model from scratch"
SFT_DEPTHS = (1, 6)
"""Where shrink-and-fine-tune is trained too, for its front."""
PLAIN = {"kd_weight": 0.0, "hidden_weight": 0.0, "ce_weight": 1.0}


def arms_at(n: int, s: int, seed: int) -> list[Arm]:
    """Every arm of one point and seed."""

    def arm(name: str, sparsity: int = s, selection: str = "scored", scratch: bool = False, **changes: object) -> Arm:
        where = architecture(n, sparsity, selection)
        return Arm(name=name, architecture=where, changes=changes, scratch=scratch, seed=seed)

    return [
        arm(NASH),
        arm(SFT, sparsity=0, **PLAIN),
        arm("shrink and fine-tune, distilled", sparsity=0),
        arm("magnitude cut", narrowing="magnitude"),
        arm("Fisher cut", narrowing="fisher"),
        arm("random cut (no gates)", narrowing="random"),
        arm("no distillation", **PLAIN),
        arm("no final tune", narrow_steps=600, tune_steps=0),
        arm("decoder: uniform (the paper)", selection="uniform"),
        arm("decoder: low blocks", selection="low"),
        arm("decoder: high blocks", selection="high"),
        arm(SCRATCH, scratch=True),
    ]


def ratios(cells: dict[Cell, list[Line]], teacher: Any, workload: Workload) -> dict[Cell, float]:
    """Latency of each cell's first shape as a share of the dense model's, all interleaved; equal shapes once."""
    torch.set_num_threads(1)
    models, names = {}, {}
    for key, cell in cells.items():
        line = cell[0]
        depth = line.arm.architecture.decoder_layers
        names[key] = repr((depth, line.heads, line.neurons))
        kept = [list(range(count)) for count in line.heads], [list(range(count)) for count in line.neurons]
        models[names[key]] = pruner.cut(pruner.shorten(teacher, depth), *kept)
    taken = latency.measure_many(models, teacher, workload, rounds=3, pairs=12, details=False)
    return {key: taken[name].ratio for key, name in names.items()}


def fronts(
    sft: dict[Cell, list[Line]], nash: dict[Cell, list[Line]], share: dict[Cell, float], deviation: float, freedom: int
) -> list[dict[str, Any]]:
    """At each latency of shrink-and-fine-tune, NASH's best that is as fast: difference and interval."""
    rows = []
    for key, cell in sorted(sft.items()):
        fast = [one for one in nash if share[one] <= share[key]]  # equal shapes share a timing
        best = max(fast, key=lambda one: float(values(nash[one]).mean()))
        change, low, high = difference(nash[best], cell, deviation, freedom)
        rows.append(
            {"n": key[0], "share": share[key], "quality": float(values(cell).mean())}
            | {"nash": best[:2], "nash_share": share[best], "nash_minus": [change, low, high]}
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/baselines/baselines.jsonl"))
    parser.add_argument("--grid", type=Path, default=Path("results/mild-sparsity/mild-sparsity.jsonl"))
    asked = parser.parse_args()
    seeds = range(asked.seeds)
    arms = [(n, s, arm) for seed in seeds for n, s in POINTS for arm in arms_at(n, s, seed)]
    arms += [
        (n, 0, Arm(name=SFT, architecture=architecture(n, 0), changes=PLAIN, seed=seed))
        for seed in seeds
        for n in SFT_DEPTHS
    ]
    lines = trained([arm for *_, arm in arms], asked.out)
    cells: dict[Cell, list[Line]] = {}
    for n, s, arm in arms:
        cells.setdefault((n, s, arm.name), []).append(lines[arm.key])
    nash: dict[Cell, list[Line]] = {}
    for line in read(asked.grid).values():
        where = line.arm.architecture
        nash.setdefault((where.decoder_layers, where.encoder_sparsity_pct, "grid"), []).append(line)
    every = [*cells.values(), *nash.values()]
    scratch, pruned = ([cell for cell in every if cell[0].arm.scratch is which] for which in (True, False))
    noise = {True: seed_deviation(scratch), False: seed_deviation(pruned)}  # from scratch, seeds differ much more
    deviation, freedom = noise[False]
    share = ratios(
        cells | nash, pruner.load(teacher_folder()), Workload(batch_size=64, input_tokens=8, output_tokens=7, threads=1)
    )
    print(f"standard deviation between seeds {deviation:.2f} ({freedom} degrees of freedom)\n")
    print("| point | arm | latency, share of dense | 100 - PER | NASH minus this | 95 % interval |")
    print("|---|---|---|---|---|---|")
    rows = []
    for (n, s, name), cell in cells.items():
        if (n, s) not in POINTS:
            continue
        change, low, high = difference(cells[n, s, NASH], cell, *noise[cell[0].arm.scratch])
        rows.append(
            {"n": n, "s_pct": s, "arm": name, "share": share[n, s, name], "quality": float(values(cell).mean())}
            | {"nash_minus": [change, low, high]}
        )
        print(
            f"| {n} blocks, {s} % | {name} | {share[n, s, name]:.3f} | {rows[-1]['quality']:.2f} "
            f"| {change:+.2f} | {low:+.2f} to {high:+.2f} |"
        )
    front = fronts({key: cell for key, cell in cells.items() if key[2] == SFT}, nash, share, deviation, freedom)
    print(
        "\n| shrink and fine-tune | latency, share of dense | 100 - PER | NASH as fast | its share | NASH minus this |"
    )
    print("|---|---|---|---|---|---|")
    for row in front:
        n, s = row["nash"]
        change, low, high = row["nash_minus"]
        print(
            f"| {row['n']} blocks | {row['share']:.3f} | {row['quality']:.2f} | {n} blocks, {s} % "
            f"| {row['nash_share']:.3f} | {change:+.2f} ({low:+.2f} to {high:+.2f}) |"
        )
    asked.out.with_suffix(".json").write_text(json.dumps({"arms": rows, "fronts": front}, indent=1) + "\n", "utf-8")
    by_arm: dict[str, list[Any]] = {}
    for row in rows:
        if row["arm"] not in (NASH, SCRATCH):  # twenty points away
            by_arm.setdefault(str(row["arm"]), []).append(row["nash_minus"])
    series = [f"{n} blocks, {s} % of the encoder removed" for n, s in POINTS]
    title = f"g2p: NASH minus each baseline, equal steps (95 % intervals, {asked.seeds} seeds)"
    forest(asked.out.with_suffix(".png"), title, "points of 100 - PER", by_arm, series, 0)
    return 0
