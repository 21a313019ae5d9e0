"""A budget as the user types it: milliseconds or a share, each in the other's unit once the dense latency is known."""

import pytest

from nash_search.budget import LatencyBudget


@pytest.mark.parametrize(
    ("asked", "ms", "share", "folder"),
    [
        ("40", 40.0, None, "40ms"),
        (" 40.5 ms", 40.5, None, "40.5ms"),
        ("50%", None, 0.5, "50pct"),
        (40, 40.0, None, "40ms"),
    ],
)
def test_milliseconds_and_shares(asked, ms, share, folder):
    found = LatencyBudget.parse(asked)
    assert (found.ms, found.share, found.folder) == (ms, share, folder)
    assert found.share_of(80.0) * 80.0 == pytest.approx(found.ms_at(80.0)) == pytest.approx(ms or 40.0)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("0", "greater than 0"),
        ("1e999", "greater than 0"),
        ("101%", "at most 100%"),
        ("fast", "got 'fast'"),
        ("-4", "got '-4'"),
    ],
)
def test_anything_else_is_refused_in_the_user_s_words(asked, words):
    with pytest.raises(ValueError, match=words):
        LatencyBudget.parse(asked)
