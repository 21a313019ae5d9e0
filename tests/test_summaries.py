"""What crosses from search to report keeps its keys: plan, summary and the part that `--json` prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nash_search.config import LatencyBudget
from nash_search.summaries import PUBLIC, Plan, Summary
from nash_search.summary_rows import BudgetRow

COMMITTED = sorted(Path(__file__).parents[1].glob("results/*/summary.json"))
SUMMARY_KEYS = (
    "study task device workload dense budgets front trials hypervolume elapsed_s data certifies inputs vocabulary "
    "engines device_name metric direction decoder_layers floor probe_dense_ms reference finalists train_s train_steps "
    "device_s shared calibration sealed_test_openings unfinished command environment"
).split()
BUDGET_KEYS = (
    "asked budget_ms floor_ms verdict latency_ms upper_ms speedup quality quality_standard_error quality_split "
    "checkpoint architecture seeds looks rounds occasion_sd finish_steps searched_quality nearest_feasible"
).split()
OF_A_POINT = ("looks", "rounds", "occasion_sd", "finish_steps", "searched_quality")
FRONT_KEYS = (
    "number architecture latency_ms lower_ms upper_ms measured_ms occasion_sd share share_upper speedup quality "
    "quality_split quality_standard_error beside validation_quality parameters same_tokens status checkpoint "
    "finish_steps searched_quality"
).split()
PLAN_KEYS = (
    "study task model data device workload metric decoder_layers dense budgets certifies width_worth_pct "
    "whole_encoders fastest engines trials calibration fitted workers seconds_per_trial train_s device_s eta_s "
    "estimated inputs reference"
).split()


def test_a_study_s_documents_have_these_keys_in_this_order(rehearse, notebook) -> None:
    result = rehearse(trials=4, orders="engine=0.3")
    summary = json.loads((result.folder / "summary.json").read_text())
    stages = dict(notebook.stages)
    assert list(summary) == SUMMARY_KEYS and stages["done"] == summary == result.full_document
    assert [list(row) for row in summary["budgets"]] == [BUDGET_KEYS] * 2
    assert {tuple(row) for row in summary["front"]} == {tuple(FRONT_KEYS)}
    assert list(stages["plan"]) == PLAN_KEYS and list(result.document) == list(PUBLIC)
    assert Plan.model_validate(stages["plan"]).to_json() == stages["plan"]
    assert Summary.model_validate(summary).to_json() == summary


def test_where_nothing_is_feasible_no_answer_has_what_only_a_point_has(rehearse) -> None:
    [row] = rehearse(budgets=(LatencyBudget.parse("5%"),)).summary.to_json()["budgets"]
    assert list(row) == [key for key in BUDGET_KEYS if key not in OF_A_POINT]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_a_committed_study_s_summary_is_read_and_said_again_unchanged(path: Path) -> None:
    stored = json.loads(path.read_text())
    told = Summary.model_validate(stored).to_json()
    for part in (found := told.get("calibration") or {}, *found.get("trainings", ())):
        for new in [name for name in ("dense_quality", "trial_steps", "standard_error") if part.get(name) is None]:
            part.pop(new, None)  # keys that came later, and say nothing here
    assert told == stored


def test_keys_of_another_version_are_kept_and_missing_ones_are_not_made_up() -> None:
    row = BudgetRow.model_validate({"asked": "40", "budget_ms": 40.0, "of_tomorrow": [1]})
    assert row.looks == 1 and row.to_json() == {"asked": "40", "budget_ms": 40.0, "of_tomorrow": [1]}
    assert row.model_copy(update={"rounds": 5}).to_json() == row.to_json() | {"rounds": 5}
