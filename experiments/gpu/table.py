"""Latencies of real sizes, dense beside its cuts: eager, compiled, and on CTranslate2."""

from __future__ import annotations

import copy
import gc
import time
import traceback
from typing import Any

import torch

from experiments.gpu import models
from nash_search import device as devices
from nash_search import latency
from nash_search.config import Workload

BANDWIDTH_B_S = 3.0e12
"""Of an H100's memory; the floor under a call is its bytes by this."""
B, F, H = "bfloat16", "float32", "float16"
EAGER = (
    ("g2p", ((B, 64), (F, 64), (B, 1)), ("half", "narrow-half", "one")),
    ("t5-base", ((B, 1), (B, 32)), ("half", "narrow-half", "one")),
    ("bart-large", ((B, 1), (B, 32)), ("half", "narrow-half", "one")),
    ("t5-small", ((B, 1), (B, 32), (F, 1), (H, 1)), ("half", "narrow-half", "one")),
    ("bart-base", ((B, 1), (B, 32)), ("half", "narrow-half")),
    ("marian", ((B, 1), (B, 32)), ("half", "narrow-half")),
)
"""Model, (precision, batch), cuts; the most wanted first."""
COMPILED = (
    ("t5-base", 1, ("half",)),
    ("t5-small", 1, ("half", "twin")),
    ("g2p", 64, ("half", "narrow-half")),
    ("t5-small", 32, ("half",)),
    ("bart-base", 1, ("half",)),
    ("marian", 1, ("half",)),
)
PEER = {"input_tokens": 352, "output_tokens": 128}
"""TensorRT-LLM's own table has 260 to 440 tokens in and at most 128 out, on an H100 in bfloat16."""
PEER_MS = {32: 280, 64: 343, 128: 473}
"""Its BART-large-CNN, by batch."""
BATCHES = (
    *(("bart-large", batch, PEER) for batch in PEER_MS),
    *(("t5-base", batch, {}) for batch in (64, 128)),
    ("g2p", 256, {}),
)
CTRANSLATE2 = (("g2p", 64), ("t5-small", 1), ("t5-small", 32), ("t5-base", 1))


def eager(device: str, tiny: bool, write: Any, until: float) -> None:
    """Family x precision x batch."""
    name = devices.resolve(device).name
    for model, cases, which in EAGER[:3] if tiny else EAGER:
        if time.monotonic() > until - 3:
            return
        dense = models.dense(model, name, tiny=tiny)
        cuts = models.cuts(dense, which)
        for index, (dtype, batch) in enumerate(cases):
            left_s = until - time.monotonic()
            if left_s < 3:
                return
            workload = _workload(model, name, tiny, dtype=dtype, batch_size=batch)
            settings = {"pairs": 4 if tiny else 10, "limit_s": min(12.0, left_s), "details": index == 0}
            _row(write, model, workload, cuts, dense, **settings)
        del dense, cuts
        gc.collect()
        if name != "cpu":
            torch.cuda.empty_cache()


def batches(device: str, tiny: bool, write: Any, until: float) -> None:
    """Batches that fill the card, BART-large at a peer's lengths."""
    name = devices.resolve(device).name
    for model, batch, lengths in BATCHES[::3] if tiny else BATCHES:
        left_s = until - time.monotonic()
        if left_s < 3:
            return
        dense = models.dense(model, name, tiny=tiny)
        cuts = models.cuts(dense, ("half", "narrow-half", "one"))
        workload = _workload(model, name, tiny, dtype=B if name != "cpu" else F, batch_size=batch)
        workload = workload.model_copy(update={} if tiny else lengths)
        if lengths:
            write(
                what=f"peer's {model} b{batch}", ms=PEER_MS[batch], say=f"  TensorRT-LLM's {PEER_MS[batch]} ms (H100)"
            )
        settings = {"pairs": 4 if tiny else 8, "limit_s": min(20.0, left_s), "details": True}
        _row(write, model, workload, cuts, dense, **settings)
        del dense, cuts
        gc.collect()
        if name != "cpu":
            torch.cuda.empty_cache()


def compiled(device: str, tiny: bool, write: Any, until: float) -> None:
    """CUDA graphs through `generate`'s static cache; is a graph recorded inside a timed call?"""
    name = devices.resolve(device).name
    recorded = _count_recordings() if name != "cpu" else {}
    worst_s = 0.0 if tiny else 25.0
    for model, batch, which in COMPILED[:1] if tiny else COMPILED:
        if until - time.monotonic() < max(3.0, worst_s):
            return
        began, before = time.monotonic(), dict(recorded)
        dense = models.dense(model, name, tiny=tiny)
        cuts = models.cuts(dense, tuple(w for w in which if w != "twin"))
        cuts |= {"twin": copy.deepcopy(dense)} if "twin" in which else {}
        workload = _workload(model, name, tiny, dtype=B if name != "cpu" else F, batch_size=batch, runtime="compile")
        fine = _row(write, model, workload, cuts, dense, pairs=4 if tiny else 20, limit_s=12.0, details=False)
        took_s = time.monotonic() - began
        found = {key: recorded[key] - before[key] for key in recorded}
        said = ", ".join(f"{count} {key}" for key, count in found.items()) or "no CUDA graphs on this device"
        write(what=f"graphs {model} b{batch}", counts=found, say=f"  {said}, in {took_s:.0f} s")
        worst_s = max(worst_s, 1.1 * took_s) if fine and not tiny else worst_s


def ctranslate2(device: str, tiny: bool, write: Any, until: float) -> None:
    """The engine that most people serve these families with, where its wheel was carried."""
    name = devices.resolve(device).name
    for model, batch in CTRANSLATE2:
        if time.monotonic() > until - 8:
            return
        dense = models.dense(model, name, tiny=tiny)
        for dtype in (F, B) if name != "cpu" else (F,):
            workload = _workload(model, name, tiny, dtype=dtype, batch_size=batch, runtime="ctranslate2")
            cuts = models.cuts(dense, ("half", "narrow-half"))
            if not _row(write, model, workload, cuts, dense, pairs=4 if tiny else 10, limit_s=10.0, details=False):
                break


def _workload(model: str, device: str, tiny: bool, *, batch_size: int, **more: Any) -> Workload:
    lengths = {"input_tokens": 8, "output_tokens": 7} if model == "g2p" else {"input_tokens": 64, "output_tokens": 32}
    if tiny:
        lengths, batch_size = {"input_tokens": 8, "output_tokens": 4}, min(batch_size, 2)
    return Workload(device=device, batch_size=batch_size, **lengths, **more)


def _row(write: Any, name: str, workload: Workload, cuts: dict[str, Any], dense: Any, **settings: Any) -> bool:
    """Dense and its cuts, interleaved, with every raw sample and what each costs at least; False after an error."""
    call = f"b{workload.batch_size} {workload.input_tokens}->{workload.output_tokens}"
    about, began = f"{name} {workload.runtime} {workload.dtype} {call}", time.monotonic()
    try:
        found = latency.measure_many(cuts, dense, workload, **settings)
    except Exception:
        write(what=about, error=traceback.format_exc())
        return False
    floors = {key: models.least(m, name, workload) for key, m in {"dense": dense, **cuts}.items()}
    first, floor = next(iter(found.values())), floors["dense"]
    said = f"{about}: dense {first.dense_ms:.2f} ms ({1e3 * first.dense_ms / floor['kernels']:.1f} us a kernel, "
    said += f"memory floor {1e3 * floor['bytes'] / BANDWIDTH_B_S:.2f} ms)"
    for key, value in found.items():
        by_kernels = floors[key]["kernels"] / floor["kernels"]
        said += f", {key} {value.median_ms:.2f} ({value.ratio:.2f}, by kernels {by_kernels:.2f})"
    status = sorted({v.status for v in found.values()} - {"clean"})
    write(
        what=about,
        workload=workload.model_dump(mode="json"),
        took_s=time.monotonic() - began,
        floors=floors,
        found={key: v.model_dump(mode="json", exclude={"fingerprint", "workload"}) for key, v in found.items()},
        say=said + (f" [{', '.join(status)}]" if status else ""),
    )
    return True


def _count_recordings() -> dict[str, int]:
    """Counters that grow when inductor records, runs or replays a CUDA graph."""
    from torch._inductor.cudagraph_trees import CUDAGraphTreeManager

    counts = {"recorded": 0, "run eagerly": 0, "replayed": 0}

    def counted(key: str, real: Any) -> Any:
        def call(self: Any, *given: Any, **more: Any) -> Any:
            counts[key] += 1
            return real(self, *given, **more)

        return call

    for key, method in zip(counts, ("record_function", "run_eager", "execute_node"), strict=True):
        setattr(CUDAGraphTreeManager, method, counted(key, getattr(CUDAGraphTreeManager, method)))
    return counts
