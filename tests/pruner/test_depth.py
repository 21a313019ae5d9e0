"""Uniform selection for every depth up to 64, and the paper's table."""

import pytest

from nash_search.errors import InvalidInput
from nash_search.pruner.depth import selected_blocks


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


@pytest.mark.parametrize("kept", [0, 7, -1])
def test_impossible_depth_is_refused(kept):
    with pytest.raises(InvalidInput, match=f"decoder_layers must be between 1 and 6, but got {kept}"):
        selected_blocks(6, kept)


def test_unknown_selection_is_refused_by_name():
    with pytest.raises(InvalidInput, match="but got best"):
        selected_blocks(6, 3, "best")
