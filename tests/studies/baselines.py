"""NASH against its baselines and its own ablations, at equal steps; latency of every shape in one run.

Arms at two points of the default task's front, (3 blocks, 30 %) and (2 blocks, 50 %), three seeds each; those that
leave the encoder whole are at the same depths, so their latency differs and stands beside them. NASH's own front
and shrink-and-fine-tune's are compared at equal measured latency by interpolation.
The bill: 2 points x 12 arms x 3 seeds = 72 trainings of about 75 s of CPU, 45 minutes of two cores.

Lines go to results/reference/baselines.jsonl, the table for results/LOG.md to stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from trainings import Arm, Line, architecture, difference, seed_deviation, trained, values

from nash_search import latency, pruner
from nash_search.config import Workload
from nash_search.tasks.g2p import teacher_folder

POINTS = ((3, 30), (2, 50))
PLAIN = {"kd_weight": 0.0, "hidden_weight": 0.0, "ce_weight": 1.0}


def arms_at(n: int, s: int, seed: int) -> list[Arm]:
    """Every arm of one point and seed."""

    def arm(name: str, sparsity: int = s, selection: str = "scored", scratch: bool = False, **changes: object) -> Arm:
        where = architecture(n, sparsity, selection)
        return Arm(name=name, architecture=where, changes=changes, scratch=scratch, seed=seed)

    return [
        arm("NASH (trained gates)"),
        arm("shrink and fine-tune", sparsity=0, **PLAIN),
        arm("shrink and fine-tune, distilled", sparsity=0),
        arm("magnitude cut", narrowing="magnitude"),
        arm("Fisher cut", narrowing="fisher"),
        arm("random cut (no gates)", narrowing="random"),
        arm("no distillation", **PLAIN),
        arm("no final tune", narrow_steps=600, tune_steps=0),
        arm("decoder: uniform (the paper)", selection="uniform"),
        arm("decoder: low blocks", selection="low"),
        arm("decoder: high blocks", selection="high"),
        arm("small model from scratch", scratch=True),
    ]


def ratios(cells: dict[tuple[int, int, str], list[Line]]) -> dict[tuple[int, int, str], float]:
    """Latency of each cell's first shape as a share of the dense model's, all interleaved."""
    torch.set_num_threads(1)
    teacher = pruner.load(teacher_folder()).eval()
    models = {}
    for key, cell in cells.items():
        line = cell[0]
        short = pruner.shorten(teacher, line.arm.architecture.decoder_layers)
        kept = [list(range(count)) for count in line.heads], [list(range(count)) for count in line.neurons]
        models["|".join(map(str, key))] = pruner.cut(short, *kept)
    workload = Workload(batch_size=64, input_tokens=8, output_tokens=7, threads=1, device="cpu")
    taken = latency.measure_many(models, teacher, workload, rounds=3, pairs=12, details=False)
    return {key: taken["|".join(map(str, key))].ratio for key in cells}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/reference/baselines.jsonl"))
    asked = parser.parse_args()
    arms = [(n, s, arm) for seed in range(asked.seeds) for n, s in POINTS for arm in arms_at(n, s, seed)]
    lines = trained([arm for *_, arm in arms], asked.out)
    cells: dict[tuple[int, int, str], list[Line]] = {}
    for n, s, arm in arms:
        cells.setdefault((n, s, arm.name), []).append(lines[arm.key])
    deviation, freedom = seed_deviation(list(cells.values()))
    share = ratios(cells)
    print(f"standard deviation between seeds {deviation:.2f} ({freedom} degrees of freedom)\n")
    print("| point | arm | latency, share of dense | 100 - PER | NASH minus this | 95 % interval |")
    print("|---|---|---|---|---|---|")
    rows = []
    for (n, s, name), cell in cells.items():
        change, low, high = difference(cells[n, s, "NASH (trained gates)"], cell, deviation, freedom)
        rows.append(
            {"n": n, "s_pct": s, "arm": name, "share": share[n, s, name], "quality": float(values(cell).mean())}
            | {"nash_minus": [change, low, high]}
        )
        print(
            f"| {n} blocks, {s} % | {name} | {share[n, s, name]:.3f} | {rows[-1]['quality']:.2f} "
            f"| {change:+.2f} | {low:+.2f} to {high:+.2f} |"
        )
    asked.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
