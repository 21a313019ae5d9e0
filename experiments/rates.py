"""Does the best learning rate of a short training stay the best of a long one, and how much does length close?

What a calibration by short trainings rests on. One architecture (half the decoder blocks, 30 % of the encoder removed),
every rate x every number of steps (a fifth, the recipe's own, three times the recipe's), one seed, uniform blocks; both
stages at the same rate. By default g2p; `--config`, `--model`, `--data` name another task.
The bill: g2p about 20 minutes of two cores for 6 rates x 3 lengths, Multi30k about two hours.

Lines go to results/rates/NAME.jsonl, the table for results/LOG.md to stdout.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from scipy import stats

from experiments.shared.trainings import Arm, Line, Setting, architecture, trained
from nash_search import pruner
from nash_search.families import family_of
from nash_search.recipes import PruningRecipe
from nash_search.tasks.g2p import teacher_folder

BILL = "20 minutes for g2p (18 trainings), two hours for Multi30k"

SPARSITY_PCT = 30
LENGTHS = (0.2, 1.0, 3.0)
"""Steps of a training, as a multiple of the recipe's."""


def arms_of(recipe: PruningRecipe, rates: list[float], lengths: list[float], decoder_layers: int) -> list[Arm]:
    """Every rate at every length, the short ones first: they are what a calibration would see."""
    where = architecture(decoder_layers, SPARSITY_PCT, "uniform")

    def arm(rate: float, length: float) -> Arm:
        steps = {name: max(1, round(length * getattr(recipe, name))) for name in ("narrow_steps", "tune_steps")}
        return Arm(
            name=f"{sum(steps.values())} steps at {rate:g}",
            architecture=where,
            changes={"learning_rate": rate, "tune_learning_rate": rate, "labels": "data"} | steps,
        )

    return [arm(rate, length) for length in lengths for rate in rates]


def table(lines: dict[str, Line], arms: list[Arm], rates: list[float]) -> str:
    """Quality by rate and length; then each length's rank agreement with the longest, and what its pick loses there."""
    rows = [arms[i : i + len(rates)] for i in range(0, len(arms), len(rates))]
    quality = [[lines[arm.key].quality for arm in row] for row in rows]
    head = " | ".join(f"{rate:g}" for rate in rates)
    said = [f"| steps | {head} | CPU s |", "|---" * (len(rates) + 2) + "|"]
    for row, found in zip(rows, quality, strict=True):
        steps = row[0].name.split()[0]
        seconds = sum(lines[arm.key].train_s for arm in row)
        said.append(f"| {steps} | {' | '.join(f'{q:.2f}' for q in found)} | {seconds:.0f} |")
    longest = quality[-1]
    for row, found in zip(rows[:-1], quality, strict=False):
        pick = max(range(len(rates)), key=found.__getitem__)
        agreement = float(stats.spearmanr(found, longest).statistic)
        said.append(
            f"\nby {row[0].name.split()[0]} steps {rates[pick]:g} is picked: rank agreement with the longest "
            f"{agreement:.2f}, {max(longest) - longest[pick]:.2f} below the best there"
        )
    return "\n".join(said)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="g2p")
    parser.add_argument("--model", help="folder of the teacher (default: g2p's own)")
    parser.add_argument("--data", help="folder of JSONL files, columns `source` and `target`")
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3])
    parser.add_argument("--lengths", type=float, nargs="+", default=list(LENGTHS))
    parser.add_argument("--out", type=Path, help="default: results/rates/CONFIG.jsonl")
    asked = parser.parse_args()
    task = {"data": asked.data, "source_column": "source", "target_column": "target"} if asked.data else {}
    setting = Setting(config=asked.config, model=asked.model, task=task)
    teacher = pruner.load(asked.model or teacher_folder())
    half = len(family_of(teacher).decoder_blocks(teacher)) // 2
    arms = arms_of(setting.configured().recipe, asked.rates, asked.lengths, half)
    lines = trained(arms, asked.out or Path(f"results/rates/{asked.config}.jsonl"), setting)
    print(table(lines, arms, asked.rates))
    return 0


if __name__ == "__main__":
    sys.exit(main())
