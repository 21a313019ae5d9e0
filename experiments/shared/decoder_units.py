"""A decoder made narrower: fewer heads in both of its attentions and fewer FFN neurons, in place.

    scores   Fisher information of each head and neuron (as `pruner.importance` has it for the encoder)
    kept     the same number of heads everywhere, which engines ask for; of T5's self-attentions the same ones in every
             block, since its first block computes the position bias of all
    cut      rows of what goes into a unit, columns of what comes out of it

A prototype of the experiments: a folder cannot say such a model, so it is trained, scored and timed in memory alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from nash_search import loading
from nash_search.families import family_of
from nash_search.modeling_nash import block_parts, narrow_block
from nash_search.pruner.distillation import Batch, cross_entropy, forward
from nash_search.pruner.importance import FISHER_BATCHES


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Indices of what stays, increasing, one list per decoder block."""

    self_heads: Sequence[list[int]]
    cross_heads: Sequence[list[int]]
    neurons: Sequence[list[int]]


def _crossing(model: Any, block: Any) -> Any:
    """The block as `block_parts` reads one, with its cross-attention in the place of its self-attention."""
    _, cross = family_of(model).decoder_attentions(block)
    if hasattr(block, "layer"):  # T5
        return SimpleNamespace(layer=[SimpleNamespace(SelfAttention=cross), block.layer[-1]])
    return SimpleNamespace(self_attn=cross, fc1=block.fc1, fc2=block.fc2)


def units(model: Any) -> list[tuple[Any, int]]:
    """(output projection, its units): self-attention of every block, then cross-attention, then FFN."""
    blocks = family_of(model).decoder_blocks(model)
    own, crossing = [block_parts(b) for b in blocks], [block_parts(_crossing(model, b)) for b in blocks]
    heads = [(p.attention.get_submodule(p.attention_out), p.heads) for p in (*own, *crossing)]
    return heads + [(getattr(p.ffn, p.ffn_out), p.neurons) for p in own]


def fisher(model: Any, batches: Callable[[int], Batch], count: int = FISHER_BATCHES) -> list[torch.Tensor]:
    """Squared gradient of each example's log-likelihood by every unit, open, summed: one tensor per `units`."""
    found = units(model)
    total = [torch.zeros(number) for _, number in found]
    model.eval()
    for step in range(count):
        batch = batches(step)
        gates = [torch.ones(len(batch["labels"]), number, requires_grad=True) for _, number in found]
        with ExitStack() as stack:
            for (linear, number), gate_BG in zip(found, gates, strict=True):
                columns = gate_BG.repeat_interleave(linear.in_features // number, 1).unsqueeze(1)
                hook = linear.register_forward_pre_hook(lambda _, given, gate=columns: (given[0] * gate,))
                stack.callback(hook.remove)
            loss = cross_entropy(forward(model, batch), batch["labels"]) * (batch["labels"] != -100).sum()
        for sum_G, gradient_BG in zip(total, torch.autograd.grad(loss, gates), strict=True):
            sum_G += gradient_BG.square().sum(0)
    return total


def kept_by(model: Any, scores: Sequence[torch.Tensor], heads_pct: float, neurons_pct: float) -> Kept:
    """The best by score, so many percent fewer: heads by count per attention, neurons over all blocks."""
    depth = len(scores) // 3
    own, crossing, neurons = list(scores[:depth]), scores[depth : 2 * depth], scores[2 * depth :]
    if family_of(model).first_block_has_bias:
        own = [torch.stack(own).sum(0)] * depth
    count = max(1, round((1 - heads_pct / 100) * len(own[0])))
    best = [sorted(s.topk(count).indices.tolist()) for s in (*own, *crossing)]
    every = torch.cat(list(neurons))
    floor = every.sort(descending=True).values[max(depth, round((1 - neurons_pct / 100) * len(every))) - 1]
    stay = [[i for i, s in enumerate(block) if s >= floor] or [int(block.argmax())] for block in neurons]
    return Kept(self_heads=best[:depth], cross_heads=best[depth:], neurons=stay)


def at_random(model: Any) -> list[torch.Tensor]:
    """Scores that know nothing and keep as many neurons in every block: latency depends on shapes alone."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randperm(number, generator=generator).double() for _, number in units(model)]


@torch.no_grad()
def cut(model: Any, kept: Kept) -> Any:
    """A copy whose decoder has these units alone; its config still says the old sizes."""
    student = loading.copied(model)
    blocks = family_of(student).decoder_blocks(student)
    for block, own, crossing, neurons in zip(blocks, kept.self_heads, kept.cross_heads, kept.neurons, strict=True):
        narrow_block(_crossing(student, block), crossing, list(range(block_parts(block).neurons)))
        narrow_block(block, own, neurons)
    return student
