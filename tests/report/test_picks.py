"""A budget's answer in words: which point, why that one, what more milliseconds would buy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
