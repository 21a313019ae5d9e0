"""A budget's answer in words: which point, why that one, what more milliseconds would buy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nash_search.config import Architecture
from nash_search.records import TrialRecord
from nash_search.report import view
from nash_search.summaries import Summary
from nash_search.summary_rows import BudgetRow


def test_more_within_noise_says_so(record_at: Callable[..., TrialRecord]) -> None:
    records = [record_at(4, 2, 40), record_at(11, 2, 20)]
    budget = BudgetRow(asked="34", budget_ms=34.0, verdict="met", architecture=records[0].architecture)
    [pick] = view.build(records, Summary(budgets=(budget,))).picks
    assert "within its noise" in pick.more


def test_a_promised_pick_is_the_point_of_its_architecture(study: Any) -> None:
    records, document, answers = study
    kept = Architecture(encoder_sparsity_pct=40, decoder_layers=2)
    budget = BudgetRow(asked="34", budget_ms=34.0, verdict="met", architecture=kept)
    [pick] = view.build(records, document.model_copy(update={"budgets": (budget,)})).picks
    assert pick.point is not None and pick.point.number == 4


def test_an_ambiguous_pick_claims_no_bound(study: Any) -> None:
    records, document, answers = study
    assert any("95% upper bound stays within" in pick.why for pick in view.build(records, document, answers).picks)
    unsure = tuple(a.model_copy(update={"verdict": "ambiguous"}) if a.point else a for a in answers.budgets)
    for pick in view.build(records, document, answers.model_copy(update={"budgets": unsure})).picks:
        assert "stays within" not in pick.why
        assert pick.verdict != "ambiguous" or "none does for certain" in pick.why


@pytest.mark.parametrize(("better", "said"), [(0.0, False), (60.0, True)])
def test_a_budget_met_by_a_ruined_model_says_how_much_was_lost(study: Any, better: float, said: bool) -> None:
    records, document, answers = study
    dense = document.dense.model_copy(update={"validation_quality": document.dense.validation_quality + better})
    built = view.build(records, document.model_copy(update={"dense": dense}), answers)
    [pick] = [pick for pick in built.picks if pick.asked == "50%"]
    assert pick.verdict == "met" and ("worse than the dense model by 4" in pick.more) == said
    assert ("--max-drop 10 refuses such an answer. " in pick.more) == said and "ms more buys" in pick.more
