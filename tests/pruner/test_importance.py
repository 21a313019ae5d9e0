"""Scores against what they stand for: numerical derivatives, naive means, and where gates start."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from tiny import batch_of, model_of
from torch.nn import functional as F

from nash_search.config_loader import load_config
from nash_search.modeling_nash import block_parts, encoder_blocks
from nash_search.pruner import importance, load
from nash_search.pruner.distillation import forward
from nash_search.pruner.gates import OPEN, Gates
from nash_search.tasks.g2p import teacher_folder
from nash_search.tasks.load import load_task
from nash_search.tasks.models import find_model, load_tokenizer


@pytest.mark.parametrize("kind", ["flan", "bart", "m2m_100", "whisper"])
def test_fisher_is_the_sum_of_each_examples_squared_derivative_per_weight(kind):
    model = model_of(kind).double()
    gates = Gates(model).double()
    batches = [
        {n: t.double() if n == "input_features" else t for n, t in batch_of(s, kind=kind).items()} for s in (0, 1)
    ]
    found = importance.fisher(model, gates, batches.__getitem__, 2, "cpu")
    examples = [{n: t[row : row + 1] for n, t in batch.items()} for batch in batches for row in range(3)]

    @torch.no_grad()
    def loss(gates_G, example):
        gates.use(gates_G)
        logits, labels = forward(model, example), example["labels"]
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")

    with gates.attached(model):
        for index in (0, 2, len(found) // 2, len(found) - 1):
            step = torch.zeros_like(found)
            step[index] = 0.001
            slopes = [(loss(1 + step, example) - loss(1 - step, example)) / 0.002 for example in examples]
            expected = sum(float(slope) ** 2 for slope in slopes) / float(gates.share_G[index])
            assert float(found[index]) == pytest.approx(expected, rel=0.03, abs=1e-3 * float(found.max()))


@pytest.mark.slow
def test_fisher_ranks_alike_on_other_batches():
    """On g2p's teacher two disjoint sets of 8 batches; where batch means are squared they agree less (LOG)."""
    teacher = load(teacher_folder()).eval()
    task = load_task(load_config("g2p", {}).task, load_tokenizer(find_model(str(teacher_folder()), None)))
    batches, gates = task.train_batches(128, 0), Gates(teacher)
    halves = [
        importance.fisher(
            teacher, gates, lambda step, first=first: batches(first + step), importance.FISHER_BATCHES, "cpu"
        )
        for first in (0, importance.FISHER_BATCHES)
    ]
    assert float(stats.spearmanr(*halves).statistic) >= 0.9


@torch.no_grad()
@pytest.mark.parametrize("kind", ["flan", "bart"])
def test_magnitude_is_the_mean_square_of_all_a_unit_owns(kind):
    model = model_of(kind)
    gates = Gates(model)
    heads, neurons = gates.per_block(importance.magnitude(model, gates))
    for index, block in enumerate(encoder_blocks(model)):
        parts = block_parts(block)
        for head in range(parts.heads):
            rows = slice(head * parts.head_width, (head + 1) * parts.head_width)
            owned = [parts.attention.get_submodule(name).weight[rows].flatten() for name in parts.attention_in]
            owned.append(parts.attention.get_submodule(parts.attention_out).weight[:, rows].flatten())
            assert float(heads[index][head]) == pytest.approx(float(torch.cat(owned).square().mean()), rel=1e-4)
        owned = [getattr(parts.ffn, name).weight[3] for name in parts.ffn_in]
        owned.append(getattr(parts.ffn, parts.ffn_out).weight[:, 3])
        assert float(neurons[index][3]) == pytest.approx(float(torch.cat(owned).square().mean()), rel=1e-4)


def test_gates_start_lowest_where_least_is_lost_and_all_start_as_the_teacher():
    gates = Gates(model_of("t5"))
    scores_G = torch.rand(len(gates.share_G), generator=torch.Generator().manual_seed(0))
    logits_G = importance.start_logits(scores_G, gates, 0.3)
    low_G = logits_G < OPEN
    assert float(scores_G[low_G].max()) < float(scores_G[~low_G].min())
    assert float(gates.share_G[low_G].sum()) == pytest.approx(0.3, abs=float(gates.share_G.max()))
    gates.logits_G.data.copy_(logits_G)
    assert float(gates.evaluation().detach().min()) == 1
