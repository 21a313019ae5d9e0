"""How much each head and neuron matters, without training gates: one score per gate.

    magnitude: mean square of the weights the unit owns
    random:    a draw per unit
    fisher:    sum over examples of (d log p(labels)/dz)^2 at z = 1, per weight the unit owns
               (Kwon et al. 2022, arXiv 2204.09656: the diagonal of the Fisher information of the mask)

`magnitude` and `random` are baselines; `fisher` can also tell gates where to start (`gate_init`). Scores are per
weight, so that heads and neurons compare at equal cost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from nash_search.modeling_nash import block_parts, encoder_blocks
from nash_search.pruner.distillation import cross_entropy, forward
from nash_search.pruner.gates import OPEN, Gates
from nash_search.pruner.placing import Batch

FISHER_BATCHES = 8
"""Batches that Fisher scores are taken on."""


@torch.no_grad()
def magnitude(model: Any, gates: Gates) -> torch.Tensor:
    """Mean square weight of every gate's unit."""
    heads, neurons = [], []
    for block in encoder_blocks(model):
        parts = block_parts(block)
        attention = [parts.attention.get_submodule(name).weight for name in parts.attention_in]
        columns = torch.cat([*attention, parts.attention.get_submodule(parts.attention_out).weight.T], dim=1)
        heads.append(columns.square().mean(1).view(parts.heads, -1).mean(1))
        ffn = [getattr(parts.ffn, name).weight for name in parts.ffn_in]
        neurons.append(torch.cat([*ffn, getattr(parts.ffn, parts.ffn_out).weight.T], dim=1).square().mean(1))
    return torch.cat([*(heads if gates.heads else []), *neurons])


def at_random(gates: Gates, seed: int) -> torch.Tensor:
    """A score that knows nothing."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(gates.share_G.shape, generator=generator).to(gates.share_G.device)


def fisher(model: Any, gates: Gates, batches: Callable[[int], Batch], count: int, device: Any) -> torch.Tensor:
    """Squared gradient of each example's log-likelihood by every gate, open, summed over `count` batches."""
    total_G = torch.zeros_like(gates.share_G)
    model.eval()
    with gates.attached(model):
        for step in range(count):
            batch = {k: v.to(device) for k, v in batches(step).items()}
            rows, labels = len(batch["labels"]), batch["labels"]
            ones_BG = total_G.new_ones(rows, len(total_G)).requires_grad_()  # a gate per example: one backward for all
            gates.use(ones_BG)
            loss = (
                cross_entropy(forward(model, batch), labels) * (labels != -100).sum()
            )  # of all tokens, not their mean
            (gradient_BG,) = torch.autograd.grad(loss, ones_BG)
            total_G += gradient_BG.square().sum(0)
    gates.use_evaluation()
    return total_G / gates.share_G


@torch.no_grad()
def start_logits(scores_G: torch.Tensor, gates: Gates, sparsity: float, lowest: float = 2.4) -> torch.Tensor:
    """Initial gate logits: open for what matters, `lowest` for the least important `sparsity` of the weights.

    2.4 is the least logit whose evaluation gate is exactly 1: the student still starts as the teacher.
    """
    order = torch.argsort(scores_G)
    before_G = torch.cumsum(gates.share_G[order], 0)
    logits_G = torch.full_like(scores_G, OPEN)
    logits_G[order[before_G <= sparsity]] = lowest
    return logits_G
