"""Uniform selection for every depth up to 64 and the paper's table; scored selection against brute force."""

import itertools

import pytest
import torch
from tiny import batch_of, model_of

from nash_search.errors import InvalidInput
from nash_search.pruner import shapes_of, shorten
from nash_search.pruner.distillation import divergence, forward
from nash_search.pruner.layer_selection import DecoderScore, selected_blocks
from nash_search.pruner.surgery import keep_decoder_blocks


def test_selection_is_increasing_and_spans_first_to_last_for_all_depths():
    for total in range(1, 65):
        for kept in range(1, total + 1):
            chosen = selected_blocks(total, kept)
            assert len(chosen) == kept
            assert list(chosen) == sorted(set(chosen))
            assert chosen[0] == 0
            assert kept == 1 or chosen[-1] == total - 1
        assert selected_blocks(total, total) == tuple(range(total))


def test_selection_is_the_table_of_the_paper():
    expected = {(6, 2): "0,5", (6, 3): "0,2,5", (6, 4): "0,1,3,5", (12, 2): "0,11", (12, 3): "0,5,11"}
    expected |= {(12, 4): "0,3,7,11", (12, 6): "0,2,4,6,8,11"}
    for (total, kept), blocks in expected.items():
        assert ",".join(map(str, selected_blocks(total, kept))) == blocks


def test_low_and_high_are_the_first_and_the_last_blocks():
    assert selected_blocks(6, 2, "low") == (0, 1)
    assert selected_blocks(6, 2, "high") == (4, 5)


@pytest.mark.parametrize("kept", [0, 7, -1])
def test_impossible_depth_is_refused(kept):
    with pytest.raises(InvalidInput, match=f"decoder_layers must be between 1 and 6, but got {kept}"):
        selected_blocks(6, kept)


def test_unknown_selection_is_refused_by_name():
    with pytest.raises(InvalidInput, match="but got best"):
        selected_blocks(6, 3, "best")


@pytest.mark.parametrize(
    "kind",
    ["t5", "bart", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("umt5", "marian", "t5gemma", "whisper"))],
)
def test_scored_blocks_are_the_closest_to_the_teacher_of_all_subsets(kind):
    teacher = model_of(kind)
    batches = [batch_of(seed=step, batch=128, kind=kind) for step in range(2)]
    score = DecoderScore(teacher, lambda step: batches[step])

    @torch.no_grad()
    def distance(kept):
        student = keep_decoder_blocks(teacher, kept)
        losses = [divergence(*(forward(m, b)[b["labels"] != -100] for m in (student, teacher))) for b in batches]
        return float(torch.stack(losses).mean())

    for kept in range(1, 4):
        subsets = {s: distance(s) for s in itertools.combinations(range(4), kept)}
        assert all(score(s) == pytest.approx(d, rel=1e-4) for s, d in subsets.items())
        chosen = shapes_of(shorten(teacher, kept, "scored", lambda step: batches[step])).decoder_blocks
        assert chosen == min(subsets, key=subsets.__getitem__)
    assert selected_blocks(4, 4, "scored") == (0, 1, 2, 3)


def test_many_blocks_are_removed_one_at_a_time():
    weights = [(7 * i) % 24 for i in range(24)]
    chosen = selected_blocks(24, 8, "scored", lambda kept: -sum(weights[i] for i in kept))
    assert [weights[i] for i in chosen] == [w for w in weights if w >= 16]


def test_scored_without_data_is_refused():
    with pytest.raises(InvalidInput, match="decoder_selection scored must be given data"):
        selected_blocks(4, 2, "scored")
