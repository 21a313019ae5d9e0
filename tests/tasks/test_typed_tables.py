"""Typed tables: n rows in, the same n rows out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.tasks.test_text_tables import bounded, cell, read, tables


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("rows")


few = settings(bounded, max_examples=8)


@given(rows=tables(cell))
@few
def test_parquet_and_saved_datasets_are_read_back_exactly(place, rows):
    import datasets

    columns = {"n": list(range(len(rows))), "target": [t for _, t in rows], "source": [s for s, _ in rows]}
    made = datasets.Dataset.from_dict(columns)
    made.to_parquet(place / "p [1].parquet")
    assert read(place / "p [1].parquet")[1] == rows
    made.save_to_disk(place / "saved {x}*")
    assert read(place / "saved {x}*")[1] == rows
