"""Do findings 2 and 3 hold on Multi30k?

2 decoder blocks, the encoder whole or 30 % narrower, against shrink-and-fine-tune. Equal steps everywhere (the search
space's recipe and its uniform blocks), three seeds; the latency of each shape in one run. Ours learn what the
teacher writes, shrink-and-fine-tune the references, at the recipe's learning rate and at a third of it, for the
recipe was tuned on ours. The bill: 4 arms x 3 seeds = 12 trainings of 3 to 11 minutes of CPU, 35 minutes of two cores.

Lines go to results/second-task/second-task.jsonl, the table for results/LOG.md to stdout, a picture beside the
lines.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from experiments.baselines import PLAIN, ratios
from experiments.shared.drawing import forest
from experiments.shared.trainings import Arm, Line, Setting, architecture, difference, seed_deviation, trained, values
from nash_search import pruner
from nash_search.config import Workload
from nash_search.recipes import PruningRecipe

BILL = "40 minutes (12 trainings)"

CONFIG, TEACHER, BLOCKS = "multi30k-en-de", "results/multi30k-en-de/teacher", 2
NASH = "NASH, 30 % of the encoder removed"
SFT = "shrink and fine-tune"
WORKLOAD = Workload(batch_size=16, input_tokens=16, output_tokens=16)
"""The committed study's."""


def arms_of(seed: int, recipe: PruningRecipe, **changes: object) -> list[Arm]:
    """Every arm of a seed."""
    plain = PLAIN | {"labels": "data"}
    third = {name: getattr(recipe, name) / 3 for name in ("learning_rate", "tune_learning_rate")}

    def arm(name: str, sparsity_pct: int, **own: object) -> Arm:
        where = architecture(BLOCKS, sparsity_pct, "uniform")
        return Arm(name=name, architecture=where, changes=changes | own, seed=seed)

    return [
        arm(NASH, 30),
        arm(SFT, 0, **plain),
        arm(f"{SFT}, a third of the rate", 0, **plain | third),
        arm(f"{SFT}, distilled (s* = 0)", 0),
    ]


def arguments(description: str) -> argparse.ArgumentParser:
    """Which task, data and teacher."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", help="folder of its JSONL files, columns `source` and `target` (default: the hub's)")
    parser.add_argument("--config", default=CONFIG)
    parser.add_argument("--model", default=TEACHER)
    return parser


def setting_of(asked: argparse.Namespace) -> Setting:
    """What the arguments say."""
    task = {"data": asked.data, "source_column": "source", "target_column": "target"} if asked.data else {}
    return Setting(config=asked.config, model=asked.model, task=task)


def main() -> int:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, nargs=2, metavar=("NARROW", "TUNE"), help="instead of the recipe's")
    parser.add_argument("--out", type=Path, default=Path("results/second-task/second-task.jsonl"))
    asked = parser.parse_args()
    changes = {"narrow_steps": asked.steps[0], "tune_steps": asked.steps[1]} if asked.steps else {}
    setting = setting_of(asked)
    arms = [arm for seed in range(asked.seeds) for arm in arms_of(seed, setting.configured().recipe, **changes)]
    lines = trained(arms, asked.out, setting)
    cells: dict[tuple[int, int, str], list[Line]] = {}
    for arm in arms:
        where = arm.architecture
        cells.setdefault((BLOCKS, where.encoder_sparsity_pct, arm.name), []).append(lines[arm.key])
    deviation, freedom = seed_deviation(list(cells.values()))
    share = ratios(cells, pruner.load(asked.model), WORKLOAD)
    print(f"standard deviation between seeds {deviation:.2f} ({freedom} degrees of freedom)\n")
    print("| arm | latency, share of dense | quality | NASH minus this | 95 % interval |\n|---|---|---|---|---|")
    rows = []
    for key, cell in cells.items():
        change, low, high = difference(cells[BLOCKS, 30, NASH], cell, deviation, freedom)
        rows.append(
            {"arm": key[2], "s_pct": key[1], "share": share[key], "quality": values(cell).tolist()}
            | {"nash_minus": [change, low, high]}
        )
        print(
            f"| {key[2]} | {share[key]:.3f} | {values(cell).mean():.2f} | {change:+.2f} | {low:+.2f} to {high:+.2f} |"
        )
    asked.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    changes_by_arm = {str(row["arm"]).split(" (")[0]: [row["nash_minus"]] for row in rows if row["arm"] != NASH}
    title = f"Multi30k: NASH (2 blocks, 30 % removed) minus each, {asked.seeds} seeds"
    forest(asked.out.with_suffix(".png"), title, "points of BLEU on validation", changes_by_arm, ["NASH minus"], 0)
    return 0
