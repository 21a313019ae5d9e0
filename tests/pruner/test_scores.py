"""Scores against what they stand for: numerical derivatives, naive means, and where gates start."""

from __future__ import annotations

import pytest
import torch
from tiny import batch_of, model_of

from nash_search.modeling_nash import block_parts, encoder_blocks
from nash_search.pruner import scores
from nash_search.pruner.distillation import cross_entropy, forward
from nash_search.pruner.gates import OPEN, Gates


@pytest.mark.parametrize("kind", ["flan", "bart"])
def test_fisher_is_the_squared_derivative_per_weight(kind):
    model = model_of(kind).double()
    gates = Gates(model).double()
    found = scores.fisher(model, gates, batch_of, 2, "cpu")

    @torch.no_grad()
    def loss(gates_G, seed):
        gates.use(gates_G)
        batch = batch_of(seed)
        logits = forward(model, batch)
        return cross_entropy(logits, batch["labels"])

    with gates.attached(model):
        for index in (0, 2, len(found) // 2, len(found) - 1):
            step = torch.zeros_like(found)
            step[index] = 0.01
            slopes = [(loss(1 + step, seed) - loss(1 - step, seed)) / 0.02 for seed in (0, 1)]
            expected = sum(float(slope) ** 2 for slope in slopes) / float(gates.share_G[index])
            assert float(found[index]) == pytest.approx(expected, rel=0.03, abs=1e-3 * float(found.max()))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["flan", "bart"])
def test_magnitude_is_the_mean_square_of_all_a_unit_owns(kind):
    model = model_of(kind)
    gates = Gates(model)
    heads, neurons = gates.per_block(scores.magnitude(model, gates))
    for index, block in enumerate(encoder_blocks(model)):
        parts = block_parts(block)
        for head in range(parts.heads):
            rows = slice(head * parts.head_width, (head + 1) * parts.head_width)
            owned = [getattr(parts.attention, name).weight[rows].flatten() for name in parts.attention_in]
            owned.append(getattr(parts.attention, parts.attention_out).weight[:, rows].flatten())
            assert float(heads[index][head]) == pytest.approx(float(torch.cat(owned).square().mean()), rel=1e-4)
        owned = [getattr(parts.ffn, name).weight[3] for name in parts.ffn_in]
        owned.append(getattr(parts.ffn, parts.ffn_out).weight[:, 3])
        assert float(neurons[index][3]) == pytest.approx(float(torch.cat(owned).square().mean()), rel=1e-4)


def test_gates_start_lowest_where_least_is_lost_and_all_start_as_the_teacher():
    gates = Gates(model_of("t5"))
    scores_G = torch.rand(len(gates.share_G), generator=torch.Generator().manual_seed(0))
    logits_G = scores.start_logits(scores_G, gates, 0.3)
    low_G = logits_G < OPEN
    assert float(scores_G[low_G].max()) < float(scores_G[~low_G].min())
    assert float(gates.share_G[low_G].sum()) == pytest.approx(0.3, abs=float(gates.share_G.max()))
    gates.logits_G.data.copy_(logits_G)
    assert float(gates.evaluation().detach().min()) == 1
