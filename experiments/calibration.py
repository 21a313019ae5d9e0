"""Does a calibration find rates as good as a full grid's, from whatever rate it starts?

One architecture. The grid: six rates on the data's targets and on the teacher's answers, each trained as long as a
trial. The calibration: `nash-search` itself on a space of that one architecture, started from each of `--starts`; what
it picks is then trained as long as a trial too. Differences are paired by example (one seed, uniform blocks).
The bill: g2p 20 minutes of two cores, Multi30k an hour and a half.

Lines go to results/calibration/NAME.jsonl, calibrations beside them, the table for results/LOG.md to stdout.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import numpy as np

from experiments.shared.trainings import Arm, Line, Setting, architecture, trained
from nash_search import pruner
from nash_search.calibration_record import Calibration
from nash_search.config import LatencyBudget, SearchSpace
from nash_search.families import family_of
from nash_search.intervals import half_width
from nash_search.recipes import PruningRecipe
from nash_search.search import search, short_trainings
from nash_search.search.calibration import FILE
from nash_search.tasks.g2p import teacher_folder

BILL = "20 minutes for g2p, an hour and a half for Multi30k"

OUT = Path("results/calibration")
LABELS = ("data", "teacher")


class Found(Exception):
    """The calibration is done; the rest of the search is not needed."""


class Stop:
    """Ends a search when its calibration is done."""

    def on_stage(self, stage: str, detail: dict[str, object]) -> None:
        if stage == "calibrated":
            print(detail, file=sys.stderr, flush=True)
        if stage == "search":
            raise Found

    def on_trial(self, *of: object) -> None:
        """There is none."""

    def on_progress(self, *of: object) -> None:
        """Not shown."""


def calibrated(
    setting: Setting, recipe: PruningRecipe, where: Arm, start: float, trials: int, place: Path
) -> Calibration:
    """What a search on this one architecture finds, started from one rate; kept in a file."""
    kept = place.with_suffix(f".from-{start:g}.json")
    if not kept.exists():
        begins = {"learning_rate": start, "tune_learning_rate": start, "labels": "data", "calibrate": True}
        space = where.architecture
        config = setting.configured().model_copy(
            update={
                "model": setting.model,
                "recipe": recipe.model_copy(update=begins),
                "search_space": SearchSpace(  # the smallest that holds it; which one is trained is said below
                    encoder_sparsity_pct=(0, space.encoder_sparsity_pct, space.encoder_sparsity_pct or 1),
                    decoder_layers=(space.decoder_layers,),
                    decoder_selection=(space.decoder_selection,),
                ),
                "budgets": (LatencyBudget.parse("99%"),),
                "trials": trials,
                "engines": False,
                "study": "calibration",
            }
        )
        scratch = OUT.parent / f".{kept.stem}"  # no study before it may lend it what it found
        shutil.rmtree(scratch, ignore_errors=True)
        chosen = patch.object(short_trainings, "middle", lambda *of: space)
        with chosen, suppress(Found):
            search(config, results=scratch, listeners=[Stop()])
        shutil.copyfile(scratch / "calibration" / FILE, kept)
        shutil.rmtree(scratch)
    return Calibration.model_validate_json(kept.read_bytes())


def difference(one: Line, other: Line) -> tuple[float, float]:
    """Mean difference in quality, and half of its 95 % interval, paired by example."""
    change_N = one.contributions_N - other.contributions_N
    return one.quality - other.quality, half_width(float(np.std(change_N, ddof=1)) / len(change_N) ** 0.5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="g2p")
    parser.add_argument("--model", help="folder of the teacher (default: g2p's own)")
    parser.add_argument("--data", help="folder of JSONL files, columns `source` and `target`")
    parser.add_argument("--blocks", type=int, help="decoder blocks kept (default: half)")
    parser.add_argument("--sparsity", type=int, default=30, help="percent of the encoder removed")
    parser.add_argument("--steps", type=int, nargs=2, metavar=("NARROW", "TUNE"), help="instead of the recipe's")
    parser.add_argument("--trials", type=int, help="of the search that pays for it (default: the space's)")
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3])
    parser.add_argument("--labels", nargs="+", default=list(LABELS), help="of the grid")
    parser.add_argument("--starts", type=float, nargs="+", default=[5e-4])
    parser.add_argument("--name", help="default: the config's")
    asked = parser.parse_args()
    task = {"data": asked.data, "source_column": "source", "target_column": "target"} if asked.data else {}
    setting = Setting(config=asked.config, model=asked.model, task=task)
    teacher = pruner.load(asked.model or teacher_folder())
    blocks = asked.blocks or len(family_of(teacher).decoder_blocks(teacher)) // 2
    recipe = setting.configured().recipe
    if asked.steps:
        recipe = recipe.model_copy(update={"narrow_steps": asked.steps[0], "tune_steps": asked.steps[1]})
    steps = {name: getattr(recipe, name) for name in ("narrow_steps", "tune_steps")}
    where, place = architecture(blocks, asked.sparsity, "uniform"), OUT / f"{asked.name or asked.config}.jsonl"

    def arm(rate: float, tune_rate: float, labels: str) -> Arm:
        changes = {"learning_rate": rate, "tune_learning_rate": tune_rate, "labels": labels}
        return Arm(name=f"{labels} at {rate:g}/{tune_rate:g}", architecture=where, changes=changes | steps)

    place.parent.mkdir(parents=True, exist_ok=True)
    trials = asked.trials or setting.configured().trials
    any_arm = arm(asked.rates[0], asked.rates[0], "data")
    found = {start: calibrated(setting, recipe, any_arm, start, trials, place) for start in asked.starts}
    picks = {start: arm(*c.chosen.model_dump().values()) for start, c in found.items()}
    grid = [arm(rate, rate, labels) for labels in asked.labels for rate in asked.rates]
    lines = trained([*picks.values(), *grid], place, setting)
    best = max((lines[a.key] for a in grid), key=lambda line: line.quality)
    grid_s = sum(lines[a.key].train_s for a in grid)
    print(f"| labels | {' | '.join(f'{rate:g}' for rate in asked.rates)} |\n{'|---' * (1 + len(asked.rates))}|")
    for labels in asked.labels:
        print(f"| {labels} | {' | '.join(f'{lines[arm(r, r, labels).key].quality:.2f}' for r in asked.rates)} |")
    print(f"\nthe grid: {grid_s:.0f} s of CPU; best {best.arm.name}, {best.quality:.2f}")
    for start, pick in picks.items():
        mean, half = difference(lines[pick.key], best)
        said = (
            f"from {start:g}: {pick.name}, {lines[pick.key].quality:.2f}, {mean:+.2f} ± {half:.2f} to the grid's best"
        )
        print(f"{said}; {len(found[start].trainings)} short trainings, {found[start].seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
