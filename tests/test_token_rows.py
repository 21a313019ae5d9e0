"""Rows of token ids in four bytes a token read as the list of lists that they replace."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nash_search.tasks import task
from nash_search.tasks.task import encode
from nash_search.token_rows import TokenRows

ROWS = st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=6), max_size=8)


@given(rows=ROWS, more=ROWS, data=st.data())
@settings(max_examples=200, deadline=None)
def test_they_read_as_a_list_of_lists(rows, more, data):
    found = TokenRows.of(rows)
    assert len(found) == len(rows) and list(found) == rows and found == rows and found == TokenRows.of(iter(rows))
    assert found.lengths.tolist() == [len(row) for row in rows]
    start, stop, step = (data.draw(st.none() | st.integers(-9, 9)) for _ in range(3))
    part = slice(start, stop, step or None)
    assert list(found[part]) == rows[part] and found[part] == rows[part]
    assert TokenRows.joined([found[part], TokenRows.of(more)]) == rows[part] + more
    for index in range(-len(rows), len(rows)):
        assert found[index] == rows[index]
    order = data.draw(st.lists(st.sampled_from(range(len(rows))), max_size=9)) if rows else []
    assert found.picked(order) == [rows[i] for i in order]
    assert (found == TokenRows.of(more)) == (rows == more)


@given(rows=ROWS.filter(bool), data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_batch_is_padded_to_its_longest_row(rows, data):
    order = data.draw(st.lists(st.sampled_from(range(len(rows))), min_size=1, max_size=5))
    padded, real = TokenRows.of(rows).padded(np.array(order), -100)
    longest = max(1, *(len(rows[i]) for i in order))
    assert padded.tolist() == [rows[i] + [-100] * (longest - len(rows[i])) for i in order]
    assert real.tolist() == [[True] * len(rows[i]) + [False] * (longest - len(rows[i])) for i in order]


def test_a_row_that_is_not_there_is_not_read():
    with pytest.raises(IndexError):
        TokenRows.of([[1]])[1]


def test_they_take_four_bytes_a_token_and_eight_a_row():
    rows = TokenRows.of([[7] * 100] * 50)
    assert rows.nbytes == 4 * 5_000 + 8 * 51


@pytest.mark.parametrize("most", [None, 3])
def test_texts_are_tokenised_a_few_at_a_time_to_the_same_ids(monkeypatch, most):
    from nash_search.tasks import g2p

    tokens, texts = g2p.build_tokenizer(), ["cat", "a", "horses", "dog", "bird"]
    whole, seen = encode(tokens, texts, most), []
    monkeypatch.setattr(task, "AT_ONCE", 2)
    once = task._encoded
    monkeypatch.setattr(task, "_encoded", lambda t, some, *rest: seen.append(len(some)) or once(t, some, *rest))
    assert encode(tokens, texts, most) == whole and seen == [2, 2, 1]
    assert encode(tokens, [], most) == []
