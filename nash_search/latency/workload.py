"""What one timed `generate` is: from what the user fixed and what the data suggest.

Latency depends on shapes, so the tokens themselves may be random; their number may not. Every
default is deterministic: the same request means the same workload on every machine of a kind.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch

from nash_search.config import Workload, WorkloadRequest, digest
from nash_search.encoder_rows import Batch, Given, rows_of
from nash_search.errors import InvalidInput
from nash_search.token_rows import TokenRows
from nash_search.traffic import Traffic

PROTOCOL = 2
"""Version of what a latency means; a change makes every cached number a miss."""


def resolve(
    request: WorkloadRequest,
    *,
    input_tokens: int,
    output_tokens: int,
    batch_size: int = 1,
    beams: int = 1,
    device: str = "cpu",
) -> Workload:
    """The workload in full; what the request leaves open comes from the data and the device.

    Args:
        request: what the user fixed.
        input_tokens: median encoder input of the task's data, tokens.
        output_tokens: median generated length, tokens.
        batch_size: the task's own.
        beams: of the teacher's generation config.
        device: resolved name, `cpu` or `cuda:N`.
    """
    if request.runtime == "eager" and request.quantize != "none":
        raise InvalidInput(f"quantize must be none for runtime eager, but got {request.quantize}")
    default_dtype: Literal["float32", "bfloat16"] = "float32" if device == "cpu" else "bfloat16"
    return Workload(
        device=device,
        dtype=request.dtype or default_dtype,
        threads=request.threads or 1,
        batch_size=request.batch_size or batch_size,
        input_tokens=request.input_tokens or input_tokens,
        output_tokens=request.output_tokens or output_tokens,
        beams=request.beams or beams,
        runtime=request.runtime,
        quantize=request.quantize,
    )


@dataclass(frozen=True)
class Inputs:
    """One batch on the host, padded to the workload's input length."""

    batch: Batch
    """What a model's forward takes, by its names."""
    kind: Literal["random", "task"]

    @property
    def ids_BL(self) -> torch.Tensor:
        """Of token ids."""
        return self.batch["input_ids"]

    @property
    def mask_BL(self) -> torch.Tensor:
        """1 where a token is real."""
        return self.batch["attention_mask"]


def random_inputs(workload: Workload, *, vocabulary: int, pad: int, special: Collection[int] = ()) -> Inputs:
    """Rows of ordinary tokens, as long as the workload says; the same workload gives the same rows."""
    ordinary = torch.tensor([i for i in range(vocabulary) if i not in special])
    if not len(ordinary):
        raise InvalidInput(f"the model must have tokens that are not special, but got a vocabulary of {vocabulary}")
    seed = int(digest([workload.batch_size, workload.input_tokens])[:8], 16)
    generator = torch.Generator().manual_seed(seed)
    shape = workload.batch_size, workload.input_tokens
    ids_BL = ordinary[torch.randint(len(ordinary), shape, generator=generator)]
    mask_BL = torch.ones_like(ids_BL)
    for row, tokens in enumerate(workload.row_tokens):
        mask_BL[row, tokens:] = 0
    return Inputs({"input_ids": ids_BL.masked_fill(mask_BL == 0, pad), "attention_mask": mask_BL}, "random")


def random_features(workload: Workload, bins: int, frames: int) -> Inputs:
    """Features between -1 and 1; the same workload gives the same ones."""
    generator = torch.Generator().manual_seed(workload.batch_size)
    features_BFT = torch.rand(workload.batch_size, bins, frames, generator=generator) * 2 - 1
    return Inputs({"input_features": features_BFT}, "random")


def task_inputs(workload: Workload, given: Given, *, pad: int) -> Inputs:
    """Real inputs, repeated to the batch size; token ids are cut or padded to the input length."""
    rows = rows_of(given)
    if not len(rows) or not all(rows.lengths):
        raise InvalidInput("inputs must be at least one row, but got an empty one")
    if not isinstance(rows, TokenRows):
        return Inputs(rows.picked([i % len(rows) for i in range(workload.batch_size)]).batch(pad), "task")
    widths = workload.row_tokens or (workload.input_tokens,) * workload.batch_size
    ids_BL = torch.full((workload.batch_size, workload.input_tokens), pad)
    mask_BL = torch.zeros_like(ids_BL)
    for index, width in enumerate(widths):
        row = torch.tensor(rows[index % len(rows)][:width])
        ids_BL[index, : len(row)] = row
        mask_BL[index, : len(row)] = 1
    return Inputs({"input_ids": ids_BL, "attention_mask": mask_BL}, "task")


def of_traffic(workload: Workload, traffic: Traffic | None) -> Workload:
    """The same runtime, answering the requests of a traffic in its batches (None: the same call).

    Raises:
        InvalidInput: it cannot take them as they come.
    """
    if traffic is None:
        return workload
    if workload.runtime == "compile":
        what = "runtime must take any length where requests are timed as they come, but got compile, which makes one"
        raise InvalidInput(what, where="--traffic", fix="give another --runtime, or --traffic fixed")
    return workload.model_copy(update={"traffic": traffic, **traffic.median._asdict()})
