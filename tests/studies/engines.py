"""What pruning is worth on each engine, and what the engine is worth by itself: all models call by call in one loop.

    shapes    g2p (the shipped teacher), T5-small's and Marian's (random weights: latency only)
    models    dense, and pruned (g2p: 3 of 6 decoder blocks, encoder 30 % narrower; others: 2 of 6 and 50 %)
    engines   eager, CTranslate2, ONNX Runtime; the latter two also in int8
    rounds    fresh processes, each loading the exported artefacts; one CPU thread

"pruning" is dense over pruned on the same engine and precision, "engine" dense eager over dense there; they are never
multiplied. Prints the table for results/LOG.md and writes every sample to results/reference/engines.json.gz.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from nash_search import device, intervals, pruner
from nash_search.config import Architecture, Workload
from nash_search.latency.runtimes import runtime_of
from nash_search.latency.timing import DENSE, time_round
from nash_search.tasks.g2p import teacher_folder

ENGINES = {
    "eager": ("eager", "none"),
    "CTranslate2": ("ctranslate2", "none"),
    "CTranslate2 int8": ("ctranslate2", "int8"),
    "ONNX Runtime": ("onnxruntime", "none"),
    "ONNX Runtime int8": ("onnxruntime", "int8"),
}
T5_SMALL = {"vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_heads": 8, "num_layers": 6}
MARIAN = {
    "vocab_size": 32000, "d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_ffn_dim": 2048,
    "decoder_ffn_dim": 2048, "encoder_attention_heads": 8, "decoder_attention_heads": 8, "pad_token_id": 31999,
    "eos_token_id": 0, "decoder_start_token_id": 31999, "forced_eos_token_id": None, "scale_embedding": True,
    "max_position_embeddings": 128,
}  # fmt: skip


def model_of(shape: str) -> Any:
    """The dense model of a shape."""
    torch.manual_seed(0)
    if shape == "g2p":
        return pruner.load(teacher_folder())
    if shape == "T5-small":
        config = transformers.T5Config(**T5_SMALL, num_decoder_layers=6, decoder_start_token_id=0)
        return transformers.T5ForConditionalGeneration(config).eval()
    return transformers.MarianMTModel(transformers.MarianConfig(**MARIAN)).eval()


CASES = {
    "g2p, batch 64": ("g2p", {"batch_size": 64, "input_tokens": 8, "output_tokens": 7}, (3, 30)),
    "g2p, batch 1": ("g2p", {"batch_size": 1, "input_tokens": 8, "output_tokens": 7}, (3, 30)),
    "T5-small, batch 1": ("T5-small", {"batch_size": 1, "input_tokens": 32, "output_tokens": 32}, (2, 50)),
    "Marian, batch 1": ("Marian", {"batch_size": 1, "input_tokens": 32, "output_tokens": 32}, (2, 50)),
}


def workload_of(engine: str, call: dict[str, int]) -> Workload:
    """The call on an engine."""
    runtime, quantize = ENGINES[engine]
    return Workload.model_validate({**call, "runtime": runtime, "quantize": quantize})


def export(case: str, folder: Path) -> None:
    """Every engine's artefacts of both models."""
    torch.set_num_threads(1)
    shape, call, (depth, sparsity) = CASES[case]
    dense = model_of(shape)
    cut = pruner.random_cut(dense, Architecture(decoder_layers=depth, encoder_sparsity_pct=sparsity), seed=0)
    for name, model in (("dense", dense), ("pruned", cut)):
        for engine in ENGINES:
            place, workload = folder / engine / name, workload_of(engine, call)
            if engine == "eager":
                pruner.save(model, place)
            else:
                runtime_of(workload).export(model, str(place), workload)


def one_round(case: str, folder: Path, pairs: int) -> dict[str, list[float]]:
    """Milliseconds of every model, sweep by sweep, in this process."""
    torch.set_num_threads(1)
    _, call, _ = CASES[case]
    sessions = {}
    for engine in ENGINES:
        workload = workload_of(engine, call)
        runtime = runtime_of(workload)
        for name in ("dense", "pruned"):
            loaded = runtime.load(str(folder / engine / name), workload)
            key = DENSE if (engine, name) == ("eager", "dense") else f"{engine}/{name}"
            sessions[key] = runtime.build(loaded, workload, None)
    clock = device.resolve("cpu", outside_torch=True)
    taken = time_round(sessions, clock, workload_of("eager", call), pairs=pairs, deadline_s=clock.now_s() + 300)
    found = {key: list(one.runs_ms) for key, one in taken.items()}
    return found | {"eager/dense": list(taken["eager/pruned"].dense_runs_ms)}


def quotient(rounds: list[dict[str, list[float]]], above: str, below: str) -> tuple[float, float, float]:
    """Median ratio of two models' calls of the same sweep, with a t-interval over rounds."""
    ratios = [np.array(r[above]) / np.array(r[below]) for r in rounds]
    low, high = intervals.median_bounds([r.tolist() for r in ratios])
    return float(np.median([np.median(r) for r in ratios])), low, high


def spread(rounds: list[dict[str, list[float]]], name: str) -> str:
    """Median milliseconds of a model with the t-interval over rounds."""
    low, high = intervals.median_bounds([r[name] for r in rounds])
    return f"{np.median([np.median(r[name]) for r in rounds]):.1f} ({low:.1f} to {high:.1f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--out", type=Path, default=Path("results/reference/engines.json.gz"))
    asked = parser.parse_args()
    kept: dict[str, list[dict[str, list[float]]]] = {}
    if asked.out.exists():  # other cases stay
        kept = json.loads(gzip.decompress(asked.out.read_bytes()))
    print("| shape | engine | dense ms | pruned ms | pruning on it | engine by itself (dense) |\n" + "|---" * 6 + "|")
    for case in asked.cases:
        with tempfile.TemporaryDirectory() as name:
            with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as fresh:
                fresh.apply(export, (case, Path(name)))
                rounds = [fresh.apply(one_round, (case, Path(name), asked.pairs)) for _ in range(asked.rounds)]
        kept[case] = rounds
        for engine in ENGINES:
            pruning = quotient(rounds, f"{engine}/dense", f"{engine}/pruned")
            alone = quotient(rounds, "eager/dense", f"{engine}/dense")
            said = "-" if engine == "eager" else f"{alone[0]:.2f}× ({alone[1]:.2f} to {alone[2]:.2f})"
            print(
                f"| {case} | {engine} | {spread(rounds, f'{engine}/dense')} | {spread(rounds, f'{engine}/pruned')} "
                f"| {pruning[0]:.2f}× ({pruning[1]:.2f} to {pruning[2]:.2f}) | {said} |",
                flush=True,
            )
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_bytes(gzip.compress(json.dumps(kept).encode(), mtime=0))
    return 0


if __name__ == "__main__":
    sys.exit(main())
