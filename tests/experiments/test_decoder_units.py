"""A narrower decoder of the experiments: what is cut computes what it computed with its other units shut."""

from __future__ import annotations

import pytest
import torch

from experiments.shared import decoder_units
from tests.pruner.tiny import batch_of, logits_of, model_of


@pytest.mark.parametrize("kind", ["t5", "bart", "pegasus"])
def test_a_cut_decoder_is_the_whole_one_with_units_shut(kind: str) -> None:
    model = model_of(kind)
    batch = batch_of()
    scores = decoder_units.fisher(model, lambda step: batch, 1)
    kept = decoder_units.kept_by(model, scores, 50, 50)
    assert len({len(heads) for heads in (*kept.self_heads, *kept.cross_heads)}) == 1  # engines have one number
    if kind == "t5":
        assert len({tuple(heads) for heads in kept.self_heads}) == 1  # one position bias for all
    small = decoder_units.cut(model, kept)
    stay = [*kept.self_heads, *kept.cross_heads, *kept.neurons]
    for (linear, count), indices in zip(decoder_units.units(model), stay, strict=True):
        gate = torch.zeros(count)
        gate[indices] = 1
        gate = gate.repeat_interleave(linear.in_features // count)
        linear.register_forward_pre_hook(lambda _, given, gate=gate: (given[0] * gate,))
    assert torch.allclose(logits_of(small, batch), logits_of(model, batch), atol=1e-5)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
