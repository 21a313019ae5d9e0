"""What do a step, a probe and a search cost as the model grows?

    measured    T5 of 1 to 60 million parameters, random weights: a step of each training stage (3 of the decoder's
                blocks, encoder 30 % narrower), every shape a search probes first, one generated token's dispatch
    counted     floating-point operations of a training step, by torch's counter, for these and for T5-base and -large
    checked     one training step of T5-base, foretold from the rate of the 60M model, then timed
    projected   `search.cost` (what the tool says before it spends) at a GPU's *assumed* rate; not measured

Prints tables for results/LOG.md and writes results/scaling/scaling.json, a picture beside it. About 15 minutes.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from experiments.shared.drawing import curves
from nash_search import latency, pruner
from nash_search.config import Architecture, LatencyBudget, PruningRecipe, SearchConfig, TaskConfig, Workload
from nash_search.families import family_of
from nash_search.pruner.distillation import Batch
from nash_search.search import probe
from nash_search.trial import cost
from nash_search.trial.nash_evaluator import PAIRS

BILL = "15 minutes"

SHAPES: dict[str, dict[str, int]] = {
    "T5 1M": {"d_model": 64, "d_kv": 16, "d_ff": 256, "num_heads": 4, "num_layers": 6, "vocab_size": 4_000},
    "T5 4M": {"d_model": 128, "d_kv": 32, "d_ff": 512, "num_heads": 4, "num_layers": 6, "vocab_size": 8_000},
    "T5 15M": {"d_model": 256, "d_kv": 64, "d_ff": 1024, "num_heads": 4, "num_layers": 6, "vocab_size": 16_000},
    "T5-small": {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_heads": 8, "num_layers": 6, "vocab_size": 32_128},
}
LARGE = {
    "T5-base": {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_heads": 12, "num_layers": 12, "vocab_size": 32_128},
    "T5-large": {"d_model": 1024, "d_kv": 64, "d_ff": 4096, "num_heads": 16, "num_layers": 24, "vocab_size": 32_128},
}
BATCH, INTO, OUT = 16, 64, 32
"""Sequences of a training batch, input tokens, output tokens."""
STEPS, TRIALS = 1500, (10, 32, 100, 1000)
"""Of the projected bill: steps a trial, trials a study."""
GPU_TERAFLOPS, UTILISATION = 312.0, 0.3
"""Assumed, not measured: an A100's bf16 peak by its data sheet, and the share of it that training reaches."""
GPU_BATCH, GPU_INTO, GPU_OUT, SCORED = 64, 512, 64, 1000
"""The projected training batch (a summarisation's lengths) and the validation examples scored."""


def model_of(shape: dict[str, int], device: str = "cpu") -> Any:
    """A random T5; on `meta` it has shapes but no numbers."""
    torch.manual_seed(0)
    with torch.device(device):
        return transformers.T5ForConditionalGeneration(transformers.T5Config(**shape, decoder_start_token_id=0)).eval()


def architecture_of(shape: dict[str, int]) -> Architecture:
    """Half the decoder, 30 % of the encoder removed."""
    return Architecture(decoder_layers=shape["num_layers"] // 2, encoder_sparsity_pct=30)


def batch_of(step: int, count: int, into: int, out: int, vocabulary: int, device: str = "cpu") -> Batch:
    """Random tokens."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(3, vocabulary, (count, into), generator=generator).to(device)
    labels = torch.randint(3, vocabulary, (count, out), generator=generator).to(device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def operations(shape: dict[str, int], count: int, into: int, out: int) -> float:
    """Of one tune step: the teacher's forward pass, and the student's (encoder still whole) forward and backward."""
    teacher = model_of(shape, "meta")
    student = pruner.shorten(teacher, shape["num_layers"] // 2).train()
    batch = batch_of(0, count, into, out, shape["vocab_size"], "meta")
    del batch["attention_mask"]  # without numbers nobody can see that it hides nothing
    with FlopCounterMode(display=False) as counter:
        with torch.no_grad():
            teacher(**batch)
        student(**batch).loss.backward()
    return float(counter.get_total_flops())


def step_seconds(teacher: Any, shape: dict[str, int], steps: int) -> dict[str, float]:
    """Seconds of a step of each stage, after one to warm up."""
    found: dict[str, float] = {}
    for few in (1, steps):
        recipe = PruningRecipe(narrow_steps=few, tune_steps=few, batch_size=BATCH, rungs=1)
        done = pruner.run(
            teacher, architecture_of(shape), recipe, lambda step: batch_of(step, BATCH, INTO, OUT, shape["vocab_size"])
        )
        found = {name: stage["seconds"] / stage["steps"] for name, stage in done.stages.items()}
    return found


def probe_seconds(teacher: Any) -> tuple[float, int]:
    """Seconds until every shape that a search starts with is timed (a search stops at 60), and how many there are."""
    config = SearchConfig(task=TaskConfig(), budgets=(LatencyBudget.parse("50%"),))
    layers = len(family_of(teacher).decoder_blocks(teacher))
    shapes = probe.shapes_to_probe(config.search_space.filled(layers))
    workload = Workload(input_tokens=INTO, output_tokens=OUT)
    began = time.monotonic()
    models = {one.slug: pruner.random_cut(teacher, one) for one in shapes}
    latency.measure_many(models, teacher, workload, rounds=1, pairs=8, limit_s=60, details=False)
    return time.monotonic() - began, len(shapes)


def dispatch_ms(teacher: Any) -> float:
    """Milliseconds per generated token and decoder block of the smallest model at batch 1: nearly all of it is
    Python's, which a GPU's host pays too."""
    workload = Workload(input_tokens=8, output_tokens=32)
    layers = len(family_of(teacher).decoder_blocks(teacher))
    found = latency.measure(teacher, teacher, workload, rounds=3, pairs=6, limit_s=60)
    return found.dense_ms / (32 * layers)


def projected(shape: dict[str, int], block_ms: float, trials: int, gpus: int) -> dict[str, Any]:
    """The bill of one search by the tool's own estimate."""
    step_s = operations(shape, GPU_BATCH, GPU_INTO, GPU_OUT) / (GPU_TERAFLOPS * 1e12 * UTILISATION)
    dense_ms = block_ms * shape["num_layers"] * GPU_OUT
    score_s = SCORED / GPU_BATCH * dense_ms / 1000
    one = cost.TrialCost(train_s=STEPS * step_s, score_s=score_s, pairs=PAIRS[1], how="assumed")
    config = SearchConfig(task=TaskConfig(), budgets=(LatencyBudget.parse("50%"),), trials=trials)
    bill = cost.of_search(one, config, trials=trials, workers=gpus, dense_ms=dense_ms, load_s=20, devices=gpus)
    return {"trials": trials, "gpus": gpus, "step_s": step_s, "dense_ms": dense_ms} | bill


def picture(document: dict[str, Any], path: Path) -> None:
    """What was measured, by size; the projected bill stays a table."""
    millions = [(row["parameters"] / 1e6, row) for row in document["measured"]]
    series = {
        "narrow step": [(size, row["step_s"]["narrow"]) for size, row in millions],
        "tune step": [(size, row["step_s"]["tune"]) for size, row in millions],
        "the probe of a search": [(size, row["probe_s"]) for size, row in millions],
    }
    curves(path, "What a T5 costs by size, one core", ("million parameters", "seconds"), series)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each stage")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--no-check", action="store_true", help="do not time a step of T5-base")
    parser.add_argument("--out", type=Path, default=Path("results/scaling/scaling.json"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows, rate, block_ms = [], 0.0, 0.0
    print(
        "| model | parameters | narrow step s | tune step s | GFLOP/s of a tune step | probe s | shapes |\n|"
        + "---|" * 7
    )
    for name in asked.shapes:
        shape = SHAPES[name]
        teacher = model_of(shape)
        parameters = sum(p.numel() for p in teacher.parameters())
        block_ms = block_ms or dispatch_ms(teacher)
        step_s = step_seconds(teacher, shape, asked.steps)
        rate = operations(shape, BATCH, INTO, OUT) / step_s["tune"]
        probe_s, count = probe_seconds(teacher)
        row = {"model": name, "parameters": parameters, "step_s": step_s, "flops_per_s": rate}
        rows.append(row | {"probe_s": probe_s, "shapes": count})
        print(
            f"| {name} | {parameters / 1e6:.1f}M | {step_s['narrow']:.2f} | {step_s['tune']:.2f} | {rate / 1e9:.0f} "
            f"| {probe_s:.0f} | {count} |",
            flush=True,
        )
    document: dict[str, Any] = {"measured": rows, "dispatch_ms_per_block_and_token": block_ms}
    if not asked.no_check:
        shape = LARGE["T5-base"]
        foretold = operations(shape, BATCH, INTO, OUT) / rate
        seen = step_seconds(model_of(shape), shape, 2)["tune"]
        document["check"] = {"model": "T5-base", "foretold_s": foretold, "seen_s": seen}
        print(f"\nT5-base, one tune step: {foretold:.1f} s foretold from the rate above, {seen:.1f} s seen")
    document["assumed"] = {
        "teraflops": GPU_TERAFLOPS, "utilisation": UTILISATION, "steps": STEPS, "batch": GPU_BATCH,
        "input_tokens": GPU_INTO, "output_tokens": GPU_OUT, "scored": SCORED,
    }  # fmt: skip
    document["projected"] = []
    print("\n| projected | trials | hours on 1 GPU | hours on 32 |\n|---|---|---|---|")
    for name, shape in LARGE.items():
        for trials in TRIALS:
            alone, many = (projected(shape, block_ms, trials, gpus) for gpus in (1, 32))
            document["projected"] += [{"model": name} | alone, {"model": name} | many]
            print(f"| {name} | {trials} | {alone['eta_s'] / 3600:.1f} | {many['eta_s'] / 3600:.1f} |")
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    picture(document, asked.out.with_suffix(".png"))
    return 0
