"""Hard-concrete gates: closed forms, and what an attached model computes."""

from __future__ import annotations

import pytest
import torch
from tiny import batch_of, logits_of, model_of

from nash_search.modeling_nash import block_parts, encoder_blocks
from nash_search.pruner import cut, shapes_of, shorten
from nash_search.pruner.gates import LIMIT, Gates
from nash_search.pruner.surgery import encoder_parameters


@pytest.mark.parametrize("logit", [-2.0, -1.6, 0.0, 1.0, 2.0, 4.0])
def test_share_of_shut_draws_is_the_formula(logit):
    gates = Gates(model_of("t5"))
    gates.logits_G.data.fill_(logit)
    torch.manual_seed(0)
    draws = torch.cat([gates.sample().detach() for _ in range(600)])
    p, n = float(gates.shut_probability()[0].detach()), len(draws)
    assert abs(float((draws == 0).float().mean()) - p) < 3 * (p * (1 - p) / n) ** 0.5
    assert 0 <= float(draws.min()) and float(draws.max()) <= 1


def test_open_gates_are_the_shortened_teacher():
    model = shorten(model_of("bart"), 2)
    gates = Gates(model)
    expected = logits_of(model, batch_of())
    with gates.attached(model):
        assert torch.equal(logits_of(model, batch_of()), expected)
    assert float(gates.shut_probability().max().detach()) < 0.004
    assert torch.equal(logits_of(model, batch_of()), expected)


def test_expected_sparsity_counts_matrices_only_and_from_their_real_sizes():
    model = model_of("flan")  # gated FFN; heads * head width is not the model's width
    parts = block_parts(encoder_blocks(model)[0])
    attention = sum(getattr(parts.attention, name).weight.numel() for name in ("q", "k", "v", "o"))
    ffn = sum(getattr(parts.ffn, name).weight.numel() for name in ("wi_0", "wi_1", "wo"))
    assert encoder_parameters(model) == 4 * (attention + ffn)
    gates = Gates(model)
    assert float(gates.share_G.sum()) == pytest.approx(1, abs=1e-5)
    gates.logits_G.data.fill_(-40.0)
    assert float(gates.expected_sparsity().detach()) == pytest.approx(1, abs=1e-5)
    gates.logits_G.data.fill_(40.0)
    assert float(gates.expected_sparsity().detach()) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("kind", ["t5", "flan", "bart"])
def test_soft_gates_fold_into_the_cut(kind):
    model = model_of(kind)
    gates = Gates(model)
    generator = torch.Generator().manual_seed(1)
    gates.logits_G.data.uniform_(-4, 4, generator=generator)
    gates.use_evaluation()
    with gates.attached(model):
        expected = logits_of(model, batch_of())
    heads, neurons = gates.per_block(gates.evaluation().detach())
    kept = [[torch.nonzero(z).flatten().tolist() or [0] for z in values] for values in (heads, neurons)]
    smaller = cut(
        model,
        *kept,
        head_gates=[z[k] for z, k in zip(heads, kept[0], strict=True)],
        neuron_gates=[z[k] for z, k in zip(neurons, kept[1], strict=True)],
    )
    assert sum(shapes_of(smaller).encoder_neurons) < sum(shapes_of(model).encoder_neurons)
    difference = float((logits_of(smaller, batch_of()) - expected).abs().max())
    assert difference <= 1e-5 * max(1.0, float(expected.abs().max()))


def test_a_pure_gate_step_moves_nothing_but_gates():
    model = model_of("t5")
    gates = Gates(model)
    gates.expected_sparsity().backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert float(gates.logits_G.grad.abs().min()) > 0


def test_gates_reach_the_loss_and_stay_in_reach():
    model = model_of("t5")
    gates = Gates(model)
    gates.logits_G.data.fill_(0.0)
    with gates.attached(model):
        gates.draw()
        model(**batch_of()).loss.backward()
    assert int((gates.logits_G.grad != 0).sum()) > 0.2 * len(gates.logits_G)
    gates.logits_G.data.fill_(9.0)
    gates.clamp()
    assert float(gates.logits_G.detach().max()) == pytest.approx(LIMIT)


def test_heads_can_be_left_without_gates():
    model = model_of("bart")
    gates = Gates(model, heads=False)
    assert len(gates.logits_G) == sum(shapes_of(model).encoder_neurons)
    assert gates.per_block(gates.logits_G)[0] == []
    gates.logits_G.data.fill_(-40.0)
    parts = block_parts(encoder_blocks(model)[0])
    assert float(gates.expected_sparsity().detach()) == pytest.approx(
        2 * 32 * 48 / (4 * 32 * 32 + 2 * 32 * 48), abs=1e-5
    )
    assert parts.heads == 4
