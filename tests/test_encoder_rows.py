"""Rows of token ids and rows of features answer to the same calls, and travel to other processes."""

import json

import numpy as np
import pytest
import torch

from nash_search.encoder_rows import FeatureRows, document, on_device, rows_of
from nash_search.token_rows import TokenRows


@pytest.fixture
def features(tmp_path):
    array = np.arange(4 * 2 * 6, dtype=np.float16).reshape(4, 2, 6)
    np.save(tmp_path / "features.npy", array)
    return FeatureRows(tmp_path / "features.npy", range(4), positions=3), array


def test_rows_of_features_are_picked_joined_and_made_a_batch_like_rows_of_tokens(features):
    rows, array = features
    tokens = TokenRows.of([[1], [2, 2], [3, 3, 3], [4]])
    assert rows.lengths.tolist() == [3, 3, 3, 3] and tokens.lengths.tolist() == [1, 2, 3, 1]
    for several in (rows, tokens):
        assert len(several.picked([2, 0]).followed_by(several.picked([1]))) == 3
        assert several.picked([3, 1]).picked([1]) == several.picked([1])
    batch = rows.picked([2, 0]).batch(pad=9)
    assert batch["input_features"].dtype == torch.float32
    assert np.array_equal(batch["input_features"].numpy(), array[[2, 0]].astype(np.float32))
    ids = tokens.picked([2, 0]).batch(pad=9)
    assert ids["input_ids"].tolist() == [[3, 3, 3], [1, 9, 9]] and ids["attention_mask"].tolist() == [
        [1] * 3,
        [1, 0, 0],
    ]


def test_rows_are_the_same_in_another_process(features):
    for rows in (features[0].picked([3, 1]), TokenRows.of([[1], [2, 2]])):
        assert rows_of(json.loads(json.dumps(document(rows)))) == rows


def test_a_batch_is_in_the_precision_of_its_model(features):
    model = torch.nn.Linear(2, 2).bfloat16()
    placed = on_device(features[0].batch(0) | {"input_ids": torch.tensor([[1]])}, model)
    assert placed["input_features"].dtype == torch.bfloat16 and placed["input_ids"].dtype == torch.int64
