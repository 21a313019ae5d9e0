"""What is pruning worth on each engine, and what is the engine worth by itself?

All models call by call in one loop:

    shapes    g2p (the shipped teacher), T5-small's and Marian's, cut at random: latency only
    studies   finished ones (`--studies FOLDER ...`): the teacher and every certified export, each engine's quality too
    engines   eager, CTranslate2, ONNX Runtime; the latter two also in int8
    rounds    fresh processes, each loading the exported artefacts; one CPU thread

"pruning" is dense over pruned on the same engine and precision, "engine" dense eager over dense there; they are never
multiplied. A study's models are scored on the sealed test split by what the engine itself writes. Prints the table for
results/LOG.md and writes every sample to results/engines/engines.json.gz, where other cases stay, and a picture
beside it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from experiments.shared.drawing import Interval, forest
from nash_search import device, intervals, pruner
from nash_search.config import Architecture, SearchConfig, Workload
from nash_search.latency.runtimes import runtime_of
from nash_search.latency.timing_round import DENSE, time_round
from nash_search.search.certify import read
from nash_search.tasks.g2p import teacher_folder
from nash_search.trial.deployment import Deployment
from nash_search.trial.nash_evaluator import NashEvaluator

BILL = "20 minutes"

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
"""Shape, call, and what is left of it: decoder blocks and encoder sparsity, percent."""


def study_bench(case: str) -> NashEvaluator:
    """The evaluator of a finished study, on eager."""
    asked = SearchConfig.stored(Path(case, "config.json").read_bytes())
    plain = asked.workload.model_copy(update={"runtime": "eager", "quantize": "none"})
    return NashEvaluator(asked.model_copy(update={"workload": plain}))


def call_of(case: str) -> dict[str, Any]:
    """Batch and lengths that a case is timed on."""
    if case in CASES:
        return CASES[case][1]
    found = read(Path(case))
    assert found is not None, f"{case} must be a finished study with its exports"
    return found.points[0].latency.workload.model_dump(include={"batch_size", "input_tokens", "output_tokens"})


def models_of(case: str) -> dict[str, Any]:
    """The dense model and what is compared with it, by name."""
    if case not in CASES:
        found = read(Path(case))
        assert found is not None
        exports = {name_of(p.architecture): pruner.load(Path(case, p.checkpoint)) for p in found.points}
        return {"dense": study_bench(case).teacher} | exports
    shape, _, (depth, sparsity) = CASES[case]
    dense, left = model_of(shape), Architecture(decoder_layers=depth, encoder_sparsity_pct=sparsity)
    return {"dense": dense, name_of(left): pruner.random_cut(dense, left, seed=0)}


def name_of(left: Architecture) -> str:
    """Decoder blocks and how much of the encoder stays."""
    return f"{left.decoder_layers} dec, enc {100 - left.encoder_sparsity_pct}%"


def workload_of(engine: str, call: dict[str, int]) -> Workload:
    """The call on an engine."""
    runtime, quantize = ENGINES[engine]
    return Workload.model_validate({**call, "runtime": runtime, "quantize": quantize})


def export(case: str, folder: Path) -> list[str]:
    """Every engine's artefacts of all models, each compared with eager on the way; returns their names."""
    torch.set_num_threads(1)
    models, call = models_of(case), call_of(case)
    rows = None if case in CASES else list(study_bench(case).task.validation.first(64).inputs)
    for name, model in models.items():
        for engine in ENGINES:
            place, workload = folder / engine / name, workload_of(engine, call)
            if engine == "eager":
                pruner.save(model, place)
            else:
                runtime_of(workload).export(model, str(place), workload, rows)
    return list(models)


def one_round(case: str, folder: Path, names: list[str], pairs: int) -> dict[str, list[float]]:
    """Milliseconds of every model, sweep by sweep, in this process."""
    torch.set_num_threads(1)
    sessions, call = {}, call_of(case)
    for engine in ENGINES:
        workload = workload_of(engine, call)
        runtime = runtime_of(workload)
        for name in names:
            loaded = runtime.load(str(folder / engine / name), workload)
            key = DENSE if (engine, name) == ("eager", "dense") else f"{engine}/{name}"
            sessions[key] = [runtime.build(loaded, workload, None)]
    clock = device.resolve("cpu", outside_torch=True)
    taken = time_round(sessions, clock, [workload_of("eager", call)], pairs=pairs, deadline_s=clock.now_s() + 600)
    found = {key: list(one.runs_ms) for key, one in taken.items()}
    return found | {"eager/dense": list(taken[f"eager/{names[-1]}"].dense_runs_ms)}


def scored(case: str, folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """Quality of a study's models on the sealed test split, by engine and name, of what the engine itself writes."""
    evaluator, call = study_bench(case), call_of(case)
    examples = evaluator.task.open_sealed_test()
    found: dict[str, dict[str, Any]] = {}
    for engine in ENGINES:
        workload = workload_of(engine, call)
        deployment = Deployment(workload, evaluator.task, nullcontext)
        for name in names:
            place = folder / engine / name
            served = deployment.runtime.load(str(place), workload) if deployment.by_engine else pruner.load(place)
            found[f"{engine}/{name}"] = deployment.score(served, "test", examples).model_dump(mode="json")
    return found


def gain(rounds: list[dict[str, list[float]]], above: str, below: str) -> Interval:
    """Median ratio of two models' calls of the same sweep, with a t-interval over rounds."""
    ratios = [np.array(r[above]) / np.array(r[below]) for r in rounds]
    low, high = intervals.median_bounds([r.tolist() for r in ratios])
    return float(np.median([np.median(r) for r in ratios])), low, high


def quotient(rounds: list[dict[str, list[float]]], above: str, below: str) -> str:
    """`gain` in words."""
    return "{:.2f}× ({:.2f} to {:.2f})".format(*gain(rounds, above, below))


def spread(rounds: list[dict[str, list[float]]], name: str) -> str:
    """Median milliseconds of a model with the t-interval over rounds."""
    low, high = intervals.median_bounds([r[name] for r in rounds])
    return f"{np.median([np.median(r[name]) for r in rounds]):.1f} ({low:.1f} to {high:.1f})"


def row(case: str, kept: dict[str, Any], engine: str, name: str) -> str:
    """One line of the table."""
    rounds, dense = kept["rounds"], f"{engine}/dense"
    alone = "-" if engine == "eager" else quotient(rounds, "eager/dense", dense)
    quality = [kept["quality"].get(f"{engine}/{n}") for n in (name, "dense")]
    said = (
        " of ".join(f"{q['value']:.2f} ± {intervals.half_width(q['standard_error']):.2f}" for q in quality if q) or "-"
    )
    share = f" ({quality[0]['value'] / quality[1]['value']:.1%})" if all(quality) else ""
    return (
        f"| {Path(case).name}: {name} | {engine} | {spread(rounds, dense)} | {spread(rounds, f'{engine}/{name}')} "
        f"| {quotient(rounds, dense, f'{engine}/{name}')} | {alone} | {said}{share} |"
    )


def picture(kept: dict[str, Any], path: Path) -> None:
    """What pruning is worth on each engine, for every case that was ever kept."""
    rows = {
        f"{case}: {name}": [gain(found["rounds"], f"{engine}/dense", f"{engine}/{name}") for engine in ENGINES]
        for case, found in kept.items()
        for name in [key.split("/")[1] for key in found["rounds"][0] if key.startswith("eager/")]
        if name != "dense"
    }
    title = "Pruned against dense on the same engine (95 % intervals, fresh processes)"
    forest(path, title, "times faster", rows, list(ENGINES), 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument(
        "--studies", nargs="*", default=[], metavar="FOLDER", help="finished studies with their exports"
    )
    parser.add_argument("--out", type=Path, default=Path("results/engines/engines.json.gz"))
    asked = parser.parse_args()
    kept: dict[str, Any] = {}
    if asked.out.exists():  # other cases stay
        kept = json.loads(gzip.decompress(asked.out.read_bytes()))
    print("| model | engine | dense ms | pruned ms | pruning on it | engine by itself (dense) | quality, sealed test |")
    print("|---" * 7 + "|", flush=True)
    for case in [*asked.cases, *asked.studies]:
        with (
            tempfile.TemporaryDirectory() as name,
            multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as fresh,
        ):
            names = fresh.apply(export, (case, Path(name)))
            rounds = [fresh.apply(one_round, (case, Path(name), names, asked.pairs)) for _ in range(asked.rounds)]
            quality = fresh.apply(scored, (case, Path(name), names)) if case not in CASES else {}
        kept[Path(case).name] = found = {"rounds": rounds, "quality": quality}
        for engine in ENGINES:
            for pruned in names[1:]:
                print(row(case, found, engine, pruned), flush=True)
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_bytes(gzip.compress(json.dumps(kept).encode(), mtime=0))
    picture(kept, asked.out.with_name("engines.png"))
    return 0
