"""Which heads and neurons of the encoder are kept.

`choose` hardens: it keeps the best units so that the *counted* sparsity is the asked one to within one
unit, at least one head and one neuron per block. Units are compared by whatever score they are given:
learned gates, magnitudes or Fisher scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nash_search.errors import InvalidInput

Kept = list[list[int]]
"""Kept indices per encoder block, increasing."""


@dataclass(frozen=True, kw_only=True)
class Units:
    """What `choose` chooses from, one entry per encoder block; a higher score is kept first."""

    head_scores: Sequence[torch.Tensor]
    """Empty: the heads stay, all of them."""
    neuron_scores: Sequence[torch.Tensor]
    head_parameters: Sequence[int]
    """Weights that one head of the block owns."""
    neuron_parameters: Sequence[int]
    total_parameters: int
    """Attention and FFN weights of the whole encoder, removable or not."""

    @property
    def fixed_parameters(self) -> int:
        """Weights that stay whatever is chosen."""
        sizes = zip(self.head_scores, self.head_parameters, strict=False)
        removable = sum(len(scores) * each for scores, each in sizes)
        removable += sum(len(s) * each for s, each in zip(self.neuron_scores, self.neuron_parameters, strict=True))
        return self.total_parameters - removable

    def parameters(self, heads: Sequence[int], neurons: Sequence[int]) -> int:
        """Encoder weights left when these many heads and neurons are kept per block."""
        left = self.fixed_parameters + sum(n * each for n, each in zip(heads, self.head_parameters, strict=False))
        return left + sum(n * each for n, each in zip(neurons, self.neuron_parameters, strict=True))

    def largest_sparsity(self, width_multiple: int = 1) -> float:
        """The fraction removed when every block is down to its last head and neurons."""
        neurons = [min(width_multiple, len(scores)) for scores in self.neuron_scores]
        return 1 - self.parameters([1] * len(self.head_scores), neurons) / self.total_parameters


def choose(units: Units, sparsity: float, widths: str = "free", width_multiple: int = 1) -> tuple[Kept, Kept]:
    """Kept heads and neurons per block; no heads are listed where the heads stay.

    Args:
        units: scores and sizes.
        sparsity: fraction of the encoder's weights to remove.
        widths: `free`, or `uniform`: the same number of heads and of neurons in every block.
        width_multiple: FFN widths are multiples of this (or the block's full width).

    Raises:
        InvalidInput: when even the smallest encoder keeps more than asked.
    """
    largest = units.largest_sparsity(width_multiple)
    budget = (1 - sparsity) * units.total_parameters
    heads, neurons = _best_first(units, budget)
    if widths == "uniform":
        heads, neurons = _uniform(units, heads, budget, width_multiple)
    elif width_multiple > 1:
        neurons = _rounded(units, heads, neurons, budget, width_multiple)
    step = max(units.neuron_parameters) * width_multiple * (len(neurons) if widths == "uniform" else 1)
    if sparsity > largest and units.parameters(heads, neurons) > budget + step:
        raise InvalidInput(
            f"encoder_sparsity_pct must be at most {100 * largest:.1f} for this model, but got {100 * sparsity:g}"
        )
    return _top(units.head_scores, heads), _top(units.neuron_scores, neurons)


def _best_first(units: Units, budget: float) -> tuple[list[int], list[int]]:
    """How many heads and neurons per block a walk from the best unit down can pay for.

    A unit that no longer fits is passed over, so that the walk ends less than one neuron short.
    """
    kinds = [(0, b, s, units.head_parameters[b]) for b, s in enumerate(units.head_scores)]
    kinds += [(1, b, s, units.neuron_parameters[b]) for b, s in enumerate(units.neuron_scores)]
    counts = [[1] * len(units.head_scores), [1] * len(units.neuron_scores)]
    left = budget - units.parameters(*counts)
    queue = []
    for kind, block, scores, each in kinds:  # the best unit of each block is already in
        ranked = torch.sort(scores.detach().double(), descending=True).values[1:].tolist()
        queue += [(-score, rank, kind, block, each) for rank, score in enumerate(ranked)]
    for _, _, kind, block, each in sorted(queue):
        if each <= left:
            counts[kind][block] += 1
            left -= each
    return counts[0], counts[1]


def _uniform(units: Units, heads: list[int], budget: float, multiple: int) -> tuple[list[int], list[int]]:
    """The same counts in every block: heads near the walk's mean, neurons to fill the budget."""
    blocks, widest = len(units.neuron_scores), min(len(s) for s in units.neuron_scores)
    mean = sum(heads) / len(heads) if heads else 0.0
    options = range(1, min(len(s) for s in units.head_scores) + 1) if heads else [0]
    best: tuple[float, list[int], list[int]] | None = None
    for count in sorted(options, key=lambda option: abs(option - mean)):
        kept_heads = [count] * len(heads)
        left = budget - units.parameters(kept_heads, [0] * blocks)
        steps = max(1, round(left / (sum(units.neuron_parameters) * multiple)))
        kept_neurons = [min(steps * multiple, widest)] * blocks
        miss = abs(units.parameters(kept_heads, kept_neurons) - budget)
        if best is None or miss < best[0]:
            best = miss, kept_heads, kept_neurons
        if miss <= sum(units.neuron_parameters) * multiple:
            break
    assert best is not None
    return best[1], best[2]


def _rounded(units: Units, heads: list[int], neurons: list[int], budget: float, multiple: int) -> list[int]:
    """Widths as multiples: down to the multiple, then one more where most was lost, while it can be paid."""
    full = [len(scores) for scores in units.neuron_scores]
    rounded = [min(max(n // multiple * multiple, multiple), f) for n, f in zip(neurons, full, strict=True)]
    order = sorted(range(len(full)), key=lambda b: rounded[b] - neurons[b])
    for block in order:
        more = min(rounded[block] + multiple, full[block])
        wider = [*rounded[:block], more, *rounded[block + 1 :]]
        if units.parameters(heads, wider) <= budget:
            rounded = wider
    while units.parameters(heads, rounded) > budget and max(rounded) > multiple:  # the least width cost too much
        block = rounded.index(max(rounded))
        rounded[block] = (rounded[block] - 1) // multiple * multiple
    return rounded


def _top(scores: Sequence[torch.Tensor], counts: Sequence[int]) -> Kept:
    """Indices of the best `count` units of each block, increasing."""
    order = [torch.sort(s.detach().double(), descending=True, stable=True).indices for s in scores]
    return [sorted(ranked[:count].tolist()) for ranked, count in zip(order, counts, strict=True)]
