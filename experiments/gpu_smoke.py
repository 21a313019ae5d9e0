"""Does the clock hold on this GPU?

Takes under five minutes and leaves one file of raw samples. Times a random T5-small-shaped model against shorter
decoders: in process (eager bf16 and fp32), in fresh processes, and compiled with a static cache (CUDA graphs), saving
after each; checks what must be true on any machine and prints the rest. Exit code 1: a check failed; 2: there is no
such GPU. `--device cpu` rehearses it with tiny models where there is none.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import T5Config, T5ForConditionalGeneration

from nash_search import device as devices
from nash_search import latency
from nash_search.config import Workload
from nash_search.errors import NashSearchError
from nash_search.latency.measurement import rows
from nash_search.records import Latency

BILL = "5 minutes of one GPU"

LIMIT_S = 280.0
FULL = {"vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8}
TINY = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 4, "num_heads": 4}


def make(sizes: dict[str, int], decoder_blocks: int):
    """A random model with the dense encoder and this many decoder blocks."""
    torch.manual_seed(0)
    config = T5Config(**sizes, num_decoder_layers=decoder_blocks, decoder_start_token_id=0)
    return T5ForConditionalGeneration(config).eval()


def smoke(
    name: str, keep: Callable[[dict[str, Latency]], None], *, compile_too: bool = True
) -> tuple[dict[str, Latency], list[tuple[str, bool]]]:
    """Every measurement by name, and (what must hold, whether it does); `keep` is given what there is so far."""
    device = devices.resolve(name)
    on_gpu = device.name != "cpu"
    sizes = FULL if on_gpu else TINY
    deadline = time.monotonic() + LIMIT_S
    blocks = sizes["num_layers"]
    dense = make(sizes, blocks).to(device.name)
    half, one = make(sizes, blocks // 2).to(device.name), make(sizes, 1).to(device.name)
    base = Workload(device=device.name, input_tokens=64, output_tokens=32 if on_gpu else 6)
    found: dict[str, Latency] = {}
    for dtype in ("bfloat16", "float32"):
        workload = base.model_copy(update={"dtype": dtype})
        taken = latency.measure_many({"half": half, "one": one, "twin": dense}, dense, workload, pairs=30, limit_s=40)
        found |= {f"{dtype} {key}": value for key, value in taken.items()}
        keep(found)
    with tempfile.TemporaryDirectory() as folder:
        for key, model in (("dense", dense), ("half", half)):
            model.save_pretrained(Path(folder) / key)
        workload = base.model_copy(update={"dtype": "bfloat16"})
        path = Path(folder)
        found["fresh half"] = latency.measure_fresh(
            {"half": path / "half"}, path / "dense", workload, rounds=3, pairs=20, limit_s=80
        )["half"]
    keep(found)
    if compile_too:
        workload = base.model_copy(update={"dtype": "bfloat16" if on_gpu else "float32", "runtime": "compile"})
        found["compile half"] = latency.measure(
            half, dense, workload, pairs=30, limit_s=max(20.0, deadline - time.monotonic()), details=False
        )
    twin, fresh = found["float32 twin"], found["fresh half"]
    checks = [
        ("a shorter decoder is faster", found["float32 one"].ratio < found["float32 half"].ratio < 1),
        ("a model is as fast as itself, within 10 %", abs(twin.ratio - 1) < 0.1),
        (
            "fresh processes agree with this one, within 15 %",
            abs(fresh.ratio / found["bfloat16 half"].ratio - 1) < 0.15,
        ),
        ("three fresh rounds", len(fresh.rounds) == 3 and fresh.fresh),
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
    return found, checks


def main(arguments: list[str] | None = None) -> int:
    """Run, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled run out")
    parser.add_argument("--keep", type=Path, default=Path("results/gpu-smoke.json"), help="every sample")
    asked = parser.parse_args(arguments)
    began = time.monotonic()

    def keep(found: dict[str, Latency]) -> None:
        asked.keep.parent.mkdir(parents=True, exist_ok=True)
        asked.keep.write_text(json.dumps({name: value.model_dump(mode="json") for name, value in found.items()}))

    try:
        found, checks = smoke(asked.device, keep, compile_too=not asked.no_compile)
    except NashSearchError as error:
        print(f"gpu-smoke: {error}", file=sys.stderr)
        return error.exit_code
    keep(found)
    for name, value in found.items():
        print(name)
        for label, text in rows(value):
            print(f"{label:>20}  {text}")
    for promise, holds in checks:
        print(f"{'ok ' if holds else 'NO '} {promise}")
    print(f"{time.monotonic() - began:.0f} s; every sample is in {asked.keep}")
    return 0 if all(holds for _, holds in checks) else 1
