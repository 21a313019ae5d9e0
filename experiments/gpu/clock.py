"""The clock's promises on this device: shorter is faster, a twin is equal, fresh processes agree.

A random T5-small-shaped model beside shorter decoders: in this process (bfloat16 and float32) and in fresh ones.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import T5Config, T5ForConditionalGeneration

from nash_search import device as devices
from nash_search import latency
from nash_search.config import Workload
from nash_search.latency.measurement import rows
from nash_search.latency_record import Latency

FULL = {"vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8}
TINY = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 4, "num_heads": 4}


def make(sizes: dict[str, int], decoder_blocks: int):
    """A random model with the dense encoder and this many decoder blocks."""
    torch.manual_seed(0)
    config = T5Config(**sizes, num_decoder_layers=decoder_blocks, decoder_start_token_id=0)
    return T5ForConditionalGeneration(config).eval()


def run(device: str, tiny: bool, write: Any, until: float) -> None:
    """Every measurement with its raw samples as it is taken, then every promise; a rehearsal's models are tiny."""
    told: set[str] = set()

    def keep(found: dict[str, Latency]) -> None:
        for name in [name for name in found if name not in told]:
            told.add(name)
            write(what=name, latency=found[name].model_dump(mode="json"), say=f"{name}: {dict(rows(found[name]))}")

    for promise, holds in promises(device, keep, until):
        write(what=promise, holds=holds, say=f"{'ok' if holds else 'NO'} {promise}")


def promises(name: str, keep: Callable[[dict[str, Latency]], None], until: float) -> list[tuple[str, bool]]:
    """(What must hold on any machine, whether it does); `keep` is given what was measured so far."""
    device = devices.resolve(name)
    on_gpu = device.name != "cpu"
    sizes = FULL if on_gpu else TINY
    pairs, rounds = (30, 3) if on_gpu else (8, 2)
    blocks = sizes["num_layers"]
    dense = make(sizes, blocks).to(device.name)
    half, one = make(sizes, blocks // 2).to(device.name), make(sizes, 1).to(device.name)
    base = Workload(device=device.name, input_tokens=64, output_tokens=32 if on_gpu else 6)
    found: dict[str, Latency] = {}
    for dtype in ("bfloat16", "float32"):
        workload = base.model_copy(update={"dtype": dtype})
        taken = latency.measure_many(
            {"half": half, "one": one, "twin": dense}, dense, workload, pairs=pairs, limit_s=40
        )
        found |= {f"{dtype} {key}": value for key, value in taken.items()}
        keep(found)
    with tempfile.TemporaryDirectory() as folder:
        for key, model in (("dense", dense), ("half", half)):
            model.save_pretrained(Path(folder) / key)
        workload = base.model_copy(update={"dtype": "bfloat16"})
        path, limit_s = Path(folder), max(30.0, until - time.monotonic())
        settings: dict[str, Any] = {"rounds": rounds, "pairs": min(20, pairs), "limit_s": limit_s}
        found["fresh half"] = latency.measure_fresh({"half": path / "half"}, path / "dense", workload, **settings)[
            "half"
        ]
    keep(found)
    twin, fresh = found["float32 twin"], found["fresh half"]
    checks = [
        ("a shorter decoder is faster", found["float32 one"].ratio < found["float32 half"].ratio < 1),
        ("a model is as fast as itself, within 10 %", abs(twin.ratio - 1) < 0.1),
        (
            "fresh processes agree with this one, within 15 %",
            abs(fresh.ratio / found["bfloat16 half"].ratio - 1) < 0.15,
        ),
        ("every fresh round was taken", len(fresh.rounds) == rounds and fresh.fresh),
    ]
    if on_gpu:
        r = twin.rounds[0]
        checks += [
            ("event times beside every wall time", len(r.device_ms) == len(r.runs_ms)),
            (
                "events are within the wall clock",
                all(e <= w * 1.02 for e, w in zip(r.device_ms, r.runs_ms, strict=True)),
            ),
            ("NVML watches this GPU", r.surroundings.get("nvml") is True),
            ("peak memory is counted", twin.details.get("peak_memory_bytes", 0) > 0),
        ]
    return checks
