"""A batch that does not fit is taken in pieces, and the model cannot tell."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny import KINDS, batch_of, model_of

from nash_search.errors import NashSearchWarning
from nash_search.pruner import memory
from nash_search.pruner.accumulation import Pieces
from nash_search.pruner.distillation import cross_entropy, forward
from nash_search.pruner.training import Optimization, train


def without_dropout(kind):
    model = model_of(kind)
    for module in model.modules():
        for name in ("p", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


def trained(model, most_rows, seen):
    """The model after three steps on a device with room for `most_rows`."""
    model = copy.deepcopy(model)

    def loss(batch, step):
        rows = len(batch["labels"])
        seen.append(rows)
        if rows > most_rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return cross_entropy(forward(model, batch), batch["labels"])

    done = train(
        model,
        loss=loss,
        batches=lambda step: batch_of(step, batch=7),
        steps=3,
        optimization=Optimization(groups=[{"params": list(model.parameters()), "lr": 1e-3}]),
    )
    return done, dict(model.named_parameters())


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_a_halved_batch_trains_the_same_model(kind):
    model, whole, halved = without_dropout(kind), [], []
    expected, parameters = trained(model, 7, whole)
    with pytest.warns(NashSearchWarning) as said:
        found, others = trained(model, 3, halved)
    assert [str(w.message).partition("taken")[2] for w in said] == [f" {n} at a time from here on" for n in (4, 2)]
    assert whole == [7, 7, 7]
    assert halved == [7, 4, 2, 2, 2, 1] + 2 * [2, 2, 2, 1]  # 7 and 4 do not fit; what fits is kept to
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    for name, parameter in parameters.items():
        torch.testing.assert_close(others[name], parameter, rtol=1e-3, atol=1e-4)


def test_a_row_that_does_not_fit_is_the_end():
    with pytest.warns(NashSearchWarning), pytest.raises(torch.OutOfMemoryError):
        trained(without_dropout("t5"), 0, [])


def test_an_attempt_that_failed_leaves_no_gradient():
    weight = torch.nn.Parameter(torch.ones(1))
    attempts = []

    def loss(piece):
        if len(piece["labels"]) > 2:
            (weight * 100).sum().backward()  # what the failed attempt had added
            raise torch.OutOfMemoryError
        return (weight * piece["labels"].float().mean()).sum()

    def begin():
        attempts.append(None)
        weight.grad = None

    batch = {"labels": torch.tensor([[1, -100], [3, 5], [2, 2], [4, 4]])}
    with pytest.warns(NashSearchWarning):
        value = Pieces().backward(loss, batch, begin)
    # piece means -22.75 and 3 by 3 and 4 of the 7 target tokens
    expected = (torch.tensor([1, -100, 3, 5]).float().mean() * 3 + 3.0 * 4) / 7
    assert len(attempts) == 2 and float(value) == pytest.approx(float(expected))
    assert float(weight.grad) == pytest.approx(float(expected))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_forward_runs_in_the_precision_asked_for_and_the_weights_stay_whole(precision):
    model, seen = without_dropout("t5"), []

    def loss(batch, step):
        logits = forward(model, batch)
        seen.append(logits.dtype)
        return cross_entropy(logits, batch["labels"])

    moves = Optimization(groups=[{"params": list(model.parameters()), "lr": 1e-3}], precision=precision)
    train(model, loss=loss, batches=batch_of, steps=1, optimization=moves)
    assert seen == [torch.bfloat16 if precision == "bf16" else torch.float32]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_computed_again_train_the_same_model(kind):
    model, found = model_of(kind), []
    for recompute in (False, True):
        mine = copy.deepcopy(model)
        moves = Optimization(groups=[{"params": list(mine.parameters()), "lr": 1e-3}], recompute=recompute)
        seen = []

        def loss(batch, step, mine=mine, seen=seen):
            seen.append(memory.recomputes(mine))
            return cross_entropy(forward(mine, batch), batch["labels"])

        train(mine, loss=loss, batches=lambda step: batch_of(step, kind=kind), steps=2, optimization=moves)
        assert seen == [recompute] * 2 and not memory.recomputes(mine)
        found.append(mine.state_dict())
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-5, atol=1e-6)


def test_where_a_row_does_not_fit_blocks_are_computed_again_before_the_end():
    model, seen = without_dropout("t5"), []

    def loss(batch, step):
        seen.append((len(batch["labels"]), memory.recomputes(model)))
        if not memory.recomputes(model):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return cross_entropy(forward(model, batch), batch["labels"])

    moves = Optimization(groups=[{"params": list(model.parameters()), "lr": 1e-3}])
    with pytest.warns(NashSearchWarning) as said:
        train(model, loss=loss, batches=lambda step: batch_of(step, batch=2), steps=2, optimization=moves)
    assert "blocks are computed again" in str(said[-1].message) and len(said) == 2
    assert seen == [(2, False), (1, False), *[(1, True)] * 4]
