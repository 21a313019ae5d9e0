"""The target is reached, from both sides, at any scale of the task's loss."""

from __future__ import annotations

import pytest
import torch
from tiny import model_of

from nash_search.pruner.gates import Gates
from nash_search.pruner.lagrangian import Ascent, Solved, ramped_target


def importance_of(gates, scale):
    """Cost of losing a gate on a toy problem, heavy-tailed per weight."""
    generator = torch.Generator().manual_seed(0)
    return scale * torch.exp(1.5 * torch.randn(len(gates.logits_G), generator=generator)) * gates.share_G


@pytest.mark.parametrize("start", [4.0, -4.0], ids=["open", "shut"])
def test_ascent_reaches_the_target_from_both_sides(start):
    gates, ascent = Gates(model_of("t5")), Ascent()
    gates.logits_G.data.fill_(start)
    cost_G = importance_of(gates, 1.0)
    optimizer = torch.optim.Adam(
        [
            {"params": [gates.logits_G], "lr": 0.1},
            {"params": [ascent.values], "lr": 0.1, "maximize": True},
        ]
    )
    torch.manual_seed(0)
    for step in range(2000):
        target = ramped_target(0.4, step, 500)
        loss = (cost_G * (1 - gates.sample())).sum() + ascent.penalty(gates.expected_sparsity(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        gates.clamp()
        ascent.clamp()
        assert float(ascent.values[1].detach()) >= 0
    assert float(gates.expected_sparsity().detach()) == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize("steps", [100, 300])
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_solved_follows_the_ramp_at_any_scale_and_removes_what_matters_least(scale, steps):
    gates = Gates(model_of("t5"))
    cost_G = importance_of(gates, scale)
    solved = Solved(gates, 0.1)
    torch.manual_seed(0)
    for step in range(steps):
        (cost_G * (1 - gates.sample())).sum().backward()
        solved.step(step, ramped_target(0.5, step + 1, steps / 2))
    sparsity = float(gates.expected_sparsity().detach())
    assert sparsity == pytest.approx(0.5, abs=0.02)
    shut_G = gates.shut_probability().detach()
    removed = float((shut_G * cost_G).sum())
    at_random = 0.5 * float(cost_G.sum())
    assert removed < 0.35 * at_random
    assert gates.undecided_share() < (0.3 if steps == 100 else 0.1)


def test_solved_lets_the_task_open_gates_again():
    gates = Gates(model_of("t5"))
    gates.logits_G.data.fill_(-3.0)
    cost_G = importance_of(gates, 1.0)
    solved = Solved(gates, 0.1)
    torch.manual_seed(0)
    for step in range(600):
        (cost_G * (1 - gates.sample())).sum().backward()
        solved.step(step, 0.4)
    assert float(gates.expected_sparsity().detach()) == pytest.approx(0.4, abs=0.02)


def test_the_ramp_is_linear_and_then_flat():
    assert [round(ramped_target(0.6, k, 4), 3) for k in range(6)] == [0.0, 0.15, 0.3, 0.45, 0.6, 0.6]
