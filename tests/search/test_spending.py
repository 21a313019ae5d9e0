"""A time budget shortens the trials of a recipe that finds itself, and all trials of a study take the same steps."""

import json

import pytest

from nash_search.config import SearchConfig
from nash_search.recipes import PruningRecipe
from nash_search.report import plan_text
from nash_search.search import spending
from nash_search.search.calibration import FILE as CALIBRATION_FILE
from nash_search.search.question import PROBE
from nash_search.storage.recovery import DATABASE
from nash_search.summaries import FittedLength, Plan
from tests.search.test_calibration import stages

LONG = PruningRecipe(calibrate=True, narrow_steps=1500, tune_steps=1500)
SHORT_OF_TIME = {"trials": 12, "recipe": LONG, "orders": "cost_s=1000", "time_budget_s": 3600}
LENGTH = FittedLength(
    trials=8, steps=600, fits=True, asked_trials=12, asked_steps=3000, asked_eta_s=36_000, time_budget_s=3600.0
)


def test_where_time_is_short_there_are_fewer_trials_then_fewer_steps_and_the_plan_says_so(rehearse, notebook):
    result = rehearse(**SHORT_OF_TIME)
    (plan,) = stages(notebook, "plan")
    found = FittedLength.model_validate_json((result.folder / spending.FILE).read_bytes())
    assert plan["fitted"] == found.to_json() and found.trials == spending.FEW and found.asked_steps == 3000
    assert 0.5 * 3600 < plan["eta_s"] <= 3600 < found.asked_eta_s
    trained = [r for r in notebook.trials if r.recipe is not None]
    assert len(trained) == found.trials and {r.recipe.trial_steps for r in trained} == {found.steps}
    assert all(r.recipe.narrow_steps == found.steps / 2 for r in trained), "both stages keep their part"
    (said,) = [words for label, words in plan_text.plan_rows(Plan(**plan)) if label == "time"]
    assert said.startswith(f"8 trials of {found.steps:,} steps fit into 1 h 00 min (the recipe's 12 of 3,000 steps")


def test_what_was_fitted_stays_and_more_time_brings_more_trials_of_the_same_steps(rehearse, notebook):
    result = rehearse(**SHORT_OF_TIME)
    before = (result.folder / spending.FILE).read_bytes()
    asked = json.loads((result.folder / "config.json").read_text())
    assert asked["trials"] == 12 and asked["recipe"]["narrow_steps"] == 1500, "the question is kept as it was asked"
    rehearse(**SHORT_OF_TIME)
    assert len([r for r in notebook.trials if r.recipe]) == spending.FEW
    rehearse(**SHORT_OF_TIME | {"time_budget_s": 36_000})
    trained = [r for r in notebook.trials if r.recipe is not None]
    assert len(trained) == 12 and len({r.recipe.trial_steps for r in trained}) == 1
    assert (result.folder / spending.FILE).read_bytes() == before


def test_a_study_killed_before_its_database_keeps_its_length(rehearse, notebook):
    result = rehearse(**SHORT_OF_TIME)
    kept = (result.folder / spending.FILE).read_bytes()
    for path in result.folder.iterdir():
        if path.name.startswith((DATABASE, "config.json")):
            path.unlink()
    assert (result.folder / PROBE).exists()
    rehearse(**SHORT_OF_TIME | {"orders": "cost_s=500"})
    assert (result.folder / spending.FILE).read_bytes() == kept
    assert stages(notebook, "plan")[-1]["fitted"] == stages(notebook, "plan")[0]["fitted"]


@pytest.mark.parametrize(
    "changes",
    [
        {"time_budget_s": None},
        {"time_budget_s": 360_000},
        {"recipe": LONG.model_copy(update={"calibrate": False})},
    ],
)
def test_nothing_is_given_up_without_a_budget_with_room_or_where_the_recipe_is_named(rehearse, notebook, changes):
    result = rehearse(**SHORT_OF_TIME | {"trials": 2} | changes)
    (plan,) = stages(notebook, "plan")
    assert plan["fitted"] is None and not (result.folder / spending.FILE).exists()
    assert {r.recipe.trial_steps for r in notebook.trials if r.recipe} == {3000}


@pytest.mark.parametrize("time_budget_s", [600, 900, 1800, 3600, 7200])
def test_what_was_fitted_ends_in_time_by_the_plan_s_own_estimate(rehearse, notebook, time_budget_s):
    rehearse(**SHORT_OF_TIME | {"time_budget_s": time_budget_s})
    (plan,) = stages(notebook, "plan")
    assert plan["fitted"]["fits"] and plan["eta_s"] <= time_budget_s
    assert plan["fitted"]["trials"] == spending.FEW or plan["fitted"]["steps"] == 200


def test_the_shortest_trials_become_fewer_and_where_not_one_fits_the_plan_says_so(rehearse, notebook):
    result = rehearse(**SHORT_OF_TIME | {"time_budget_s": 720, "study": "some"})
    rehearse(**SHORT_OF_TIME | {"time_budget_s": 120, "study": "none"})
    some, none = stages(notebook, "plan")
    assert some["fitted"]["steps"] == 200 >= spending.LEAST_STEPS and 5 <= some["fitted"]["trials"] < spending.FEW
    assert some["calibration"]["steps"][0] == 22 and (result.folder / CALIBRATION_FILE).exists()
    assert not none["fitted"]["fits"] and none["fitted"]["trials"] == 1 and none["calibration"]["steps"] is None
    (said,) = [words for label, words in plan_text.plan_rows(Plan(**none)) if label == "time"]
    assert said.startswith("2 min have no room for 1 trial of 200 steps, which are the least (the recipe's 12 of")


def test_steps_stay_and_trials_are_cut_for_the_budget_they_were_cut_for():
    config = SearchConfig(trials=12, recipe=LONG, time_budget_s=3600)
    cut = spending.within(config, LENGTH)
    assert (cut.trials, cut.recipe.trial_steps, cut.study_name) == (8, 600, config.study_name)
    for other in ({"trials": 20}, {"time_budget_s": 7200.0}):
        asked = config.model_copy(update=other)
        assert spending.within(asked, LENGTH).trials == asked.trials
        assert spending.within(asked, LENGTH).recipe.trial_steps == 600
    assert spending.within(config, None) == config
