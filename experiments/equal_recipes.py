"""Is NASH better than shrink-and-fine-tune where each finds its own recipe, in the same training seconds?

    calibrations   one for each method, on its own losses and a shape of two blocks: rates, and whose labels it learns
    NASH           the search space's steps (g2p: 600): distilled, the encoder whole or 70 % narrower
    the other      blocks dropped, cross-entropy alone, the encoder whole, as many steps as take NASH's seconds

Three pairs, three seeds: two and three blocks of both (the same latency), and a latency between two depths, where NASH
keeps two blocks and narrows the encoder and the other keeps one. A step's seconds are those of a few steps of either
alone: NASH's has its teacher's pass in it, which a study's trials share, so the other is given rather more. Eager,
at the committed study's workload. Bill for g2p: two calibrations, 18 trainings. Multi30k: `--config multi30k-en-de
--data FOLDER --model results/multi30k-en-de/teacher`. Lines go to results/equal-recipes, the table to stdout.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from experiments.baselines import NASH, PLAIN, SFT, Cell, ratios
from experiments.calibration import calibrated
from experiments.shared.drawing import forest
from experiments.shared.trainings import Arm, Line, Setting, architecture, difference, seed_deviation, trained, values
from nash_search import pruner
from nash_search.calibration_record import Setting as Rates
from nash_search.config import SearchConfig, Workload
from nash_search.pruner.training import TrainingContext
from nash_search.tasks.g2p import teacher_folder
from nash_search.tasks.load import load_task
from nash_search.tasks.models import find_model, load_tokenizer

BILL = "45 minutes for g2p, an hour and a half for Multi30k (18 trainings each)"

OUT = Path("results/equal-recipes")
PAIRS = {"2 blocks": ((2, 0), 2), "3 blocks": ((3, 0), 3), "between 1 and 2 blocks": ((2, 70), 1)}
"""NASH's decoder blocks and percent off the encoder; the other's blocks, which take about as long or less."""
START = 5e-4
"""Rate that both calibrations begin with."""
PILOT_STEPS = 20
WORKLOADS = {
    "g2p": Workload(batch_size=64, input_tokens=8, output_tokens=7),
    "multi30k-en-de": Workload(batch_size=16, input_tokens=16, output_tokens=16),
}


def affordable(steps: int, nash_step_s: float, step_s: float) -> int:
    """Steps of `step_s` seconds in the seconds of so many of NASH's."""
    return max(1, round(steps * nash_step_s / step_s))


def step_s(teacher: Any, task: Any, config: SearchConfig, arm: Arm) -> float:
    """CPU seconds of one step of an arm, nothing of the teacher's remembered; the first steps are not counted."""
    recipe = config.recipe.model_copy(update={"rungs": 1, **arm.changes})
    batches = task.train_batches(recipe.batch_size, arm.seed)

    def seconds(steps: int) -> float:
        began = time.process_time()
        pruner.run(teacher, arm.architecture, recipe.at_length(steps), batches, TrainingContext(seed=arm.seed))
        return time.process_time() - began

    seconds(2)
    return (seconds(2 * PILOT_STEPS) - seconds(PILOT_STEPS)) / PILOT_STEPS


def arms_of(config: SearchConfig, rates: Mapping[str, Rates], steps: Mapping[tuple[str, int], int]) -> list[Arm]:
    """One seed's arms: NASH's, then the other's, in the order of `PAIRS`.

    Args:
        config: its recipe and way to choose decoder blocks.
        rates: by method.
        steps: of the other, by pair and its blocks; NASH's are the recipe's.
    """
    selection = config.search_space.decoder_selection[0]
    ours = [
        Arm(name=NASH, architecture=architecture(*nash, selection), changes=rates[NASH].model_dump())
        for nash, _ in PAIRS.values()
    ]
    theirs = [
        Arm(
            name=SFT,
            architecture=architecture(blocks, 0, selection),
            changes=PLAIN | rates[SFT].model_dump() | {"narrow_steps": 0, "tune_steps": steps[pair, blocks]},
        )
        for pair, (_, blocks) in PAIRS.items()
    ]
    return [*ours, *theirs]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="g2p", choices=WORKLOADS)
    parser.add_argument("--model", help="folder of the teacher (g2p: the package's)")
    parser.add_argument("--data", help="folder of Multi30k's JSONL files, columns `source` and `target`")
    parser.add_argument("--trials", type=int, default=12, help="of the search that would pay for a calibration")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    task_fields = {"data": asked.data, "source_column": "source", "target_column": "target"} if asked.data else {}
    setting = Setting(config=asked.config, model=asked.model, task=task_fields)
    config, place = setting.configured(), asked.out / asked.config
    asked.out.mkdir(parents=True, exist_ok=True)
    selection = config.search_space.decoder_selection[0]
    recipes = {NASH: (config.recipe, 70), SFT: (config.recipe.model_copy(update=PLAIN), 0)}
    rates = {
        name: calibrated(
            setting, recipe, Arm(name=name, architecture=architecture(2, off, selection)), START, asked.trials,
            place.with_name(f"{place.name}-{'nash' if name == NASH else 'sft'}"),
        ).chosen
        for name, (recipe, off) in recipes.items()
    }  # fmt: skip
    for name, found in rates.items():
        print(f"{name}: {found.model_dump()}", flush=True)
    teacher = pruner.load(asked.model or teacher_folder()).eval()
    steps = _steps(place.with_suffix(".steps.json"), setting, teacher, rates)
    once = arms_of(config, rates, steps)
    arms = [arm.model_copy(update={"seed": seed}) for seed in range(asked.seeds) for arm in once]
    lines = trained(arms, place.with_suffix(".jsonl"), setting)
    by_arm = [[lines[a.key] for a in arms[index :: len(once)]] for index in range(len(once))]
    cells: dict[Cell, list[Line]] = {}
    for arm, cell in zip(once, by_arm, strict=True):
        cells[arm.architecture.decoder_layers, arm.architecture.encoder_sparsity_pct, arm.name] = cell
    share = ratios(cells, teacher, WORKLOADS[asked.config])
    deviation, freedom = seed_deviation(by_arm)
    print(f"standard deviation between seeds {deviation:.2f} ({freedom} degrees of freedom)\n")
    print(
        "| latency of | NASH | its share | train s | the other | its share | train s | steps | NASH minus the other |"
    )
    print("|" + "---|" * 9)
    rows = {}
    for pair, (nash, blocks) in PAIRS.items():
        ours, theirs = cells[*nash, NASH], cells[blocks, 0, SFT]
        mean, low, high = difference(ours, theirs, deviation, freedom)
        rows[pair] = [(mean, low, high)]
        told = [
            f"{values(cell).mean():.2f} | {share[key]:.3f} | {sum(line.train_s for line in cell) / len(cell):.0f}"
            for key, cell in (((*nash, NASH), ours), ((blocks, 0, SFT), theirs))
        ]
        print(f"| {pair} | {' | '.join(told)} | {steps[pair, blocks]} | {mean:+.2f} ({low:+.2f} to {high:+.2f}) |")
    place.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    title = f"{asked.config}: NASH minus shrink-and-fine-tune, each by its own recipe, {asked.seeds} seeds"
    forest(place.with_suffix(".png"), title, f"points of {config.task.metric or 'quality'}", rows, ["NASH minus"], 0)
    return 0


def _steps(kept: Path, setting: Setting, teacher: Any, rates: Mapping[str, Rates]) -> dict[tuple[str, int], int]:
    """The other's steps by pair and blocks, in a file: another run must not train other lengths."""
    config = setting.configured()
    if not kept.exists():
        folder = setting.model or str(teacher_folder())
        task = load_task(config.task, load_tokenizer(find_model(folder, None)))
        pairs = {(pair, blocks): 1 for pair, (_, blocks) in PAIRS.items()}
        arms = arms_of(config, rates, pairs)
        split = {"narrow_steps": config.recipe.narrow_steps, "tune_steps": config.recipe.tune_steps}
        arms = [arm.model_copy(update={"changes": arm.changes | split}) for arm in arms]
        found = [step_s(teacher, task, config, arm) for arm in arms]
        counts = [
            affordable(config.recipe.trial_steps, ours, theirs)
            for ours, theirs in zip(found[: len(PAIRS)], found[len(PAIRS) :], strict=True)
        ]
        kept.write_text(json.dumps({"step_s": found, "steps": counts}, indent=1) + "\n", "utf-8")
    counts = json.loads(kept.read_text("utf-8"))["steps"]
    return {(pair, blocks): count for (pair, (_, blocks)), count in zip(PAIRS.items(), counts, strict=True)}
