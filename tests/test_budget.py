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


def test_a_percentile_stands_behind_the_bound():
    found = [LatencyBudget.parse(text) for text in ("40@p95", "50% @ p99.5", "40ms@p50", "40")]
    assert [(b.ms, b.share, b.percentile) for b in found] == [
        (40.0, None, 95.0),
        (None, 0.5, 99.5),
        (40.0, None, 50.0),
        (40.0, None, 50.0),
    ]
    assert [b.folder for b in found] == ["40ms-p95", "50pct-p99.5", "40ms", "40ms"]
    with pytest.raises(ValueError, match="percentile must be from 50 to 99.5, but got '99.9'"):
        LatencyBudget.parse("40@p99.9")
    assert found[1].alike("45%").asked == "45%@p99.5" and found[3].alike("12") == LatencyBudget.parse("12")
    assert LatencyBudget.model_validate({"asked": "40", "ms": 40.0}).percentile == 50, "as stored before"
