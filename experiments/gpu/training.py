"""Steps of a trial on this device: rate, utilisation, memory, and where the time goes."""

from __future__ import annotations

import contextlib
import gc
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from experiments.gpu import models
from nash_search import device as devices
from nash_search import pruner
from nash_search.config import Architecture, PruningRecipe, TaskConfig
from nash_search.tasks.load import load_task

GIB = 2**30
LAUNCHES = (
    *("cudaLaunchKernel", "cuLaunchKernel", "cudaStreamSynchronize", "cudaMemcpyAsync", "cudaDeviceSynchronize"),
    *("aten::item", "aten::_local_scalar_dense"),
)


def run(device: str, tiny: bool, write: Any, until: float) -> None:
    """A T5-base trial in several settings, g2p's own, and a profile; the most wanted first."""
    name = devices.resolve(device).name
    rows, source, target = (4, 12, 6) if tiny else (16, 256, 64)
    t5 = models.dense("t5-base", name, tiny=tiny)
    data, half = _batches(t5.config.vocab_size, rows, source, target), len(t5.decoder.block) // 2

    def case(what: str, teacher: Any, data: Any, cut: tuple[int, int], steps: tuple[int, int], **more: Any) -> None:
        if time.monotonic() < until - 2:
            steps = (min(steps[0], 1), 1) if tiny else steps
            _case(write, name, what, teacher, data, cut, steps, **more)

    with tempfile.TemporaryDirectory() as folder:
        kept = pruner.TeacherCache(folder=Path(folder, "teacher"))
        case("t5-base warm-up", t5, data, (50, half), (4, 4))
        case("t5-base bf16", t5, data, (50, half), (25, 25))
        case("t5-base fp32", t5, data, (50, half), (10, 10), precision="fp32")
        case("t5-base fp32 with TF32", t5, data, (50, half), (10, 10), precision="fp32", matmul="high")
        case("t5-base bf16, teacher cache written", t5, data, (0, half), (0, 20), cache=kept)
        case("t5-base bf16, teacher cache read", t5, data, (0, half), (0, 20), cache=kept)
        case("t5-base bf16, state saved", t5, data, (50, half), (4, 4), folder=Path(folder, "state"))
    if time.monotonic() < until - 8:
        g2p = models.dense("g2p", name, tiny=tiny)
        task = load_task(TaskConfig(train_examples=64 if tiny else 6000, validation_examples=16, test_examples=16))
        batch = 8 if tiny else 128
        for precision in ("fp32",) if tiny else ("fp32", "bf16"):
            case(
                f"g2p {precision}",
                g2p,
                task.train_batches(batch, 0),
                (50, 3),
                (40, 40),
                precision=precision,
                batch=batch,
            )
    if time.monotonic() < until - 8:
        _profile(
            write, name, t5, data, Architecture(encoder_sparsity_pct=50, decoder_layers=half), rows, 1 if tiny else 3
        )


def _batches(vocabulary: int, rows: int, source: int, target: int) -> Callable[[int], dict[str, torch.Tensor]]:
    def batches(step: int) -> dict[str, torch.Tensor]:
        g = torch.Generator().manual_seed(step)
        ids, labels = (torch.randint(3, vocabulary, (rows, length), generator=g) for length in (source, target))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}

    return batches


def _case(
    write: Any, device: str, what: str, teacher: Any, data: Any, cut: tuple[int, int], steps: tuple[int, int], *,
    precision: str = "bf16", matmul: str = "highest", batch: int = 16, cache: Any = None, folder: Path | None = None,
) -> None:  # fmt: skip
    """One short trial: milliseconds a step of each stage, utilisation, memory at its peak and left behind."""
    recipe = PruningRecipe(narrow_steps=steps[0], tune_steps=steps[1], batch_size=batch, precision=precision, rungs=1)
    gpu, architecture = device != "cpu", Architecture(encoder_sparsity_pct=cut[0], decoder_layers=cut[1])
    torch.set_float32_matmul_precision(matmul)
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    try:
        context = pruner.TrainingContext(
            device=device,
            folder=folder,
            step_guard=lambda: devices.training_guard(device),
            teacher_cache=cache,
        )
        with watched(gpu) as seen:
            pruned = pruner.run(teacher, architecture, recipe, data, context)
    except Exception:
        write(what=what, error=traceback.format_exc())
        return
    finally:
        torch.set_float32_matmul_precision("highest")
    wall_s, stages = time.perf_counter() - began, pruned.stages
    del pruned
    gc.collect()
    memory: dict[str, float] = {}
    if gpu:
        peak, left = torch.cuda.max_memory_allocated() / GIB, torch.cuda.memory_allocated() / GIB
        memory = {"peak_gib": peak, "peak_reserved_gib": torch.cuda.max_memory_reserved() / GIB, "left_gib": left}
    rates = {key: 1e3 * stage["seconds"] / max(1, stage["steps"]) for key, stage in stages.items()}
    busy = [row[0] for row in seen]
    said = [f"{key} {value:.1f} ms/step" for key, value in rates.items()]
    said += [f"util {sum(busy) / len(busy):.0f}%"] if busy else []
    said += [f"{key} {value:.1f}" for key, value in memory.items()]
    facts = {"recipe": recipe.model_dump(mode="json"), "stages": stages, "wall_s": wall_s, "memory": memory}
    write(what=what, **facts, seen=list(seen), say=f"{what}: {', '.join(said)}")


def _profile(
    write: Any, device: str, teacher: Any, data: Any, architecture: Architecture, rows: int, steps: int
) -> None:
    """Launches, host reads and kernel time of so many steps of each stage."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device != "cpu" else [])]
    recipe = PruningRecipe(narrow_steps=steps, tune_steps=steps, batch_size=rows, precision="bf16", rungs=1)
    with profile(activities=activities) as seen:
        pruner.run(teacher, architecture, recipe, data, pruner.TrainingContext(device=device))
    found = {
        e.key: [e.count, e.self_cpu_time_total / 1e3, getattr(e, "self_device_time_total", 0.0) / 1e3]
        for e in seen.key_averages()
    }
    picked = {key: value for key, value in found.items() if key.startswith(LAUNCHES)}
    device_ms = sum(value[2] for value in found.values())
    counts = ", ".join(f"{key} {value[0]}" for key, value in picked.items())
    top = sorted(found.items(), key=lambda item: -item[1][2])[:25]
    write(what=f"profile of {steps} + {steps} steps", picked=picked, device_ms=device_ms, top=top,
          say=f"profile of {steps} narrow + {steps} tune steps: device busy {device_ms:.0f} ms; {counts}")  # fmt: skip


@contextlib.contextmanager
def watched(gpu: bool, every_s: float = 0.05) -> Iterator[list[tuple[int, int, float]]]:
    """Utilisation (percent), SM clock (MHz) and power (W) while the block runs; nothing without a GPU."""
    seen: list[tuple[int, int, float]] = []
    if not gpu:
        yield seen
        return
    import pynvml

    pynvml.nvmlInit()
    handle, over = pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device()), threading.Event()

    def look() -> None:
        while not over.wait(every_s):
            with contextlib.suppress(pynvml.NVMLError):
                busy = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
                clock, power_w = pynvml.nvmlDeviceGetClockInfo(handle, 1), pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3
                seen.append((busy, clock, power_w))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
