"""One plain, resumable training loop, used by every stage of a trial and by `finetune`.

    step k:  seed(k) -> batch(k) -> loss -> backward -> clip -> AdamW -> clamp

Everything random in step k is seeded by (seed, k) and the batch is a function of k, so a step depends
on the parameters and the optimizer's moments alone. Those are what a `StateFile` holds, in safetensors,
renamed into place: kill the process at any step, run again, and the result is bit-identical on CPU.
This module refuses to know what is trained and why.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from nash_search.files import staged_file
from nash_search.pruner.accumulation import Pieces

Batch = dict[str, torch.Tensor]
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
class Trained:
    """What one call of `train` came to."""

    steps: int
    """Optimizer steps, those before a resume included."""
    seconds: float
    """Wall time of those steps and of saving state (rungs excluded)."""
    loss: float
    """Last reported loss (NaN when no step was due)."""
    stopped: bool = False
    """A rung asked to end the trial."""


@dataclass(kw_only=True)
class StateFile:
    """The one file that a killed stage continues from.

    Args:
        path: where; the folder is made when first needed.
        question: what is being trained; a file that answers another question is ignored.
        every_s: seconds of training between saves, and at least `SAVE_SPACING` times what the last one took;
            0 saves after every step.
        details: JSON kept beside the tensors for whoever resumes.
    """

    path: Path
    question: str
    every_s: float = 20.0
    details: dict[str, Any] = field(default_factory=dict)

    def header(self) -> dict[str, Any] | None:
        """What is said beside the tensors, or None when there is nothing (for this question) to continue from."""
        if not self.path.is_file():
            return None
        with safe_open(self.path, framework="pt") as file:
            header: dict[str, Any] = json.loads((file.metadata() or {}).get("nash_search", "{}"))
        return header if header.get("question") == self.question else None

    def read(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
        """Header and tensors, or None as above."""
        header = self.header()
        if header is None:
            return None
        with safe_open(self.path, framework="pt") as file:
            return header, {name: file.get_tensor(name) for name in file.keys()}

    def write(self, header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Replace the file: written beside it, flushed to disk, renamed."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"question": self.question, "details": self.details, **header})
        kept = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        with staged_file(self.path, durable=True) as staging:
            save_file(kept, staging, metadata={"nash_search": text})


def linear_decay(steps: int, warmup: int = 0) -> Callable[[int], float]:
    """Rate factor of each step: up over the warm-up, then linearly to zero after the last step."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, (steps - step) / max(1, steps - warmup))

    return factor


def train(
    model: Any,
    *,
    loss: Callable[[Batch, int], torch.Tensor],
    batches: Callable[[int], Batch],
    steps: int,
    groups: list[Group],
    schedule: Callable[[int], float] | None = None,
    clip: float | None = 1.0,
    seed: int | str = 0,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    after_step: Callable[[int], None] | None = None,
    moved_after: Iterable[torch.nn.Parameter] = (),
    step_guard: Callable[[], AbstractContextManager[Any]] = nullcontext,
    on_step: Callable[[int, int, float], None] | None = None,
    report_every: int = 10,
    rungs: Collection[int] = (),
    on_rung: Callable[[int], bool | None] | None = None,
    state: StateFile | None = None,
    state_tensors: dict[str, torch.Tensor] | None = None,
) -> Trained:
    """Train in place and leave the model in eval mode.

    Args:
        model: put in train mode for the steps, in eval mode for rungs.
        loss: of (batch on the device, step); called inside autocast when the precision is bf16, and piece by piece
            (`accumulation.py`) when the batch does not fit the device's memory.
        batches: a pure function of the step, 0 first.
        steps: optimizer steps, those done before a resume included.
        groups: AdamW parameter groups.
        schedule: rate factor by step for scheduled groups (None: linear decay).
        clip: largest gradient norm of the clipped groups (None: no clipping).
        seed: everything random in a step is seeded by this and the step.
        device: where the model lives; batches are moved there.
        precision: `fp32`, or `bf16` for autocast.
        after_step: called with the step after the update (clamp); gradients are still there.
        moved_after: parameters that `after_step` moves instead of AdamW.
        step_guard: entered around every step.
        on_step: called with (steps done, steps, loss) every `report_every` steps, before a rung and at the last.
        rungs: numbers of steps done after which `on_rung` is called, once each.
        on_rung: returning True ends training; after a resume, rungs passed before are not called again.
        state: where to continue from and to save to.
        state_tensors: what else a resume needs, restored in place.

    Raises:
        FloatingPointError: when a reported loss is not finite.
    """
    device = torch.device(device)
    schedule = linear_decay(steps) if schedule is None else schedule
    parameters = [p for group in groups for p in group["params"]]
    clipped = [p for group in groups if group.get("clipped", True) for p in group["params"]]
    optimizer = torch.optim.AdamW(
        [{"weight_decay": 0.0, **group} for group in groups],
        fused=True,
    )
    for group in optimizer.param_groups:
        group["base_lr"] = group["lr"]
    step, seconds, passed, last = 0, 0.0, -1, math.nan
    found = state.read() if state is not None else None
    if found is not None:
        header, tensors = found
        step, seconds, passed, last = header["step"], header["seconds"], header["passed"], header["loss"]
        _restore(parameters, optimizer, tensors)
        for name, tensor in (state_tensors or {}).items():
            tensor.copy_(tensors[f"also.{name}"])

    saved = (step, passed) if found is not None else None
    saved_at, wait_s = time.perf_counter(), state.every_s if state is not None else 0.0

    def save() -> None:
        nonlocal seconds, saved, saved_at, wait_s
        if state is None or saved == (step, passed):
            return
        began = time.perf_counter()
        header = {"step": step, "seconds": seconds, "passed": passed, "loss": last}
        also = {f"also.{name}": tensor for name, tensor in (state_tensors or {}).items()}
        state.write(header, _snapshot(parameters, optimizer) | also)
        saved, saved_at = (step, passed), time.perf_counter()
        took_s = saved_at - began
        seconds += took_s
        wait_s = max(state.every_s, SAVE_SPACING * took_s) if state.every_s else 0.0

    def precise(batch: Batch, step: int) -> torch.Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            return loss(batch, step)

    def forget() -> None:
        for parameter in learned:
            parameter.grad = None

    def begin(step: int) -> None:
        _seed(seed, step, device)
        forget()  # what an attempt that ran out of memory had added

    pieces, learned = Pieces(), [*parameters, *moved_after]
    model.train()
    stopped = False
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        while step < steps or (step in rungs and passed < step):
            if step in rungs and passed < step:
                passed = step
                stopped = _at_rung(model, step, on_rung)
                save()
                if stopped or step == steps:
                    break
            with step_guard():
                started = time.perf_counter()  # waiting for the device is not training
                batch = {k: v.to(device, non_blocking=True) for k, v in batches(step).items()}
                for group in optimizer.param_groups:
                    group["lr"] = group["base_lr"] * (schedule(step) if group.get("scheduled", True) else 1.0)
                value = pieces.backward(partial(precise, step=step), batch, partial(begin, step))
                if clip is not None:
                    torch.nn.utils.clip_grad_norm_(clipped, clip)
                optimizer.step()
                if after_step is not None:
                    after_step(step)
                forget()  # scoring and timing have the memory to themselves
            step += 1
            if step % report_every == 0 or step == steps or step in rungs:
                last = float(value)
                if not math.isfinite(last):
                    raise FloatingPointError(f"loss must be finite, but got {last} at step {step} of {steps}")
                if on_step is not None:
                    on_step(step, steps, last)
            now = time.perf_counter()
            seconds += now - started
            if state is not None and now - saved_at >= wait_s:
                save()
    save()
    model.eval()
    return Trained(steps=step, seconds=seconds, loss=last, stopped=stopped)


def _at_rung(model: Any, step: int, on_rung: Callable[[int], bool | None] | None) -> bool:
    if on_rung is None:
        return False
    model.eval()
    try:
        return bool(on_rung(step))
    finally:
        model.train()


def _seed(seed: int | str, step: int, device: torch.device) -> None:
    """Everything random in this step follows from (seed, step)."""
    value = int.from_bytes(hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=7).digest())
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(value)


def _snapshot(parameters: Iterable[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for index, parameter in enumerate(parameters):
        tensors[f"{index}"] = parameter.data
        for name, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{index}.{name}"] = value
    return tensors


@torch.no_grad()
def _restore(
    parameters: Iterable[torch.nn.Parameter], optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]
) -> None:
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        if key and number != "also":
            moments.setdefault(int(number), {})[key] = tensor
    for index, parameter in enumerate(parameters):
        parameter.copy_(tensors[str(index)])
        if index in moments:
            optimizer.state[parameter] = {k: v.to(parameter.device) for k, v in moments[index].items()}
