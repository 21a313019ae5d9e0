"""One plain, resumable training loop, used by every stage of a trial and by `finetune`.

    step k:  seed(k) -> batch(k) -> loss -> backward -> clip -> AdamW -> clamp

Everything random in step k is seeded by (seed, k) and the batch is a function of k, so a step depends
on the parameters and the optimizer's moments alone. Those are what a `StateFile` holds: kill the process
at any step, run again, and the result is bit-identical on CPU.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch

from nash_search.pruner import memory
from nash_search.pruner.accumulation import Pieces
from nash_search.pruner.placing import Batch, placed
from nash_search.pruner.state_file import StateFile, restore, snapshot
from nash_search.pruner.teacher_cache import TeacherCache
from nash_search.recipes import Precision

WIDE = 256
"""Width from which bfloat16's faster products outweigh the casts: 1.4 to 1.9 times at 256 to 512, 0.7 at 128 (CPU)."""
SAVE_SPACING = 20
"""Saves are so many times their own duration apart: they cost 5 % of the training at most."""


class Group(TypedDict):
    """Parameters that are trained alike (an AdamW parameter group)."""

    params: list[torch.nn.Parameter]
    lr: float
    scheduled: NotRequired[bool]
    """The schedule scales its rate (default True)."""
    clipped: NotRequired[bool]
    """Its gradients count in the norm that is clipped (default True)."""
    maximize: NotRequired[bool]
    weight_decay: NotRequired[float]


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """How parameters move."""

    groups: Sequence[Group]
    """AdamW parameter groups."""
    schedule: Callable[[int], float] | None = None
    """Rate factor by step for scheduled groups (None: linear decay)."""
    clip: float | None = 1.0
    """Largest gradient norm of the clipped groups (None: no clipping)."""
    precision: Precision = "fp32"
    """`fp32`, `bf16` for autocast, or `auto`: see `in_bf16`."""
    after_step: Callable[[int], None] | None = None
    """Called with the step after the update (clamp); gradients are still there."""
    recompute: bool = False
    """Compute blocks again in the backward pass from the first step on (gradient checkpointing), for the memory of what
    would be kept; otherwise only where a single row does not fit."""
    moved_after: Sequence[torch.nn.Parameter] = ()
    """Parameters that `after_step` moves instead of AdamW."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What happens around the steps of one `train`; none of it changes what is trained."""

    step_guard: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Entered around every step."""
    on_step: Callable[[int, int, float], None] | None = None
    """Called with (steps done, steps, loss) every `report_every` steps, before a rung and at the last."""
    report_every: int = 10
    rungs: Collection[int] = ()
    """Numbers of steps done after which `on_rung` is called, once each."""
    on_rung: Callable[[int], None] | None = None
    """Called with the steps done, model in eval mode; after a resume, rungs passed before are not called again."""


@dataclass(frozen=True, kw_only=True)
class TrainingContext:
    """What a whole training (of a trial, of a supernet) is given beside the question: where it runs, who watches."""

    seed: int = 0
    """Of everything random; the same seed gives the same model on CPU."""
    device: str | torch.device = "cpu"
    """Where training happens."""
    step_guard: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Entered around every optimizer step."""
    on_progress: Callable[[str, int, int, float], None] | None = None
    """Called with (stage, steps done, steps, loss); steps count over the whole training."""
    on_rung: Callable[[int, Any], None] | None = None
    """Called with (steps done, model) `recipe.rungs` times, the last one on the final model. In stage 2 the model has
    its gates attached (evaluation gates). A supernet has no rungs."""
    folder: Path | None = None
    """Where state is saved; a call with the same question continues from it. Rungs passed before are not called
    again. The caller removes it once the result is safe."""
    save_every_s: float = 20.0
    """Seconds of training between saves of the state (0: after every step)."""
    recompute: bool = False
    """As in `Optimization`."""
    half_teacher: bool = False
    """The teacher answers in bfloat16, of its own on the device; students start from the weights it was given in."""
    teacher_cache: TeacherCache | None = None
    """The teacher's states and answers, kept from trial to trial; stage 4 then skips its forward pass wherever another
    trial was before."""

    def at_rung(self, step: int, model: Any) -> None:
        """Tell `on_rung`, where there is one."""
        if self.on_rung is not None:
            self.on_rung(step, model)

    def state(self, name: str, question: str) -> StateFile | None:
        """The state of one part of the training, where there is a folder for it."""
        if self.folder is None:
            return None
        return StateFile(path=self.folder / f"{name}.safetensors", question=question, every_s=self.save_every_s)


ALONE = TrainingContext()
"""On the CPU, unwatched, nothing kept."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What one call of `train` came to."""

    steps: int
    """Optimizer steps, those before a resume included."""
    seconds: float
    """Wall time of those steps and of saving state (rungs excluded)."""
    loss: float
    """Last reported loss (NaN when no step was due)."""


def linear_decay(steps: int, warmup: int = 0) -> Callable[[int], float]:
    """Rate factor of each step: up over the warm-up, then linearly to zero after the last step."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, (steps - step) / max(1, steps - warmup))

    return factor


def in_bf16(precision: Precision, model: Any, device: torch.device) -> bool:
    """Does training multiply in bfloat16?

    Args:
        precision: `fp32`, `bf16`, or `auto`: where the device has units for it and the model is wide enough to gain.
        model: a transformers model.
        device: that it trains on.
    """
    if precision != "auto":
        return precision == "bf16"
    if model.get_input_embeddings().embedding_dim < WIDE:
        return False
    return torch.cuda.is_bf16_supported(False) if device.type == "cuda" else bool(torch.cpu._is_amx_tile_supported())


def in_tf32(precision: Precision, device: torch.device) -> bool:
    """Does training multiply what stays in float32 in a GPU's TF32? Not where `fp32` was asked for by name."""
    return device.type == "cuda" and precision != "fp32"


@contextmanager
def _products(precision: str | None) -> Iterator[None]:
    """Set PyTorch's float32 matmul precision inside (None: leave it); scoring and timing happen outside."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision or before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def train(
    model: Any,
    *,
    loss: Callable[[Batch, int], torch.Tensor],
    batches: Callable[[int], Batch],
    steps: int,
    optimization: Optimization,
    seed: int | str = 0,
    watch: Watch = Watch(),
    state: StateFile | None = None,
) -> Trained:
    """Train in place and leave the model in eval mode.

    Args:
        model: put in train mode for the steps, in eval mode for rungs.
        loss: of (batch on the parameters' device, step); called inside autocast when the precision is bf16, and piece
            by piece (`accumulation.py`) when the batch does not fit the device's memory.
        batches: a pure function of the step, 0 first.
        steps: optimizer steps, those done before a resume included.
        optimization: what moves, and how.
        seed: everything random in a step is seeded by this and the step.
        watch: who is told and asked between steps.
        state: where to continue from and to save to.

    Raises:
        FloatingPointError: when a reported loss is not finite.
    """
    groups, rungs = optimization.groups, watch.rungs
    schedule = optimization.schedule or linear_decay(steps)
    parameters = [p for group in groups for p in group["params"]]
    device = parameters[0].device
    clipped = [p for group in groups if group.get("clipped", True) for p in group["params"]]
    optimizer = torch.optim.AdamW([{"weight_decay": 0.0, **group} for group in groups], fused=True)
    for group in optimizer.param_groups:
        group["base_lr"] = group["lr"]
    step, seconds, passed, last = 0, 0.0, -1, math.nan
    found = state.read() if state is not None else None
    if found is not None:
        header, tensors = found
        step, seconds, passed, last = header["step"], header["seconds"], header["passed"], header["loss"]
        restore(parameters, optimizer, tensors)

    saved = (step, passed) if found is not None else None
    saved_at, wait_s = time.perf_counter(), state.every_s if state is not None else 0.0

    def save() -> None:
        nonlocal seconds, saved, saved_at, wait_s
        if state is None or saved == (step, passed):
            return
        began = time.perf_counter()
        header = {"step": step, "seconds": seconds, "passed": passed, "loss": last}
        state.write(header, snapshot(parameters, optimizer))
        saved, saved_at = (step, passed), time.perf_counter()
        took_s = saved_at - began
        seconds += took_s
        wait_s = max(state.every_s, SAVE_SPACING * took_s) if state.every_s else 0.0

    def precise(batch: Batch, step: int) -> torch.Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            return loss(placed(batch, device), step)

    def forget() -> None:
        for parameter in learned:
            parameter.grad = None

    def begin(step: int) -> None:
        _seed(seed, step, device)
        forget()  # what an attempt that ran out of memory had added

    bf16, tf32 = in_bf16(optimization.precision, model, device), in_tf32(optimization.precision, device)
    relieve = partial(memory.recompute, model)
    pieces, learned = Pieces(relieve=relieve), [*parameters, *optimization.moved_after]
    if optimization.recompute:
        relieve()
    model.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        while step < steps or (step in rungs and passed < step):
            if step in rungs and passed < step:
                passed = step
                _at_rung(model, step, watch.on_rung)
                save()
                if step == steps:
                    break
            with watch.step_guard(), _products("high" if tf32 else None):
                started = time.perf_counter()  # waiting for the device is not training
                batch = batches(step)
                for group in optimizer.param_groups:
                    group["lr"] = group["base_lr"] * (schedule(step) if group.get("scheduled", True) else 1.0)
                value = pieces.backward(partial(precise, step=step), batch, partial(begin, step))
                if optimization.clip is not None:
                    torch.nn.utils.clip_grad_norm_(clipped, optimization.clip)
                optimizer.step()
                if optimization.after_step is not None:
                    optimization.after_step(step)
                forget()  # scoring and timing have the memory to themselves
            step += 1
            if step % watch.report_every == 0 or step == steps or step in rungs:
                last = float(value)
                if not math.isfinite(last):
                    raise FloatingPointError(f"loss must be finite, but got {last} at step {step} of {steps}")
                if watch.on_step is not None:
                    watch.on_step(step, steps, last)
            now = time.perf_counter()
            seconds += now - started
            if state is not None and now - saved_at >= wait_s:
                save()
    save()
    memory.keep_everything(model)
    model.eval()
    return Trained(steps=step, seconds=seconds, loss=last)


def _at_rung(model: Any, step: int, on_rung: Callable[[int], None] | None) -> None:
    if on_rung is None:
        return
    model.eval()
    try:
        on_rung(step)
    finally:
        model.train()


def _seed(seed: int | str, step: int, device: torch.device) -> None:
    """Everything random in this step follows from (seed, step)."""
    value = int.from_bytes(hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=7).digest())
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(value)
