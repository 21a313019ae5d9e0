"""The teacher's own answers as targets: sequence-level distillation (Kim & Rush 2016, arXiv 1606.07947).

    data: step -> {inputs, labels}     answered(teacher, data): step -> {inputs, what the teacher generates}

An answer is what `generate` returns with the teacher's own decoding settings, without the start token and
with -100 after its end, so that everything that takes batches takes these. They are made once per batch
where `TeacherOutputs` are given. This module refuses to know losses and stages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from nash_search.errors import InvalidInput
from nash_search.pruner.distillation import Batch, source_of
from nash_search.pruner.families import adapter_of
from nash_search.pruner.teacher_outputs import TeacherOutputs

Batches = Callable[[int], Batch]


def answered(teacher: Any, data: Batches, outputs: TeacherOutputs | None = None) -> Batches:
    """The same batches with the teacher's answers as labels.

    Args:
        teacher: the dense model, in eval mode; not changed.
        data: step -> batch; the longest label of a batch bounds its answers' length.
        outputs: where answers are kept from trial to trial (None: made again each time).

    Raises:
        InvalidInput: for a family whose labels are not what it generates (mBART wraps its last label
            around to the front, Whisper's prompt is left out of its answers).
    """
    family = adapter_of(teacher)
    if not family.answers_are_labels:
        raise InvalidInput(f"answers must be labels as they are generated, but got {family.model_type}'s")

    def batch_at(step: int) -> Batch:
        batch = data(step)
        labels = (
            _generate(teacher, batch) if outputs is None else outputs.answers(batch, lambda: _generate(teacher, batch))
        )
        return {**batch, "labels": labels}

    return batch_at


@torch.no_grad()
def _generate(teacher: Any, batch: Batch) -> torch.Tensor:
    """Labels (B,T)."""
    source = {name: tensor.to(teacher.device) for name, tensor in source_of(batch).items()}
    longest = batch["labels"].shape[1]
    settings = {"max_new_tokens": longest, "do_sample": False, "forced_eos_token_id": None}
    tokens_BT = teacher.generate(**source, **settings)[:, 1:]
    ends = torch.tensor(teacher.generation_config.eos_token_id, device=tokens_BT.device)
    ended_BT = torch.isin(tokens_BT, ends)
    return tokens_BT.masked_fill(ended_BT.cumsum(1) - ended_BT.long() > 0, -100).cpu()
