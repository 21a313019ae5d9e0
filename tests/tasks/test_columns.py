"""Which columns are source and target: guessed, or named and then there."""

from __future__ import annotations

import pytest
from conftest import pairs, write_jsonl

from nash_search.config import TaskConfig
from nash_search.errors import InvalidInput
from nash_search.tasks.data import read_texts


def read(path, **fields):
    return read_texts(TaskConfig(name="mine", data=str(path), **fields))


def test_a_translation_column_is_guessed_or_named(tmp_path):
    rows = [{"translation": {"en": row["source"], "de": row["target"]}} for row in pairs(100)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    assert read(path).train.sources[0] == "red red red"
    turned = read(path, source_column="translation.de", target_column="translation.en")
    assert set(turned.train.sources) | set(turned.validation.sources) | set(turned.read_test().sources) == {
        row["target"] for row in pairs(100)
    }


def test_named_columns_must_exist(folder):
    with pytest.raises(InvalidInput, match="did you mean source"):
        read(folder, source_column="sorce", target_column="target")
    with pytest.raises(InvalidInput, match="must differ"):
        read(folder, source_column="source", target_column="source")
