"""Are three ideas from elsewhere worth building: a running average, the reverse divergence, a reconstructed cut?

    average       stage 4 ends with an average of the weights along the way (decay `DECAY`), not with the last ones
    reverse       KL(student || teacher) instead of KL(teacher || student), in both stages
    reconstruct   a one-shot Fisher cut whose kept columns are fitted by least squares to what the whole block put out

Each is laid over `pruner.run` from outside, so that nothing of it is in the package. One architecture, trained as long
as a trial; differences to today's way are paired by example. Lines go to results/three-ideas/NAME.jsonl.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from scipy import stats

from experiments.shared.trainings import Arm, Line, Setting, architecture, one, read
from nash_search.modeling_nash import block_parts, encoder_blocks
from nash_search.pruner import distillation, importance, stages

BILL = "half an hour of one core for g2p, two hours for Multi30k"

OUT = Path("results/three-ideas")
DECAY = 0.99
RIDGE = 1e-3
"""Of the mean square of the columns that a fit is from."""


@contextmanager
def average() -> Iterator[None]:
    """Stage 4 leaves an exponential average of its weights, corrected for its beginning (Kingma and Ba 2015)."""
    plain = stages.train

    def averaged(model: Any, **given: Any) -> Any:
        if not given["seed"].endswith("/tune"):
            return plain(model, **given)
        parameters = [p for group in given["optimization"].groups for p in group["params"]]
        means, weight = [torch.zeros_like(p) for p in parameters], 0.0

        @torch.no_grad()
        def after(step: int) -> None:
            nonlocal weight
            weight = DECAY * weight + 1 - DECAY
            torch._foreach_lerp_(means, parameters, 1 - DECAY)

        optimization = dataclasses.replace(given.pop("optimization"), after_step=after)
        found = plain(model, optimization=optimization, **given)
        with torch.no_grad():
            for parameter, mean in zip(parameters, means, strict=True):
                parameter.copy_(mean / weight)
        return found

    with patch.object(stages, "train", averaged):
        yield


def reversed_divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """KL(student || teacher) of logits (N,V), mean over N."""
    log_q = torch.log_softmax(student.float() / temperature, dim=-1)
    log_p = torch.log_softmax(teacher.float() / temperature, dim=-1)
    return (log_q.exp() * (log_q - log_p)).sum(-1).mean()


@contextmanager
def reconstruct() -> Iterator[None]:
    """After a one-shot cut, W_out' = W_out C[:, kept] C[kept, kept]^-1, C the second moments of the projection's input.

    That is the least-squares fit of the whole projection's output by the kept columns, on the batches of the Fisher
    scores, block by block on the whole model's own activations.
    """
    plain, scored, seen = stages.cut, importance.fisher, dict[str, Any]()

    def fisher(model: Any, gates: Any, batches: Callable[[int], Any], count: int, device: Any) -> torch.Tensor:
        seen["moments"] = moments(model, batches, count)
        return scored(model, gates, batches, count, device)

    def cut(
        model: Any, kept_heads: Sequence[Sequence[int]], kept_neurons: Sequence[Sequence[int]], **gates: Any
    ) -> Any:
        found = plain(model, kept_heads, kept_neurons, **gates)
        whole, narrow = encoder_blocks(model), encoder_blocks(found)
        for block, mine, heads, neurons, two in zip(
            whole, narrow, kept_heads, kept_neurons, seen["moments"], strict=True
        ):
            parts, left = block_parts(block), block_parts(mine)
            attention = parts.attention.get_submodule(parts.attention_out)
            size = attention.weight.shape[1] // parts.heads
            columns = [head * size + c for head in heads for c in range(size)]
            refit(attention, left.attention.get_submodule(left.attention_out), columns, two[0])
            refit(getattr(parts.ffn, parts.ffn_out), getattr(left.ffn, left.ffn_out), list(neurons), two[1])
        return found

    with patch.object(importance, "fisher", fisher), patch.object(stages, "cut", cut):
        yield


@torch.no_grad()
def refit(whole: Any, narrow: Any, columns: list[int], moments_CC: torch.Tensor) -> None:
    """Fit the kept columns of one output projection; what was cut shows in those that are left."""
    kept = moments_CC[columns][:, columns]
    kept = kept + RIDGE * kept.diagonal().mean() * torch.eye(len(columns), dtype=kept.dtype)
    fitted = torch.linalg.solve(kept, moments_CC[columns] @ whole.weight.double().T).T
    narrow.weight.copy_(fitted.to(narrow.weight.dtype))


@torch.no_grad()
def moments(model: Any, batches: Callable[[int], Any], count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Second moments of what enters the two output projections of every encoder block, of tokens that are no pads."""
    sums = dict[Any, torch.Tensor]()
    real = torch.empty(0)

    def add(module: Any, given: tuple[torch.Tensor]) -> None:
        rows = given[0][real].double()
        sums[module] = sums.get(module, torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.double)) + rows.T @ rows

    outs = []
    for block in encoder_blocks(model):
        parts = block_parts(block)
        outs.append((parts.attention.get_submodule(parts.attention_out), getattr(parts.ffn, parts.ffn_out)))
    hooks = [module.register_forward_pre_hook(add) for pair in outs for module in pair]
    model.eval()
    for step in range(count):
        batch = batches(step)
        real = batch["attention_mask"].bool()
        model.get_encoder()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    for hook in hooks:
        hook.remove()
    return [(sums[attention], sums[ffn]) for attention, ffn in outs]


IDEAS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "today": (nullcontext, {}),
    "average": (average, {}),
    "reverse": (lambda: patch.object(distillation, "divergence", reversed_divergence), {}),
    "fisher": (nullcontext, {"narrowing": "fisher"}),
    "reconstruct": (reconstruct, {"narrowing": "fisher"}),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="g2p")
    parser.add_argument("--model", help="folder of the teacher (default: g2p's own)")
    parser.add_argument("--data", help="folder of JSONL files, columns `source` and `target`")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--sparsity", type=int, default=60, help="percent of the encoder removed")
    parser.add_argument("--steps", type=int, nargs=2, metavar=("NARROW", "TUNE"), default=[250, 350])
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--labels", help="data, teacher or mixed (default: the space's own)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ideas", nargs="+", choices=IDEAS, default=list(IDEAS))
    asked = parser.parse_args()
    task = {"data": asked.data, "source_column": "source", "target_column": "target"} if asked.data else {}
    setting, path = Setting(config=asked.config, model=asked.model, task=task), OUT / f"{asked.config}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rates = {"learning_rate": asked.rate, "tune_learning_rate": asked.rate}
    labels = {"labels": asked.labels} if asked.labels else {}
    steps = {"narrow_steps": asked.steps[0], "tune_steps": asked.steps[1]}
    where = architecture(asked.blocks, asked.sparsity, "uniform")
    lines = read(path)
    rows: dict[str, list[Line]] = {name: [] for name in asked.ideas}
    for seed in asked.seeds:
        for name in asked.ideas:
            begin, changes = IDEAS[name]
            arm = Arm(name=name, architecture=where, changes=rates | labels | steps | changes, seed=seed)
            if arm.key not in lines:
                with begin():
                    lines[arm.key] = one((arm, setting))
                with path.open("a") as file:
                    file.write(lines[arm.key].model_dump_json() + "\n")
                print(f"{name} seed {seed}: {lines[arm.key].quality:.2f} ({lines[arm.key].train_s:.0f} s)", flush=True)
            rows[name].append(lines[arm.key])
    report(rows)
    return 0


def report(rows: dict[str, list[Line]]) -> None:
    """A table for results/LOG.md: qualities by seed, CPU seconds, and the difference to today's with its interval."""
    print("| idea | by seed | CPU s | against | difference, over seeds |\n|---|---|---|---|---|")
    for name, found in rows.items():
        against = {"today": None, "reconstruct": "fisher"}.get(name, "today")
        told = ""
        if against is not None:
            apart = np.array([line.quality - other.quality for line, other in zip(found, rows[against], strict=True)])
            spread = stats.sem(apart) * stats.t.ppf(0.975, len(apart) - 1) if len(apart) > 1 else float("nan")
            told = f"{apart.mean():+.2f} ± {spread:.2f}"
        qualities = ", ".join(f"{line.quality:.2f}" for line in found)
        seconds = ", ".join(f"{line.train_s:.0f}" for line in found)
        print(f"| {name} | {qualities} | {seconds} | {against or ''} | {told} |")


if __name__ == "__main__":
    sys.exit(main())
