"""Does T5-large train in this machine's memory? One optimizer step of each training stage, really taken.

    make study NAME=large-step [ARGS="--rows 4"]

Random weights of the published shape (738 million parameters), half of its decoder kept, 30 % of the encoder removed,
blocks computed again in the backward pass and the teacher in bfloat16. The weights are made in bfloat16 and in this
process alone, so that the peak is the training's.
"""

from __future__ import annotations

import argparse
import time

import torch
from transformers import T5Config, T5ForConditionalGeneration

from nash_search import pruner
from nash_search.config import Architecture, PruningRecipe
from nash_search.device import CpuDevice
from nash_search.pruner import memory

BILL = "11 minutes of one busy core, 14 GB"
GIB = 2**30
SHAPE = {
    "vocab_size": 32128, "d_model": 1024, "d_kv": 64, "d_ff": 4096, "num_layers": 24, "num_decoder_layers": 24,
    "num_heads": 16, "decoder_start_token_id": 0,
}  # fmt: skip
SOURCE, TARGET = 256, 64
"""Tokens of a row."""


def main() -> int:
    """Print what the step held and took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2)
    asked = parser.parse_args()
    torch.set_default_dtype(torch.bfloat16)
    teacher = T5ForConditionalGeneration(T5Config(**SHAPE)).eval()
    torch.set_default_dtype(torch.float32)
    count = sum(p.numel() for p in teacher.parameters())
    half = SHAPE["num_decoder_layers"] // 2
    held = memory.held_bytes(teacher, half, half_teacher=True)
    print(f"teacher: {count / 1e6:.0f} million parameters; by count {held / GIB:.1f} GiB held by it and the student")
    recipe = PruningRecipe(narrow_steps=1, tune_steps=1, batch_size=asked.rows, rungs=1, precision="auto")
    wanted = Architecture(encoder_sparsity_pct=30, decoder_layers=half, decoder_selection="uniform")

    def batch(step: int) -> dict[str, torch.Tensor]:
        g = torch.Generator().manual_seed(step)
        ids, labels = (torch.randint(3, 32100, (asked.rows, n), generator=g) for n in (SOURCE, TARGET))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}

    began = time.monotonic()
    context = pruner.TrainingContext(recompute=True)
    pruned, most = CpuDevice().most_bytes(lambda: pruner.run(teacher, wanted, recipe, batch, context))
    for name, stage in pruned.stages.items():
        print(f"{name}: a step of {asked.rows} rows, {stage['seconds']:.0f} s, loss {stage['loss']:.2f}")
    peak = "unknown" if most is None else f"{most / GIB:.1f} GiB"
    print(f"student: {sum(p.numel() for p in pruned.model.parameters()) / 1e6:.0f} million; peak {peak}; "
          f"{time.monotonic() - began:.0f} s in all")  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
