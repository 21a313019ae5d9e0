"""Does the front grow if the decoder may be narrower too, by heads and FFN neurons?

    shapes     depths {1, 2, 3, 6} x cuts of the decoder, untrained, next to the dense model; and how much a committed
               study's hypervolume could grow if such a cut cost no quality
    trainings  15 architectures: depths {1, 2, 3} x the encoder whole or 70 % narrower; depths {2, 3} again with half
               of the decoder's heads, 80 % of its neurons, or half of both, gone by Fisher score before training
    fronts     hypervolume without the narrow decoders, and with them: of 6 trainings that were named in advance,
               of those chosen on the other seeds within the seconds of the 6 without, of all 15; and of all beside
               the 18 trainings of `mild-sparsity` against those without; and of the real search, replayed on these
               trainings with the axis and without, for the same training seconds

Eager and CTranslate2, at the workloads of the committed studies. Every training takes the search space's steps
(g2p: 250 and 350). Bill for g2p: 45 trainings of a minute of CPU and a few minutes of timing. Multi30k:
`--config multi30k-en-de --data FOLDER --model results/multi30k-en-de/teacher`. Prints tables for results/LOG.md;
lines and samples go to results/decoder-width.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.shared import decoder_units, replay
from experiments.shared.drawing import forest
from experiments.shared.samples import Samples, share
from experiments.shared.trainings import Arm, Line, Setting, architecture, one, read, trained
from experiments.shared.with_axis import Place, growth
from nash_search import pareto, pruner
from nash_search.config import Architecture, Workload
from nash_search.intervals import mean_bounds
from nash_search.latency_record import Latency
from nash_search.pruner.stages import Batches, Pruned, Trial
from nash_search.pruner.state_file import StateFile
from nash_search.pruner.training import TrainingContext
from nash_search.recipes import PruningRecipe
from nash_search.tasks.g2p import teacher_folder

BILL = "30 minutes for g2p (45 trainings), three hours for Multi30k"

OUT = Path("results/decoder-width")
DEPTHS = (1, 2, 3, 6)
CUTS_PCT = {
    "neurons 50 %": (0, 50),
    "neurons 80 %": (0, 80),
    "heads 50 %": (50, 0),
    "both 50 %": (50, 50),
    "heads 50 %, neurons 80 %": (50, 80),
    "heads 75 %": (75, 0),
    "heads 75 %, neurons 80 %": (75, 80),
}
"""Of the heads of both attentions, and of the neurons. CTranslate2 refuses a decoder of one head (75 % of four)."""
WORKLOADS = {
    "g2p": Workload(batch_size=64, input_tokens=8, output_tokens=7),
    "multi30k-en-de": Workload(batch_size=16, input_tokens=16, output_tokens=16),
}
STUDIES = {
    ("g2p", "eager"): "g2p",
    ("g2p", "ctranslate2"): "headline",
    ("multi30k-en-de", "eager"): "multi30k-en-de",
    ("multi30k-en-de", "ctranslate2"): "headline-multi30k",
}
ENGINES = ("eager", "ctranslate2")

WHOLE, HALF = "nash", "nash, 50 % of the decoder's heads and neurons removed"
FEWER_HEADS, FEWER_NEURONS = "nash, 50 % of the decoder's heads removed", "nash, 80 % of the decoder's neurons removed"
NARROW_PCT = {HALF: (50, 50), FEWER_HEADS: (50, 0), FEWER_NEURONS: (0, 80)}
"""Of its heads and neurons, by arm."""
GRID = "grid"
"""A training of `mild-sparsity`: what more trainings without the axis would find."""
NAMES = {
    WHOLE: "whole",
    HALF: "half",
    FEWER_HEADS: "half of the heads",
    FEWER_NEURONS: "a fifth of the neurons",
    GRID: "whole, of the grid",
}
AXIS = {WHOLE: 0, GRID: 0, HALF: 1, FEWER_HEADS: 2, FEWER_NEURONS: 3}
TRIALS = (6, 12)
ENCODERS_PCT = (0, 70)
BUDGETS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55)
Point = tuple[int, int, str]
"""Decoder blocks, percent off the encoder, name of the arm."""
WITHOUT: list[Point] = [(n, s, WHOLE) for n in (1, 2, 3) for s in ENCODERS_PCT]
HALVED: list[Point] = [(n, s, HALF) for n in (2, 3) for s in ENCODERS_PCT]
ONE_KIND = [(n, 0, name) for name in (FEWER_HEADS, FEWER_NEURONS) for n in (2, 3)]
ADDED: list[Point] = [*HALVED, *ONE_KIND, (2, 70, FEWER_HEADS)]
NAMED = [*HALVED, (2, 0, WHOLE), (3, 0, WHOLE)]
"""Six trainings that a search with the axis might spend instead, said before any was trained."""


@dataclass(kw_only=True)
class NarrowTrial(Trial):
    """A trial whose decoder is cut as soon as its blocks are chosen; all training comes after."""

    narrow_pct: tuple[int, int]

    def _cut(self, student: Any) -> Any:
        scores = decoder_units.fisher(student, self.data)
        return decoder_units.cut(student, decoder_units.kept_by(student, scores, *self.narrow_pct))

    def _narrow(self, student: Any, state: StateFile | None) -> tuple[Any, dict[str, Any]]:
        return super()._narrow(self._cut(student), state)

    def _tune(self, student: Any, state: StateFile | None) -> None:
        self.tuned = student if self.sparsity else self._cut(student)
        super()._tune(self.tuned, state)


def train_one(asked: tuple[Arm, Setting]) -> Line:
    """An arm, by its name."""
    narrow_pct = NARROW_PCT.get(asked[0].name)
    if narrow_pct is None:
        return one(asked)

    def run(
        teacher: Any, architecture: Architecture, recipe: PruningRecipe, data: Batches, context: TrainingContext
    ) -> Pruned:
        trial = NarrowTrial(
            teacher=teacher, architecture=architecture, recipe=recipe, data=data, context=context, shared=None,
            narrow_pct=narrow_pct,
        )  # fmt: skip
        return replace(trial.run(), model=trial.tuned)

    return one(asked, run)


def shapes(dense: Any, runtime: str) -> dict[str, Any]:
    """Depths and cuts, untrained, by `depth cut`."""
    found: dict[str, Any] = {}
    for depth in DEPTHS:
        short = pruner.shorten(dense, depth)
        scores = decoder_units.at_random(short)
        found[f"{depth} whole"] = short
        for name, percents in CUTS_PCT.items():
            if runtime == "eager" or percents[0] <= 50:
                found[f"{depth} {name}"] = decoder_units.cut(short, decoder_units.kept_by(short, scores, *percents))
    return found


def bound(taken: Mapping[str, Latency], study: str) -> dict[str, tuple[float, float]]:
    """By cut: a committed study's hypervolume, and how many percent larger it were if the cut cost no quality."""
    reference = json.loads(Path("results", study, "summary.json").read_text("utf-8"))["reference"]
    corner = (reference["share"], -reference["quality"])
    with Path("results", study, "trials.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "complete"]
    depths, shares, qualities = (
        np.array([float(row[name]) for row in rows]) for name in ("decoder_layers", "share", "quality")
    )
    found = {}
    for cut in dict.fromkeys(key.partition(" ")[2] for key in taken):
        saved = np.interp(depths, DEPTHS, [share(taken[f"{n} whole"]) - share(taken[f"{n} {cut}"]) for n in DEPTHS])
        found[cut] = pareto.hypervolume(pareto.losses(shares - saved, qualities), corner)
    return {cut: (found["whole"], 100 * (value / found["whole"] - 1)) for cut, value in found.items()}


def trained_shapes(dense: Any, lines: Mapping[Point, Line]) -> dict[str, Any]:
    """The models as the first seed's trainings shaped their encoders, by point; decoders as many as were kept."""
    found = {}
    for point, line in lines.items():
        kept = [list(range(count)) for count in line.heads], [list(range(count)) for count in line.neurons]
        model = pruner.cut(pruner.shorten(dense, point[0]), *kept)
        if point[2] in NARROW_PCT:
            scores = decoder_units.at_random(model)
            model = decoder_units.cut(model, decoder_units.kept_by(model, scores, *NARROW_PCT[point[2]]))
        found[repr(point)] = model
    return found


class Fronts:
    """Qualities of every seed (S seeds, K points) with one latency a point."""

    def __init__(self, lines: Sequence[Mapping[Point, Line]], shares: Mapping[Point, float], dense_quality: float):
        self.points = list(lines[0])
        self.share_K = [shares[point] for point in self.points]
        self.quality_SK = np.array([[by_point[p].quality for p in self.points] for by_point in lines])
        self.seconds_K = np.array([[by_point[p].train_s for p in self.points] for by_point in lines]).mean(0)
        self.corner = (1.1, -0.8 * dense_quality)

    def volumes(self, chosen: Sequence[int]) -> np.ndarray:
        """Hypervolume of these points' front, by seed."""
        shares = [self.share_K[i] for i in chosen]
        fronts = [pareto.losses(shares, quality_K[list(chosen)]) for quality_K in self.quality_SK]
        return np.array([pareto.hypervolume(front, self.corner) for front in fronts])

    def growth(self) -> dict[str, tuple[np.ndarray, float]]:
        """By what is compared with the six without the axis: percent of growth by seed, training seconds a seed."""
        where = {point: index for index, point in enumerate(self.points)}
        without, named = ([where[p] for p in points if p in where] for points in (WITHOUT, NAMED))
        narrow = [index for point, index in where.items() if point[2] in NARROW_PCT]
        grid = [index for point, index in where.items() if point[2] == GRID]
        base_S, limit_s = self.volumes(without), self.seconds_K[without].sum()
        subsets = [
            chosen
            for size in range(1, len(without + narrow) + 1)
            for chosen in itertools.combinations(without + narrow, size)
            if self.seconds_K[list(chosen)].sum() <= limit_s
        ]
        volumes_CS = np.array([self.volumes(chosen) for chosen in subsets])
        best = (
            [int(np.delete(volumes_CS, s, 1).mean(1).argmax()) for s in range(len(base_S))] if len(base_S) > 1 else []
        )
        found = {"named in advance": (self.volumes(named) / base_S, float(self.seconds_K[named].sum()))}
        if best:
            chosen_S = np.array([volumes_CS[c, seed] for seed, c in enumerate(best)])
            cost_s = float(np.mean([self.seconds_K[list(subsets[c])].sum() for c in best]))
            found["chosen on other seeds"] = chosen_S / base_S, cost_s
        found["all of them"] = self.volumes(without + narrow) / base_S, float(self.seconds_K[without + narrow].sum())
        if grid:
            more_S = self.volumes(without + grid + narrow) / self.volumes(without + grid)
            found["all, beside the grid"] = (
                more_S,
                float(self.seconds_K[without + grid + narrow].sum()),
            )
        return {name: (100 * (ratio_S - 1), cost) for name, (ratio_S, cost) in found.items()}


def searched(
    lines: Sequence[Mapping[Point, Line]], shares: Mapping[Point, float], dense: float
) -> dict[int, list[float]]:
    """Percent by which the real search's hypervolume grows with the axis, by its trials and then by training seed."""
    like = replay.read(Path("results/search-strategies/search-table.json.gz"))
    found: dict[int, list[float]] = {trials: [] for trials in TRIALS}
    for by_point in lines:
        places = {
            p: Place(p[0], p[1], AXIS[p[2]], shares[p], line.quality, line.train_s) for p, line in by_point.items()
        }
        whole = [place for p, place in places.items() if p[2] not in NARROW_PCT]
        for trials, percent in zip(
            TRIALS, growth(list(places.values()), whole, like, trials=TRIALS, dense=dense), strict=True
        ):
            found[trials].append(percent)
    return found


def grid_lines(seed: int) -> dict[Point, Line]:
    """What `mild-sparsity` trained at the depths in question."""
    lines = [line for line in read(Path("results/mild-sparsity/mild-sparsity.jsonl")).values() if line.arm.seed == seed]
    found = {(a.decoder_layers, a.encoder_sparsity_pct, GRID): line for line in lines for a in [line.arm.architecture]}
    return {point: line for point, line in sorted(found.items()) if point[0] <= 3}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="g2p", choices=WORKLOADS)
    parser.add_argument("--model", help="folder of the teacher (g2p: the package's)")
    parser.add_argument("--data", help="folder of Multi30k's JSONL files, columns `source` and `target`")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, nargs=2, metavar=("NARROW", "TUNE"), help="instead of the recipe's")
    parser.add_argument("--encoders-pct", type=int, nargs="+", choices=ENCODERS_PCT, default=ENCODERS_PCT)
    parser.add_argument("--dense-quality", type=float, default=92.604, help="of the teacher on validation")
    parser.add_argument("--shapes-only", action="store_true", help="train nothing")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    dense = pruner.load(asked.model or teacher_folder()).eval()
    samples = Samples(asked.out / f"{asked.config}-latency.json.gz")
    workloads = {name: WORKLOADS[asked.config].model_copy(update={"runtime": name}) for name in ENGINES}
    print("| engine | cut | " + " | ".join(f"{n} blocks" for n in DEPTHS) + " | growth at most |\n|" + "---|" * 7)
    for engine, workload in workloads.items():
        taken = samples.of(f"shapes {engine}", shapes(dense, engine), dense, workload)
        for cut, (_, percent) in bound(taken, STUDIES[asked.config, engine]).items():
            cells = [f"{share(taken[f'{n} {cut}']):.3f}" for n in DEPTHS]
            print(f"| {engine} | {cut} | {' | '.join(cells)} | {percent:+.1f} % |", flush=True)
    if asked.shapes_only:
        return 0
    selection = "scored" if asked.config == "g2p" else "uniform"
    task = {"data": asked.data, "source_column": "source", "target_column": "target"} if asked.data else {}
    changes = {"narrow_steps": asked.steps[0], "tune_steps": asked.steps[1]} if asked.steps else {}
    arms = {
        (point, seed): Arm(name=point[2], architecture=architecture(*point[:2], selection), changes=changes, seed=seed)
        for seed in range(asked.seeds)  # a study cut short has whole seeds
        for point in (*WITHOUT, *ADDED)
        if point[1] in asked.encoders_pct
    }
    setting = Setting(config=asked.config, model=asked.model, task=task)
    by_key = trained(list(arms.values()), asked.out / f"{asked.config}.jsonl", setting, train_one)
    lines = [{p: by_key[arm.key] for (p, s), arm in arms.items() if s == seed} for seed in range(asked.seeds)]
    if asked.config == "g2p":
        lines = [by_point | grid_lines(seed) for seed, by_point in enumerate(lines)]
    models = trained_shapes(dense, lines[0])
    taken_by = {e: samples.of(f"trained {e}", models, dense, workload) for e, workload in workloads.items()}
    table(lines, taken_by)
    rows, answers = {}, []
    print("\n| engine | against the six without | seeds, % | growth, 95 % | training s |\n|---|---|---|---|---|")
    for engine, taken in taken_by.items():
        fronts = Fronts(lines, {p: share(taken[repr(p)]) for p in lines[0]}, asked.dense_quality)
        for name, (percent_S, cost_s) in fronts.growth().items():
            mean, (low, high) = float(percent_S.mean()), mean_bounds(percent_S.tolist())
            rows[f"{engine}: {name}"] = [(mean, low, high)]
            answers.append({"engine": engine, "set": name, "growth_pct": percent_S.tolist(), "train_s": cost_s})
            each = ", ".join(f"{x:+.1f}" for x in percent_S)
            print(f"| {engine} | {name} | {each} | {mean:+.1f} ({low:+.1f} to {high:+.1f}) | {cost_s:.0f} |")
        shares = {point: share(taken[repr(point)]) for point in lines[0]}
        for trials, percents in searched(lines, shares, asked.dense_quality).items():
            name = f"searched, the seconds of {trials} trials without the axis"
            mean, (low, high) = float(np.mean(percents)), mean_bounds(percents)
            rows[f"{engine}: searched, {trials} trials"] = [(mean, low, high)]
            answers.append({"engine": engine, "set": name, "growth_pct": percents})
            each = ", ".join(f"{x:+.1f}" for x in percents)
            print(f"| {engine} | {name} | {each} | {mean:+.1f} ({low:+.1f} to {high:+.1f}) | |")
    asked.out.joinpath(f"{asked.config}.json").write_text(json.dumps(answers, indent=1) + "\n", "utf-8")
    title = f"{asked.config}: hypervolume with narrow decoders, {asked.seeds} seeds"
    forest(asked.out / f"{asked.config}.png", title, "percent of growth", rows, ["growth"], 0)
    within(lines, taken_by)
    return 0


def within(lines: Sequence[Mapping[Point, Line]], taken_by: Mapping[str, Mapping[str, Latency]]) -> None:
    """Print the best mean quality that meets a budget, without and with narrow decoders."""
    print("\n| engine | of the dense latency | decoders whole | narrow ones too |\n|---|---|---|---|")
    mean = {point: float(np.mean([by_point[point].quality for by_point in lines])) for point in lines[0]}
    for engine, taken in taken_by.items():
        for budget in BUDGETS:
            fits = [point for point in mean if share(taken[repr(point)]) <= budget]
            whole = [point for point in fits if point[2] not in NARROW_PCT]
            cells = []
            for points in (whole, fits):
                n, s, name = max(points, key=lambda point: mean[point], default=(0, 0, WHOLE))
                told = (
                    f"{mean[n, s, name]:.2f} ({n} blocks, {s} % off the encoder, decoder {NAMES[name]})" if n else "-"
                )
                cells.append(told)
            print(f"| {engine} | {budget:.0%} | {' | '.join(cells)} |")


def table(lines: Sequence[Mapping[Point, Line]], taken_by: Mapping[str, Mapping[str, Latency]]) -> None:
    """Print every point: shares by engine, quality and seconds by seed."""
    print("\n| blocks | off the encoder | decoder | " + " | ".join(ENGINES) + " | quality by seed | mean | train s |")
    print("|" + "---|" * 8)
    for point in lines[0]:
        seen = [by_point[point] for by_point in lines]
        shares = " | ".join(f"{share(taken_by[engine][repr(point)]):.3f}" for engine in ENGINES)
        qualities = [line.quality for line in seen]
        print(
            f"| {point[0]} | {point[1]} % | {NAMES[point[2]]} | {shares} "
            f"| {', '.join(f'{q:.2f}' for q in qualities)} | {np.mean(qualities):.2f} "
            f"| {np.mean([line.train_s for line in seen]):.0f} |"
        )
