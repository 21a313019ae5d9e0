"""Batches are a function of the step; the test split is sealed."""

import numpy as np
import pytest
import torch

from nash_search.tasks.task import Batches, Examples, SealedTest, hash_order


def examples_of(lengths):
    ids = [[7] * n for n in lengths]
    return Examples(
        sources=[f"s{i}" for i in range(len(ids))],
        references=[[f"t{i}"] for i in range(len(ids))],
        inputs=[[i + 10, *row[1:]] for i, row in enumerate(ids)],
        labels=[[1] * (len(row) % 3 + 1) for row in ids],
    )


@pytest.fixture
def many():
    return examples_of(np.random.default_rng(0).integers(1, 30, 1003).tolist())


def test_a_batch_depends_on_the_step_alone(many):
    forwards = Batches(many, batch_size=16, seed=3, pad_token_id=0)
    backwards = Batches(many, batch_size=16, seed=3, pad_token_id=0)
    steps = list(range(150))
    found = {step: forwards(step) for step in steps}
    for step in reversed(steps):
        for name, tensor in backwards(step).items():
            assert torch.equal(tensor, found[step][name])


def test_an_epoch_shows_each_example_at_most_once_and_epochs_and_seeds_differ(many):
    batches = Batches(many, batch_size=16, seed=0, pad_token_id=0)
    assert batches.steps_per_epoch == 1003 // 16

    def first_ids(batches, epoch):
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        return [int(i) for step in steps for i in batches(step)["input_ids"][:, 0]]

    one, two = first_ids(batches, 0), first_ids(batches, 1)
    assert len(one) == len(set(one)) == batches.steps_per_epoch * 16
    assert one != two
    assert one != first_ids(Batches(many, batch_size=16, seed=1, pad_token_id=0), 0)


def test_padding_is_the_batchs_own_and_labels_of_it_are_ignored(many):
    batches = Batches(many, batch_size=16, seed=0, pad_token_id=0)
    batch = batches(5)
    real = batch["attention_mask"].sum(1)
    assert batch["input_ids"].shape[1] == int(real.max())
    assert (batch["input_ids"][batch["attention_mask"] == 0] == 0).all()
    assert set(batch["labels"].unique().tolist()) <= {1, -100}
    assert (batch["labels"] != -100).sum(1).min() >= 1


def test_bucketing_leaves_a_tenth_of_the_padding(many):
    batches = Batches(many, batch_size=16, seed=0, pad_token_id=0)
    padded = sum(int((batches(s)["attention_mask"] == 0).sum()) for s in range(batches.steps_per_epoch))
    random = np.random.default_rng(0).permutation(1003)[: batches.steps_per_epoch * 16].reshape(-1, 16)
    lengths = np.array([len(ids) for ids in many.inputs])[random]
    naive = int((lengths.max(1, keepdims=True) - lengths).sum())
    assert padded < naive / 8


def test_fewer_examples_than_a_batch_make_one_batch():
    batches = Batches(examples_of([3, 5]), batch_size=64, seed=0, pad_token_id=0)
    assert batches.steps_per_epoch == 1 and batches(9)["input_ids"].shape == (2, 5)


def test_hash_order_is_a_permutation_that_ignores_the_order_given():
    one = examples_of([1, 2, 3, 4])
    names = ("sources", "references", "inputs", "labels")
    other = Examples(**{name: getattr(one, name)[::-1] for name in names})
    found, again = ([e.sources[i] for i in hash_order(e.sources)] for e in (one, other))
    assert found == again != one.sources and sorted(found) == sorted(one.sources)
    assert one.fingerprint != other.fingerprint


def test_every_opening_of_the_sealed_test_is_counted():
    sealed = SealedTest(read=lambda: examples_of([1]))
    assert sealed.opened == 0
    sealed.open()
    sealed.open()
    assert sealed.opened == 2
