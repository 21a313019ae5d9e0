"""A batch on the device that trains, beside the host's copy of it.

Which labels count and what a batch is called in a cache are computed from the host's copy: reading a value back from a
GPU would wait for every kernel that was launched.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

Batch = dict[str, torch.Tensor]
"""What the model's forward takes: input_ids and attention_mask (B,S), or Whisper's input_features; and labels
(B,T) with pads -100."""
IGNORED = -100
"""A label that does not count."""


class Placed(Batch):
    """A batch on a device; `host` holds the same tensors where they were made."""

    host: Mapping[str, torch.Tensor]


def placed(batch: Mapping[str, torch.Tensor], device: torch.device) -> Placed:
    """The batch on the device; a GPU copies it from pinned memory, so that the host need not wait."""
    found = Placed({name: _to(tensor, device) for name, tensor in batch.items()})
    found.host = batch
    return found


def on_host(batch: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """The host's copy of the batch; the batch itself where it was not `placed`."""
    return batch.host if isinstance(batch, Placed) else batch


def counted(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Positions of the labels that count, in the flattened (B,T): (N,) on the batch's device."""
    where_N = (on_host(batch)["labels"].flatten() != IGNORED).nonzero()[:, 0]
    return _to(where_N, batch["labels"].device)


def _to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
