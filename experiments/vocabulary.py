"""What are fewer tokens worth in latency on a T5-small shape?

    python -m experiments vocabulary [--kept 8000] [--rounds 3] [--pairs 16]

Each row is a model next to itself with fewer tokens, call by call in one process on one thread: the dense
shape, and the shape that pruning leaves (half the encoder, 2 of 6 decoder blocks), where the head weighs most.
"""

from __future__ import annotations

import argparse
import json
import sys

import torch
import transformers

from nash_search import latency, pruner
from nash_search.config import Architecture, Workload

BILL = "3 minutes"

SMALL = {"vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_heads": 8, "num_layers": 6}
SHAPES = {
    "dense": Architecture(encoder_sparsity_pct=0, decoder_layers=6),
    "pruned": Architecture(encoder_sparsity_pct=50, decoder_layers=2),
}


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--kept", type=int, default=8000)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--pairs", type=int, default=16)
    asked.add_argument("--input-tokens", type=int, default=64)
    asked.add_argument("--output-tokens", type=int, default=32)
    given = asked.parse_args()
    torch.manual_seed(0)
    config = transformers.T5Config(**SMALL, num_decoder_layers=6, decoder_start_token_id=0)
    model = transformers.T5ForConditionalGeneration(config).eval()
    workload = Workload(input_tokens=given.input_tokens, output_tokens=given.output_tokens)
    rows = []
    for name, architecture in SHAPES.items():
        whole = pruner.random_cut(model, architecture)
        trimmed = pruner.trim_vocabulary(whole, range(given.kept))
        found = latency.measure(trimmed, whole, workload, rounds=given.rounds, pairs=given.pairs, limit_s=900)
        low, high = found.ratio_bounds
        rows.append(
            {
                "shape": name, "architecture": architecture.slug, "vocabulary": SMALL["vocab_size"],
                "kept": given.kept, "whole_ms": found.dense_ms, "trimmed_ms": found.median_ms,
                "share": found.ratio, "share_bounds": [low, high], "pairs": len(found.runs_ms), "status": found.status,
            }
        )  # fmt: skip
        print(
            f"{name:>7} {architecture.slug:>11}: {found.dense_ms:6.0f} ms -> {found.median_ms:6.0f} ms, "
            f"share {found.ratio:.3f} ({low:.3f} to {high:.3f}), {1 / found.ratio:.2f}x",
            file=sys.stderr,
        )
    print(json.dumps({"workload": workload.model_dump(mode="json"), "rows": rows}))
    return 0
