"""Another budget is answered from a finished study alone."""

import pytest

from nash_search.config import LatencyBudget
from nash_search.errors import InvalidInput
from nash_search.search.pick import pick


def test_an_answer_needs_a_finished_study(tmp_path):
    with pytest.raises(InvalidInput, match="must be finished"):
        pick(tmp_path, LatencyBudget.parse("50%"))


def test_the_nearest_feasible_budget_is_one_that_is_met(rehearse):
    result = rehearse(trials=4, budgets=(LatencyBudget.parse("70%"), LatencyBudget.parse("20ms")))
    share, ms = (b["nearest_feasible"] for b in result.document["budgets"])
    assert share.endswith("%") and not ms.endswith("%")
    for asked in (share, ms):
        assert result.best_under(asked) is not None
    assert result.best_under(f"{int(share[:-1]) - 2}%") is None
