"""What a training holds in a device's memory whatever its batch, and whether the teacher must be halved for it.

    student   16 bytes a parameter: itself, its gradient and AdamW's two moments, in float32
    teacher    4 bytes a parameter, or 2 in bfloat16

What comes on top follows the batch, which is halved where it does not fit, and then blocks are computed again in the
backward pass (`accumulation`). These bytes give way to nothing but a smaller teacher.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

from nash_search.device import Device
from nash_search.families import family_of

TRAINED_BYTES, WHOLE_BYTES, HALF_BYTES = 16, 4, 2
"""Of memory a parameter: of a student that is trained, of a teacher in float32, of one in bfloat16."""
HELD_SHARE = 2 / 3
"""Of a device that student and teacher may hold; the rest is what a batch takes."""


def student_parameters(teacher: Any, decoder_layers: int) -> int:
    """Parameters of a student with a whole encoder and so many of the teacher's decoder blocks."""
    blocks = family_of(teacher).decoder_blocks(teacher)
    dropped = sum(p.numel() for block in list(blocks)[decoder_layers:] for p in block.parameters())
    return sum(p.numel() for p in teacher.parameters()) - dropped


def held_bytes(teacher: Any, decoder_layers: int, *, half_teacher: bool = False) -> int:
    """What student and teacher take of a device for as long as a trial trains."""
    whole = sum(p.numel() for p in teacher.parameters())
    return TRAINED_BYTES * student_parameters(teacher, decoder_layers) + whole * (
        HALF_BYTES if half_teacher else WHOLE_BYTES
    )


def must_halve(teacher: Any, decoder_layers: int, device: Device) -> bool:
    """True on a GPU of which student and float32 teacher would hold more than `HELD_SHARE`; False on a CPU."""
    return device.name != "cpu" and held_bytes(teacher, decoder_layers) > HELD_SHARE * device.total_bytes()


def recomputes(model: Any) -> bool:
    """Does this model compute blocks again in the backward pass?"""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def recompute(model: Any) -> bool:
    """Turn gradient checkpointing on: each block's input is kept, its inside is computed again in the backward pass.

    Calls the function beneath transformers' `gradient_checkpointing_enable`, which from 5.23 on has another name.

    Returns:
        False where it is on already, or the model does not support it.
    """
    if not getattr(model, "supports_gradient_checkpointing", False) or recomputes(model):
        return False
    again = partial(checkpoint, use_reentrant=False)
    model._set_gradient_checkpointing(enable=True, gradient_checkpointing_func=again)
    return True


def keep_everything(model: Any) -> None:
    """Undo `recompute`."""
    if recomputes(model):
        model._set_gradient_checkpointing(enable=False)
