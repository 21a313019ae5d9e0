"""A winner of the short search is trained on at length: from its own weights, or anew?

Two architectures (a 70 % and a 50 % winner of the g2p search), two seeds. Each is trained as a trial is; then either
its weights are trained on, the rate raised again over the first 5 % of the steps (`on`), or the same architecture is
trained anew by the recipe with all its steps multiplied (`anew`). Compared at equal further steps: `on` keeps what it
had. The rungs of every training are kept: they say whether a curve foretells a longer training.
The bill: about an hour and a half of one core.

Lines go to results/finish/g2p.jsonl, the table for results/LOG.md to stdout.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from experiments.shared.trainings import WORK, architecture
from nash_search import pruner
from nash_search.config import Architecture, Frozen, digest
from nash_search.config_loader import load_config
from nash_search.pruner.distillation import Distillation
from nash_search.pruner.training import Group, Optimization, TrainingContext, Watch, linear_decay, train
from nash_search.recipes import PruningRecipe
from nash_search.tasks.g2p import teacher_folder
from nash_search.tasks.load import load_task
from nash_search.tasks.models import find_model, load_tokenizer
from nash_search.tasks.scoring import generate, measured, score
from nash_search.trial.nash_evaluator import RUNG_EXAMPLES

BILL = "an hour and a half of one core (22 trainings)"

ARCHITECTURES = (architecture(1, 0), architecture(3, 20))
TRIAL = {"narrow_steps": 250, "tune_steps": 350}
"""A trial's steps."""
WARM_UP = 0.05
"""Share of the further steps over which the rate rises again."""


class Arm(Frozen):
    """One model: the trial's recipe times `length`, and `on` further steps from there."""

    architecture: Architecture
    seed: int = 0
    length: float = 1.0
    on: int = 0

    @property
    def key(self) -> str:
        """Identity of the line."""
        return digest(self.model_dump(mode="json"))[:16]


class Line(Frozen):
    """What it came to."""

    key: str
    arm: Arm
    steps: int
    """Of the last training, those of the trial before it left out."""
    quality: float
    errors: tuple[int, ...]
    """Wrong phonemes of each validation example."""
    curve: tuple[tuple[int, float, float], ...]
    """Step, quality of the first 512 examples, its standard error, at the rungs of the last training."""
    train_s: float
    """CPU seconds of it, its rungs left out."""


def arms() -> list[Arm]:
    """Trials and what is worth most first, seed by seed."""
    found = []
    for lengths, further in (((1,), (1200,)), ((2, 3), ()), ((), (600, 1800)), ((4, 0.5), ())):
        for seed in (0, 1):
            for where in ARCHITECTURES:
                found += [Arm(architecture=where, seed=seed, length=n) for n in lengths]
                found += [Arm(architecture=where, seed=seed, on=n) for n in further]
    return found


class Bench:
    """The task, its teacher and recipe."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.config = load_config("g2p", {f"recipe.{stage}": steps for stage, steps in TRIAL.items()})
        self.teacher = pruner.load(teacher_folder()).eval()
        self.task = load_task(self.config.task, load_tokenizer(find_model(str(teacher_folder()), None)))

    def line(self, arm: Arm) -> Line:
        """Train one arm and score it on every validation example."""
        given = self.config.recipe
        steps = {name: round(arm.length * getattr(given, name)) for name in ("narrow_steps", "tune_steps")}
        recipe = given.model_copy(update=steps)
        self.curve: list[tuple[int, float, float]] = []
        self.began, self.aside_s = time.process_time(), 0.0
        folder = WORK / "finish" / digest([arm.architecture.slug, arm.seed, steps])[:16]
        folder.mkdir(parents=True, exist_ok=True)
        context = TrainingContext(
            seed=arm.seed,
            folder=folder,  # a trial that was trained before is read from there
            teacher_cache=pruner.TeacherCache(folder=WORK / "teacher-g2p"),
            on_rung=self._rung,
        )
        data = self.task.train_batches(recipe.batch_size, arm.seed)
        pruned = pruner.run(self.teacher, arm.architecture, recipe, data, context)
        student, done = pruned.model, recipe.trial_steps
        if arm.on:
            self.curve, self.began, self.aside_s = [], time.process_time(), 0.0
            self._train_on(student, pruned.shapes.decoder_blocks, arm, recipe, data, context)
            done = arm.on
        train_s = time.process_time() - self.began - self.aside_s
        texts = generate(student.eval(), self.task, self.task.validation.inputs)
        counts_NK = self.task.metric.statistics(texts, self.task.validation.references)
        return Line(
            key=arm.key,
            arm=arm,
            steps=done,
            quality=measured(self.task.metric, texts, self.task.validation.references)[0],
            errors=tuple(counts_NK[:, 0].astype(int).tolist()),
            curve=tuple(self.curve),
            train_s=train_s,
        )

    # 6 parameters beside the bench: all of them are what a training is
    def _train_on(
        self,
        student: Any,
        blocks: tuple[int, ...],
        arm: Arm,
        recipe: PruningRecipe,
        data: Any,
        context: TrainingContext,
    ) -> None:
        taught = Distillation(
            student, self.teacher, blocks, recipe, hidden=False, outputs=context.teacher_cache
        )  # fmt: skip
        rungs = {round(arm.on * (i + 1) / recipe.rungs) for i in range(recipe.rungs)}
        train(
            student,
            loss=lambda batch, step: taught.loss(batch),
            batches=lambda step: data(recipe.trial_steps + step),
            steps=arm.on,
            optimization=Optimization(
                groups=[Group(params=list(student.parameters()), lr=recipe.tune_learning_rate)],
                schedule=linear_decay(arm.on, round(WARM_UP * arm.on)),
                clip=recipe.grad_clip,
            ),
            seed=f"{arm.seed}/on",
            watch=Watch(rungs=rungs, on_rung=lambda step: self._rung(step, student)),
        )

    def _rung(self, step: int, model: Any) -> None:
        began = time.process_time()
        found = score(model, self.task, "validation", limit=RUNG_EXAMPLES)
        self.curve.append((step, found.value, found.standard_error))
        self.aside_s += time.process_time() - began


def read(path: Path) -> dict[str, Line]:
    """The lines there are; one that a kill cut short is left out."""
    texts = path.read_text("utf-8").splitlines() if path.exists() else []
    lines = [Line.model_validate_json(text) for text in texts if text.endswith("}")]
    return {line.key: line for line in lines}


def table(lines: dict[str, Line]) -> str:
    """Quality by further steps and by way, mean of the seeds there are, one row per architecture and way."""
    said = ["| architecture | way | steps | further steps | 100-PER, by seed | mean | CPU s |", "|---" * 7 + "|"]
    cells: dict[tuple[str, float, int], list[Line]] = {}
    for line in lines.values():
        cells.setdefault((line.arm.architecture.slug, line.arm.length, line.arm.on), []).append(line)
    for (slug, length, on), found in sorted(cells.items()):
        way = "on" if on else "trial" if length == 1 else "anew"
        values = [line.quality for line in sorted(found, key=lambda line: line.arm.seed)]
        seconds = sum(line.train_s for line in found) / len(found)
        said.append(
            f"| {slug} | {way} | {round(600 * length) + on} | {found[0].steps} | "
            f"{', '.join(f'{v:.2f}' for v in values)} | {sum(values) / len(values):.2f} | {seconds:.0f} |"
        )
    return "\n".join(said)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/finish/g2p.jsonl"))
    parser.add_argument("--table", action="store_true", help="print what there is, train nothing")
    asked = parser.parse_args()
    lines = read(asked.out)
    todo = [] if asked.table else [arm for arm in arms() if arm.key not in lines]
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    bench = Bench() if todo else None
    for arm in todo:
        assert bench is not None
        lines[arm.key] = line = bench.line(arm)
        with asked.out.open("a") as file:
            file.write(line.model_dump_json() + "\n")
            os.fsync(file.fileno())
        print(f"{arm.architecture.slug} seed {arm.seed} x{arm.length:g}+{arm.on}: {line.quality:.2f}", file=sys.stderr)
    print(table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
