"""Hardening hits its target to within one unit, in every mode."""

from __future__ import annotations

import pytest
import torch
from tiny import model_of

from nash_search.errors import InvalidInput
from nash_search.modeling_nash import encoder_blocks
from nash_search.pruner import cut
from nash_search.pruner.gates import Gates
from nash_search.pruner.sparsity import Units, choose
from nash_search.pruner.surgery import encoder_parameters, head_parameters, neuron_parameters


def units_of(model, seed=0, heads=True, ties=False):
    generator = torch.Generator().manual_seed(seed)
    gates = Gates(model, heads=heads)
    scores = torch.rand(len(gates.logits_G), generator=generator)
    head_scores, neuron_scores = gates.per_block((scores * 3).round() if ties else scores)
    blocks = encoder_blocks(model)
    return Units(
        head_scores=head_scores,
        neuron_scores=neuron_scores,
        head_parameters=[head_parameters(block) for block in blocks],
        neuron_parameters=[neuron_parameters(block) for block in blocks],
        total_parameters=encoder_parameters(model),
    )


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("multiple", [1, 4, 8])
@pytest.mark.parametrize("widths", ["free", "uniform"])
@pytest.mark.parametrize("kind", ["t5", "flan", "bart"])
def test_counted_sparsity_is_the_target_to_within_one_unit(kind, widths, multiple, ties):
    model = model_of(kind)
    for sparsity in (0.05, 0.1, 0.3, 0.5, 0.7):
        for seed in range(3):
            units = units_of(model, seed, ties=ties)
            if sparsity > units.largest_sparsity(multiple):
                continue
            heads, neurons = choose(units, sparsity, widths, multiple)
            smaller = cut(model, heads, neurons)  # refuses empty, unsorted or repeated indices
            unit = units.neuron_parameters[0] * multiple * (len(neurons) if widths == "uniform" else 1)
            left = encoder_parameters(smaller)
            assert abs(left - (1 - sparsity) * units.total_parameters) <= unit
            assert left == units.parameters([len(h) for h in heads], [len(n) for n in neurons])
            widths_kept = {len(n) for n in neurons}
            assert all(width % multiple == 0 for width in widths_kept)
            if widths == "uniform":
                assert len(widths_kept) == len({len(h) for h in heads}) == 1


def test_the_best_units_are_kept():
    units = units_of(model_of("t5"))
    heads, neurons = choose(units, 0.5)
    kept, dropped = [], []
    for scores, indices in zip(units.neuron_scores, neurons, strict=True):
        kept += scores[indices].tolist()
        dropped += [float(s) for i, s in enumerate(scores) if i not in indices]
    assert sorted(kept + dropped)[-len(kept) :] == pytest.approx(sorted(kept))


def test_every_block_keeps_a_head_and_a_neuron():
    model = model_of("bart")
    units = units_of(model)
    for scores in (units.head_scores[1], units.neuron_scores[2]):
        scores -= 10
    heads, neurons = choose(units, 0.6)
    assert min(map(len, heads)) >= 1 and min(map(len, neurons)) >= 1


def test_heads_that_stay_count_as_kept():
    model = model_of("bart")
    units = units_of(model, heads=False)
    heads, neurons = choose(units, 0.3, "uniform")
    assert heads == []
    smaller = cut(model, [[0, 1, 2, 3]] * 3, neurons)
    assert type(smaller) is type(model)
    assert abs(encoder_parameters(smaller) / encoder_parameters(model) - 0.7) < 3 * 64 / units.total_parameters * 2


def test_an_impossible_sparsity_is_refused_with_the_largest_possible():
    units = units_of(model_of("bart"))
    with pytest.raises(InvalidInput, match=r"encoder_sparsity_pct must be at most 84\.\d for this model, but got 95"):
        choose(units, 0.95)
