"""Is NASH better than shrink-and-fine-tune where each finds its own recipe, in the same training seconds?

    calibrations   one for each method, on its own losses and a shape of two blocks: rates, and whose labels it learns
    NASH           the search space's steps (g2p: 600): distilled, the encoder whole or 70 % narrower
    the other      blocks dropped, cross-entropy alone, the encoder whole, as many steps as take NASH's seconds

Three pairs, three seeds: two and three blocks of both (the same latency), and a latency between two depths, where NASH
keeps two blocks and narrows the encoder and the other keeps one. The other is trained twice: as long as NASH's steps
take that ask their teacher anew ("alone"), and that share its answers with a study's other trials ("shared"). Eager, at
the committed study's workload. Multi30k: `--config multi30k-en-de --data FOLDER --model
results/multi30k-en-de/teacher`. Lines go to results/equal-recipes, the table to stdout.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.baselines import NASH, PLAIN, SFT, Cell, ratios
from experiments.calibration import calibrated
from experiments.second_task import CONFIG, WORKLOAD, setting_of
from experiments.shared.drawing import forest
from experiments.shared.trainings import Arm, Line, Setting, architecture, difference, seed_deviation, trained, values
from nash_search import pruner
from nash_search.calibration_record import Setting as Rates
from nash_search.config import SearchConfig, Workload
from nash_search.pruner.training import TrainingContext
from nash_search.tasks.g2p import teacher_folder
from nash_search.tasks.load import load_task
from nash_search.tasks.models import find_model, load_tokenizer

BILL = "half an hour for g2p, an hour and a half for Multi30k (27 trainings each)"

OUT = Path("results/equal-recipes")
PAIRS = {"2 blocks": ((2, 0), 2), "3 blocks": ((3, 0), 3), "between 1 and 2 blocks": ((2, 70), 1)}
"""NASH's decoder blocks and percent off the encoder; the other's blocks, which take about as long or less."""
START = 5e-4
"""Rate that both calibrations begin with."""
PILOT_STEPS = 20
WORKLOADS = {
    "g2p": Workload(batch_size=64, input_tokens=8, output_tokens=7),
    CONFIG: WORKLOAD,
}


def affordable(steps: int, nash_step_s: float, step_s: float) -> int:
    """Steps of `step_s` seconds in the seconds of so many of NASH's."""
    return max(1, round(steps * nash_step_s / step_s))


def step_s(teacher: Any, task: Any, config: SearchConfig, arm: Arm, trials: int = 1) -> float:
    """CPU seconds of one step of an arm in a study of so many trials, which share the teacher's answers."""
    recipe = config.recipe.model_copy(update={"rungs": 1, **arm.changes})
    batches = task.train_batches(recipe.batch_size, arm.seed)

    def one(context: TrainingContext) -> float:
        def seconds(steps: int) -> float:
            began = time.process_time()
            pruner.run(teacher, arm.architecture, recipe.at_length(steps), batches, context)
            return time.process_time() - began

        seconds(2 * PILOT_STEPS)  # fills what there is to remember
        return (seconds(2 * PILOT_STEPS) - seconds(PILOT_STEPS)) / PILOT_STEPS

    anew_s = one(TrainingContext(seed=arm.seed))
    if trials == 1 or not recipe.kd_weight:
        return anew_s
    with tempfile.TemporaryDirectory() as folder:
        known_s = one(TrainingContext(seed=arm.seed, teacher_cache=pruner.TeacherCache(folder=Path(folder))))
    return known_s + max(0.0, anew_s - known_s) / trials


def arms_of(config: SearchConfig, rates: Mapping[str, Rates], steps: Mapping[str, Sequence[int]]) -> list[Arm]:
    """One seed's arms: NASH's in the order of `PAIRS`, then the other's, as often as it is trained.

    Args:
        config: its recipe and way to choose decoder blocks.
        rates: by method.
        steps: of the other in the order of `PAIRS`, by how NASH's are counted; NASH's own are the recipe's.
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
            changes=PLAIN | rates[SFT].model_dump() | {"narrow_steps": 0, "tune_steps": count},
        )
        for counts in steps.values()
        for (_, blocks), count in zip(PAIRS.values(), counts, strict=True)
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
    setting = setting_of(asked)
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
    steps = _steps(place.with_suffix(".steps.json"), setting, teacher, rates, asked.trials)
    once = arms_of(config, rates, steps)
    arms = [arm.model_copy(update={"seed": seed}) for seed in range(asked.seeds) for arm in once]
    lines = trained(arms, place.with_suffix(".jsonl"), setting)
    by_arm = [[lines[a.key] for a in arms[index :: len(once)]] for index in range(len(once))]
    cells: dict[Cell, list[Line]] = {}
    for arm, cell in zip(once, by_arm, strict=True):  # equal shapes share a timing
        cells[arm.architecture.decoder_layers, arm.architecture.encoder_sparsity_pct, arm.name] = cell
    share = ratios(cells, teacher, WORKLOADS[asked.config])
    deviation, freedom = seed_deviation(by_arm)
    print(f"standard deviation between seeds {deviation:.2f} ({freedom} degrees of freedom)\n")
    print(
        "| latency of | NASH | its share | train s | the other, NASH's steps counted | its share | train s | steps "
        "| NASH minus it |"
    )
    print("|" + "---|" * 9)
    rows: dict[str, list[tuple[float, float, float]]] = {pair: [] for pair in PAIRS}
    for turn, (way, counts) in enumerate(steps.items()):
        for index, (pair, (nash, blocks)) in enumerate(PAIRS.items()):
            ours, theirs = by_arm[index], by_arm[len(PAIRS) * (turn + 1) + index]
            rows[pair].append(difference(ours, theirs, deviation, freedom))
            mean, low, high = rows[pair][-1]
            a, b = (
                f"{values(c).mean():.2f} | {{:.3f}} | {np.mean([line.train_s for line in c]):.0f}"
                for c in (ours, theirs)
            )
            told = f"{a.format(share[*nash, NASH])} | {way}: {b.format(share[blocks, 0, SFT])}"
            print(f"| {pair} | {told} | {counts[index]} | {mean:+.2f} ({low:+.2f} to {high:+.2f}) |")
    place.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    title = f"{asked.config}: NASH minus shrink-and-fine-tune, each by its own recipe, {asked.seeds} seeds"
    forest(
        place.with_suffix(".png"),
        title,
        f"points of {config.task.metric or 'quality'}",
        rows,
        [f"teacher {way}" for way in steps],
        0,
    )
    return 0


def _steps(kept: Path, setting: Setting, teacher: Any, rates: Mapping[str, Rates], trials: int) -> dict[str, list[int]]:
    """The other's steps in the order of `PAIRS`, by how NASH's are counted; kept: a rerun trains the same."""
    config = setting.configured()
    found: dict[str, Any] = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    folder = setting.model or str(teacher_folder())
    task = load_task(config.task, load_tokenizer(find_model(folder, None)))
    arms = arms_of(config, rates, {"alone": [1] * len(PAIRS)})
    split = {"narrow_steps": config.recipe.narrow_steps, "tune_steps": config.recipe.tune_steps}
    arms = [arm.model_copy(update={"changes": arm.changes | split}) for arm in arms]
    for way, sharing in (("alone", 1), ("shared", trials)):
        if way not in found:
            taken = [step_s(teacher, task, config, arm, sharing) for arm in arms]
            pairs = zip(taken[: len(PAIRS)], taken[len(PAIRS) :], strict=True)
            counts = [affordable(config.recipe.trial_steps, ours, theirs) for ours, theirs in pairs]
            found[way] = {"step_s": taken, "steps": counts}
            kept.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return {way: found[way]["steps"] for way in ("alone", "shared")}
