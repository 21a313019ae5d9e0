"""Another budget is answered from a finished study alone."""

import pytest

from nash_search.cli.studies import picked
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


def test_a_budget_looser_than_the_study_says_that_nothing_was_searched_there(rehearse):
    found = rehearse(trials=4, budgets=(LatencyBudget.parse("60%"), LatencyBudget.parse("45%")), finish_steps=1800)
    [loose] = pick(found.folder, LatencyBudget.parse("65%")).budgets
    assert loose.verdict == "met" and loose.searched_up_to == "60%" and not loose.finish, "resume would refuse it"
    assert "nothing slower than 60% was searched" in " ".join(picked(found.summary, loose))
    for asked in ("60%", "50%"):
        assert not pick(found.folder, LatencyBudget.parse(asked)).budgets[0].searched_up_to
    with pytest.raises(InvalidInput, match="loosest budget must stay within"):
        rehearse(trials=4, budgets=(LatencyBudget.parse("65%"),), finish_steps=1800)


def test_a_limit_that_shuts_out_all_names_itself_and_advises_no_tighter_budget(rehearse):
    found = rehearse(trials=4)
    [shut] = pick(found.folder, LatencyBudget.parse("70%"), limits={"max_drop_pct": 0.01}).budgets
    assert shut.verdict == "infeasible" and shut.nearest_feasible is None and shut.shut_out_quality is not None
    said = " ".join(picked(found.summary, shut))
    assert said.startswith("no trained model meets 70%") and "--max-drop shuts out" in said and "try" not in said
