"""What do gates, cutting and their memory cost in the pruner?

Exits 1 when a bound is broken. Three numbers: a gated training step against the ungated distillation step at the same
batch (time, then peak memory), and the cut of a T5-base-sized random model. Steps alternate arms in rounds; the
ratio is the median over rounds, so a busy machine slows both. Memory is read in a process of its own per arm.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import T5Config, T5ForConditionalGeneration

from nash_search.config import Architecture, PruningRecipe
from nash_search.pruner import random_cut, shorten
from nash_search.pruner.distillation import Batch, Distillation
from nash_search.pruner.gates import Gates
from nash_search.pruner.lagrangian import Solved
from nash_search.pruner.training import Group, Optimization, train

BILL = "5 minutes"

STEP_BOUND, MEMORY_BOUND, CUT_BOUND_S = 1.25, 1.10, 5.0
SIZES: dict[str, dict[str, Any]] = {
    "g2p": {"d_model": 64, "d_kv": 16, "d_ff": 256, "num_heads": 4, "num_layers": 6, "vocab_size": 72},
    "t5-small": {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_heads": 8, "num_layers": 6, "vocab_size": 32128},
    "t5-base": {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_heads": 12, "num_layers": 12, "vocab_size": 32128},
}
BATCHES = {"g2p": (128, 9, 8), "t5-small": (4, 64, 24), "t5-base": (4, 128, 48)}
"""Sequences, input tokens, output tokens."""


def model_of(size: str) -> Any:
    """A random T5 of this size."""
    torch.manual_seed(0)
    return T5ForConditionalGeneration(T5Config(**SIZES[size], decoder_start_token_id=0)).eval()


class Arm:
    """One kind of training step, gated or not, on its own student."""

    def __init__(self, teacher: Any, size: str, gated: bool, device: str) -> None:
        self.student = shorten(teacher, 3)
        self.distillation = Distillation(self.student, teacher, (0, 2, 5), PruningRecipe(), hidden=True)
        last = len(teacher.decoder.block) - 1
        self.distillation.matched = [0, last // 2, last]
        self.gates = Gates(self.student) if gated else None
        self.solved = Solved(self.gates, 0.1) if self.gates is not None else None
        self.size, self.device = size, device

    def batch(self, step: int) -> Batch:
        count, source, target = BATCHES[self.size]
        generator = torch.Generator().manual_seed(step)
        words = SIZES[self.size]["vocab_size"]
        ids = torch.randint(3, words, (count, source), generator=generator)
        labels = torch.randint(3, words, (count, target), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}

    def steps(self, count: int) -> float:
        """Seconds per step."""

        def loss(batch: Batch, step: int) -> torch.Tensor:
            if self.gates is not None:
                self.gates.draw()
            return distilled(batch)

        def after_step(step: int) -> None:
            if self.solved is not None:
                self.solved.step(step, 0.3)

        with self.distillation.attached() as distilled:
            if self.gates is None:
                trained = self._train(loss, after_step, count)
            else:
                with self.gates.attached(self.student):
                    trained = self._train(loss, after_step, count)
        return trained / count

    def _train(self, loss: Any, after_step: Any, count: int) -> float:
        group = Group(params=list(self.student.parameters()), lr=1e-5)
        moves = Optimization(groups=[group], after_step=after_step)
        started = time.perf_counter()
        train(self.student, loss=loss, batches=self.batch, steps=count, optimization=moves)
        return time.perf_counter() - started


def step_ratio(size: str, device: str, rounds: int, count: int) -> tuple[float, float, float]:
    """Gated over ungated, and both in milliseconds per step."""
    teacher = model_of(size).to(device)
    gated, plain = Arm(teacher, size, True, device), Arm(teacher, size, False, device)
    for arm in (gated, plain):
        arm.steps(2)
    pairs = []
    for index in range(rounds):
        first, second = (gated, plain) if index % 2 else (plain, gated)
        took = {first: first.steps(count), second: second.steps(count)}
        pairs.append((took[gated], took[plain]))
    ratio = statistics.median(g / p for g, p in pairs)
    return ratio, 1e3 * statistics.median(g for g, _ in pairs), 1e3 * statistics.median(p for _, p in pairs)


def peak_bytes(size: str, device: str, gated: bool) -> int:
    """Peak memory of three steps in this process."""
    teacher = model_of(size).to(device)
    arm = Arm(teacher, size, gated, device)
    arm.steps(3)
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status").read_text()  # ru_maxrss would carry the parent's peak through exec
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def memory_ratio(size: str, device: str) -> float:
    """Peak of a gated process over that of an ungated one."""
    found = []
    for arm in ("gated", "plain"):
        command = [sys.executable, __file__, "--device", device, "--peak", size, arm]
        found.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]))
    return found[0] / found[1]


def cut_s() -> float:
    """Seconds to shorten and cut a T5-base-sized random model."""
    model = model_of("t5-base")
    started = time.perf_counter()
    random_cut(model, Architecture(encoder_sparsity_pct=50, decoder_layers=4))
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", nargs="+", default=["g2p", "t5-small"], choices=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON document last")
    parser.add_argument("--peak", nargs=2, metavar=("SIZE", "ARM"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.peak:
        print(peak_bytes(asked.peak[0], asked.device, asked.peak[1] == "gated"))
        return 0
    document: dict[str, Any] = {"device": asked.device, "cut_t5_base_s": cut_s()}
    broken = document["cut_t5_base_s"] > CUT_BOUND_S
    print(f"cut of a T5-base-sized model   {document['cut_t5_base_s']:6.2f} s   (at most {CUT_BOUND_S:g} s)")
    for size in asked.sizes:
        ratio, gated_ms, plain_ms = step_ratio(size, asked.device, asked.rounds, 20 if size == "g2p" else 3)
        memory = memory_ratio(size, asked.device)
        document[size] = {"step_ratio": ratio, "gated_ms": gated_ms, "ungated_ms": plain_ms, "memory_ratio": memory}
        broken |= ratio > STEP_BOUND or memory > MEMORY_BOUND
        took = f"at most {STEP_BOUND:g}; {gated_ms:.1f} / {plain_ms:.1f} ms"
        print(f"{size:10} gated / ungated step   {ratio:6.3f}     ({took})")
        print(f"{size:10} gated / ungated memory {memory:6.3f}     (at most {MEMORY_BOUND:g})")
    if asked.json:
        print(json.dumps(document))
    return int(broken)


if __name__ == "__main__":  # memory is read in a process of its own that runs this file with `--peak`
    sys.exit(main())
