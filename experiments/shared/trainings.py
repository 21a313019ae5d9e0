"""A table of trainings that a study needs: each done once, kept line by line, compared in pairs.

    Arm -> `pruner.run` (or a small model from scratch) -> validation errors of every example -> one JSON line

Any number of arms, on as many processes as there are cores; a killed study goes on after its last whole line.
Differences are paired twice over: by seed and by example. This module refuses to know which question is asked.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from nash_search import pruner
from nash_search.config import Architecture, Frozen, SearchConfig, digest
from nash_search.config_loader import load_config
from nash_search.pruner.distillation import cross_entropy, forward
from nash_search.pruner.training import Group, Optimization, TrainingContext, train
from nash_search.recipes import PruningRecipe
from nash_search.tasks.g2p import teacher_folder
from nash_search.tasks.load import load_task
from nash_search.tasks.models import find_model, load_tokenizer
from nash_search.tasks.scoring import generate, measured
from nash_search.trial.nash_evaluator import PROTOCOL

WORK = Path("results") / "evidence-work"
"""What the teacher says about each batch, shared by all trainings of all studies (git ignores it)."""


class Arm(Frozen):
    """One training: an architecture, what differs from the recipe, a seed."""

    name: str
    architecture: Architecture
    changes: dict[str, Any] = {}
    """Recipe fields that are not the search space's."""
    scratch: bool = False
    """A random model of the same shape on labels alone, instead of the teacher's blocks."""
    seed: int = 0

    @property
    def key(self) -> str:
        """Identity of the line."""
        return digest(self.model_dump(mode="json"))[:16]


class Line(Frozen):
    """What one training came to."""

    key: str
    arm: Arm
    quality: float
    errors: tuple[int, ...] = ()
    """PER: wrong phonemes of each validation example; empty where the metric is another."""
    size: int = 0
    """PER: phonemes of the references."""
    influence: tuple[float, ...] = ()
    """Any other metric: what each validation example adds to the quality, by `influence`; their mean is about it."""
    heads: tuple[int, ...]
    neurons: tuple[int, ...]
    parameters: int
    train_s: float
    undecided_share: float | None = None
    recipe: PruningRecipe | None = None
    """What it was trained by (None: a line from before this was kept)."""
    protocol: int = 3
    """How a trial trained then (`search.evaluator.PROTOCOL`); from 4 on stage 4 distils the whole distribution."""

    @property
    def contributions_N(self) -> np.ndarray:
        """What each example adds to the quality; a mean of them."""
        if self.influence:
            return np.array(self.influence)
        return 100 - 100 * np.array(self.errors) / (self.size / len(self.errors))


def architecture(decoder_layers: int, encoder_sparsity_pct: int, selection: str = "scored") -> Architecture:
    """Shorthand."""
    return Architecture.model_validate(
        {
            "decoder_layers": decoder_layers,
            "encoder_sparsity_pct": encoder_sparsity_pct,
            "decoder_selection": selection,
        }
    )


class Setting(Frozen):
    """Which task, data and teacher a table of trainings is about."""

    config: str = "g2p"
    model: str | None = None
    """Folder of the teacher (None: the default task's)."""
    task: dict[str, str] = {}
    """Fields of the search space's `task` that differ (`data`, its columns); the others stay."""

    def configured(self) -> SearchConfig:
        """The search space with them; g2p's trials have the steps that its tables were made by."""
        steps = {"recipe.narrow_steps": 250, "recipe.tune_steps": 350} if self.config == "g2p" else {}
        return load_config(self.config, steps | {f"task.{name}": value for name, value in self.task.items()})

    def recipe_of(self, arm: Arm) -> PruningRecipe:
        """How an arm is trained: as the search space's trials are, but for what the arm changes."""
        return self.configured().recipe.model_copy(update={"rungs": 1, **arm.changes})


@cache
def _bench(setting_json: str) -> tuple[SearchConfig, Any, Any]:
    torch.set_num_threads(1)
    setting = Setting.model_validate_json(setting_json)
    config = setting.configured()
    folder = find_model(setting.model, None).folder if setting.model else teacher_folder()
    teacher = pruner.load(folder).eval()
    task = load_task(config.task, load_tokenizer(find_model(str(folder), None)))
    return config, teacher, task


def one(asked: tuple[Arm, Setting]) -> Line:
    """Train one arm and score every example."""
    arm, setting = asked
    config, teacher, task = _bench(setting.model_dump_json())
    recipe = setting.recipe_of(arm)
    batches = task.train_batches(recipe.batch_size, arm.seed)
    began = time.process_time()
    undecided = None
    if arm.scratch:
        student = from_scratch(teacher, arm, recipe.narrow_steps + recipe.tune_steps, recipe.learning_rate, batches)
    else:
        outputs = pruner.TeacherCache(folder=WORK / f"teacher-{setting.config}")
        context = TrainingContext(seed=arm.seed, teacher_cache=outputs)
        found = pruner.run(teacher, arm.architecture, recipe, batches, context)
        student, undecided = found.model, found.pruning.get("undecided_share")
    train_s = time.process_time() - began
    texts = generate(student.eval(), task, task.validation.inputs)
    counts_NK = task.metric.statistics(texts, task.validation.references)
    shapes = pruner.shapes_of(student)
    if task.metric.label == "100-PER":
        rows: dict[str, Any] = {"errors": counts_NK[:, 0].astype(int).tolist(), "size": int(counts_NK[:, 1].sum())}
    else:
        rows = {"influence": np.round(influence(counts_NK, task.metric.value), 4).tolist()}
    return Line(
        key=arm.key,
        arm=arm,
        quality=measured(task.metric, texts, task.validation.references)[0],
        **rows,
        heads=shapes.encoder_heads,
        neurons=shapes.encoder_neurons,
        parameters=sum(p.numel() for p in student.parameters()),
        train_s=train_s,
        undecided_share=undecided,
        recipe=recipe,
        protocol=PROTOCOL,
    )


def from_scratch(teacher: Any, arm: Arm, steps: int, rate: float, batches: Callable[[int], Any]) -> Any:
    """A model of the arm's shape with random weights, trained on the labels."""
    student = pruner.random_cut(teacher, arm.architecture, seed=arm.seed)
    torch.manual_seed(arm.seed)
    student.apply(student._init_weights)
    train(
        student,
        loss=lambda batch, step: cross_entropy(forward(student, batch), batch["labels"]),
        batches=batches,
        steps=steps,
        optimization=Optimization(groups=[Group(params=list(student.parameters()), lr=rate)]),
        seed=f"{arm.seed}/scratch",
    )
    return student


def _ends_with_parent() -> None:
    """A killed study's workers end too, or they would train beside the one that goes on."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def influence(counts_NK: np.ndarray, value: Callable[[np.ndarray], float]) -> np.ndarray:
    """What each example adds to a metric of summed counts: the jackknife's pseudo-values, (N,).

    Their variance over N is the metric's squared standard error; a mean's pseudo-values are its terms.
    """
    total, count = counts_NK.sum(0), len(counts_NK)
    return np.array([count * value(total) - (count - 1) * value(total - row) for row in counts_NK])


def trained(arms: Sequence[Arm], path: Path, setting: Setting | None = None) -> dict[str, Line]:
    """Every arm's line; those not yet in the file, or trained in another way, are trained now, on every core."""
    setting = setting or Setting()
    lines = read(path)
    todo = [arm for arm in {a.key: a for a in arms}.values() if not _known(lines.get(arm.key), setting.recipe_of(arm))]
    print(f"{len(arms)} trainings, {len(todo)} to do", file=sys.stderr, flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    jobs = [(arm, setting) for arm in todo]
    if path.exists() and not path.read_bytes().endswith(b"\n"):  # a kill cut the last line short
        with path.open("a") as file:
            file.write("\n")
    workers = len(os.sched_getaffinity(0))
    with multiprocessing.get_context("spawn").Pool(workers, _ends_with_parent) as pool, path.open("a") as file:
        for line in pool.imap_unordered(one, jobs):
            lines[line.key] = line
            file.write(line.model_dump_json() + "\n")
            file.flush()
            where = line.arm.architecture
            print(
                f"{len(lines)} {line.arm.name} {where.slug} seed {line.arm.seed}: {line.quality:.2f} "
                f"({line.train_s:.0f} s)",
                file=sys.stderr,
                flush=True,
            )
    return {arm.key: lines[arm.key] for arm in arms}


def _known(line: Line | None, recipe: PruningRecipe) -> bool:
    """Whether a line is what this arm would be trained to now."""
    if line is None or line.recipe not in (None, recipe):
        return False
    # protocol 4 changed what distillation and Fisher scores are, and nothing else
    fisher = recipe.narrowing in ("fisher", "shared") or recipe.gate_init == "fisher"
    return line.protocol == PROTOCOL or line.arm.scratch or (recipe.kd_weight == 0 and not fisher)


def read(path: Path) -> dict[str, Line]:
    """The lines there are; a line that a kill cut short is left out."""
    lines = {}
    for text in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            json.loads(text)
        except ValueError:
            continue
        line = Line.model_validate_json(text)
        lines[line.key] = line
    return lines


def values(lines: Sequence[Line]) -> np.ndarray:
    """Quality of each line."""
    return np.array([line.quality for line in lines])


def seed_deviation(cells: Sequence[Sequence[Line]]) -> tuple[float, int]:
    """Standard deviation between seeds, pooled over cells, and its degrees of freedom."""
    squares = sum(float(((v := values(cell)) - v.mean()) @ (v - v.mean())) for cell in cells)
    freedom = sum(len(cell) - 1 for cell in cells)
    return (squares / max(1, freedom)) ** 0.5, freedom


def difference(
    ours: Sequence[Line], theirs: Sequence[Line], deviation: float, freedom: int
) -> tuple[float, float, float]:
    """Mean difference in quality, with a 95 % interval.

    Two sources, added: which seed (pooled over the study's cells) and which examples (paired).

    Args:
        ours: one line per seed.
        theirs: the same number of lines.
        deviation: between seeds.
        freedom: degrees of freedom of `deviation`.
    """
    a_N, b_N = (np.mean([line.contributions_N for line in lines], axis=0) for lines in (ours, theirs))
    change_N = a_N - b_N  # positive: ours is better
    mean = float(values(ours).mean() - values(theirs).mean())
    spread = float(np.var(change_N, ddof=1)) / len(change_N)
    spread += deviation**2 * (1 / len(ours) + 1 / len(theirs))
    half = float(stats.t.ppf(0.975, freedom)) * spread**0.5
    return mean, mean - half, mean + half
