"""Does narrowing the encoder a little help quality? (the paper's second finding)

Every cell takes the same optimizer steps: where nothing is narrowed they all go to tuning, so s* = 0 is
shrink-and-fine-tune with distillation. Depths {1, 2, 3, 6} x sparsities {0, 10, 20, 30, 50, 70} x seeds.
The bill: 72 trainings of about 75 s of CPU, 45 minutes of two cores.

Prints a table for results/LOG.md: 100 - PER on validation, and the difference to s* = 0 with its 95 % interval
(paired by example, seeds pooled over cells). Lines go to results/mild-sparsity/mild-sparsity.jsonl, a picture
beside them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from experiments.shared.drawing import forest
from experiments.shared.trainings import Arm, Line, architecture, difference, seed_deviation, trained, values

BILL = "about an hour (72 trainings)"

DEPTHS = (1, 2, 3, 6)
SPARSITIES_PCT = (0, 10, 20, 30, 50, 70)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS)
    parser.add_argument("--sparsities-pct", type=int, nargs="+", default=SPARSITIES_PCT)
    parser.add_argument("--out", type=Path, default=Path("results/mild-sparsity/mild-sparsity.jsonl"))
    asked = parser.parse_args()
    arms = {
        (n, s, seed): Arm(name="nash", architecture=architecture(n, s), seed=seed)
        for seed in range(asked.seeds)  # a study cut short has whole seeds
        for n in asked.depths
        for s in asked.sparsities_pct
    }
    lines = trained(list(arms.values()), asked.out)
    cells: dict[tuple[int, int], list[Line]] = {}
    for (n, s, _), arm in arms.items():
        cells.setdefault((n, s), []).append(lines[arm.key])
    deviation, freedom = seed_deviation(list(cells.values()))
    print(f"standard deviation between seeds {deviation:.2f} ({freedom} degrees of freedom)\n")
    print("| decoder blocks | s* | 100 - PER | against s* = 0 | 95 % interval |\n|---|---|---|---|---|")
    rows = []
    for (n, s), cell in cells.items():
        change, low, high = difference(cell, cells[n, 0], deviation, freedom) if s else (0.0, 0.0, 0.0)
        rows.append({"n": n, "s_pct": s, "quality": float(values(cell).mean()), "change": [change, low, high]})
        against = f"{change:+.2f} | {low:+.2f} to {high:+.2f}" if s else "- | -"
        print(f"| {n} | {s} % | {rows[-1]['quality']:.2f} | {against} |")
    asked.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    rows_of = {
        f"{s} % removed": [next(r["change"] for r in rows if (r["n"], r["s_pct"]) == (n, s)) for n in asked.depths]
        for s in asked.sparsities_pct
        if s
    }
    title = f"g2p: quality against the whole encoder, equal steps (95 % intervals, {asked.seeds} seeds)"
    series = [f"{n} decoder block{'s'[: n > 1]}" for n in asked.depths]
    forest(asked.out.with_suffix(".png"), title, "points of 100 - PER", rows_of, series, 0)
    return 0
