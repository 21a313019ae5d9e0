"""What a search will cost is said before the first trial, and follows from what was timed."""

import pytest

from nash_search.config import Architecture, LatencyBudget, PruningRecipe, SearchConfig
from nash_search.latency import timing_round
from nash_search.records import TrialRecord
from nash_search.report import plan_text
from nash_search.summaries import Plan
from nash_search.trial import cost, evaluator
from nash_search.trial.cost import TrialCost
from tests.synthetic_evaluator import SyntheticEvaluator

ONE = TrialCost(train_s=30.0, score_s=4.0, pairs=10, how="as told")


def config_of(**changes):
    known = {"budgets": (LatencyBudget.parse("50%"),), "certify_rounds": 5, "certify_pairs": 40, "finish_steps": 0}
    return SearchConfig(**known | changes)


def test_a_search_costs_its_trials_side_by_side_their_timings_in_turn_and_certification():
    found = cost.of_search(ONE, config_of(), trials=6, workers=2, dense_ms=100.0, load_s=5.0)
    timing_s = 2 * 10 * 0.1
    work_s = 6 * (34 / 2 + timing_s)
    certified_s = 5 * 40 * (6 + 2) * 0.1 + 2 * 4.0  # four points share a call of the dense model
    assert found["seconds_per_trial"] == 34 + timing_s and found["train_s"] == 180
    assert found["device_s"] == pytest.approx(work_s + certified_s)
    assert found["eta_s"] == pytest.approx(cost.RAY_START_S + 5 + work_s + 5 * 5 + certified_s)
    assert found["estimated"] == "as told"
    spread = cost.of_search(ONE, config_of(), trials=6, workers=2, dense_ms=100.0, load_s=5.0, devices=2)
    assert found["eta_s"] - spread["eta_s"] == pytest.approx(6 * timing_s / 2), "each device times its own trials"


def test_points_share_the_dense_model_s_calls_as_they_do_when_they_are_timed():
    assert cost.SHARING == timing_round.GROUP


def test_a_time_budget_caps_it_finalists_add_to_it_and_nothing_left_starts_nothing():
    sizes = {"workers": 1, "dense_ms": 100.0, "load_s": 5.0}
    free = cost.of_search(ONE, config_of(serial=True), trials=6, **sizes)
    capped = cost.of_search(ONE, config_of(serial=True, time_budget_s=60), trials=6, **sizes)
    assert free["eta_s"] - capped["eta_s"] == pytest.approx(6 * 36 - 30), "half of it is kept to certify in"
    ample = cost.of_search(ONE, config_of(serial=True, time_budget_s=1000), trials=100, **sizes)
    assert ample["eta_s"] == pytest.approx(1000 + 2 * ONE.score_s)
    more = cost.of_search(ONE, config_of(serial=True, finalist_seeds=3), trials=6, **sizes)
    assert more["train_s"] == 8 * 30
    done = cost.of_search(ONE, config_of(), trials=0, **sizes)
    assert done["train_s"] == 0 and done["eta_s"] < free["eta_s"]


@pytest.mark.parametrize(
    "left_s, winners, workers, times",
    [
        (10_000, 2, 2, cost.LONGEST_TIMES),
        (450, 1, 1, 4.5),
        (450, 2, 2, 4.5),
        (450, 3, 2, 2.2),  # two in turn; 2.25, said as two digits
        (140, 1, 1, 0),
        (-5, 1, 1, 0),
    ],
)
def test_winners_share_the_time_that_is_left(left_s, winners, workers, times):
    config = config_of(finish_steps=None, budgets=tuple(LatencyBudget.parse(f"{50 + n}%") for n in range(winners)))
    config = config.model_copy(update={"recipe": PruningRecipe(narrow_steps=200, tune_steps=800)})
    assert cost.steps_left(config, 100.0, workers, left_s) == times * 1000


def test_what_this_asks_by_name_is_what_winners_take_whatever_time_is_left():
    assert cost.steps_left(config_of(finish_steps=700), 100.0, 1, 10_000) == 700


def test_this_study_s_own_trials_are_believed_before_timed_steps():
    def record(**changes):
        architecture = Architecture(encoder_sparsity_pct=0, decoder_layers=1)
        return TrialRecord(number=0, architecture=architecture, **changes)

    spent = [record(stopped="x", stages={"tune": {"steps": 1.0, "seconds": s}}) for s in (10.0, 20.0)]
    failed = record(failure="oom", stages={"lost": {"steps": 0.0, "seconds": 500.0}})
    found = cost.as_recorded(ONE, [*spent, failed])
    assert found.train_s == 15 and "the 2 trials of this study" in found.how
    assert cost.as_recorded(ONE, [failed]) == ONE


@pytest.mark.parametrize(("limit_s", "asked"), [(1000.0, [1, 4]), (0.0, [1])])
def test_steps_are_timed_after_one_that_warms_up_unless_it_took_long(limit_s, asked):
    seen = []

    def train(recipe):
        seen.append(recipe.narrow_steps)
        assert recipe.narrow_steps == recipe.tune_steps and recipe.rungs == 1
        slow = 5.0 if len(seen) == 1 else 1.0
        return {
            name: {"steps": recipe.narrow_steps, "seconds": recipe.narrow_steps * slow} for name in ("narrow", "tune")
        }

    seconds, timed = cost.timed_steps(train, PruningRecipe(narrow_steps=300, tune_steps=200), limit_s)
    assert seen == asked and timed == asked[-1]
    assert seconds == pytest.approx(500 * (1.0 if len(asked) > 1 else 5.0), rel=0.01)


def test_the_plan_says_it_before_the_first_trial(rehearse, notebook):
    rehearse(trials=3, orders="trial_s=0.2")
    names = [stage for stage, _ in notebook.stages]
    plan = dict(notebook.stages)["plan"]
    assert names.index("plan") < names.index("search") and len(notebook.trials) >= 3
    assert plan["seconds_per_trial"] > 0.2 and plan["train_s"] == pytest.approx(0.6)
    assert plan["eta_s"] >= plan["device_s"] > 0 and plan["estimated"] == "as ordered"
    assert plan["dense"]["lower_ms"] < plan["dense"]["latency_ms"] < plan["dense"]["upper_ms"]
    notebook.stages.clear()
    rehearse(trials=5, orders="trial_s=0.2")
    plan = dict(notebook.stages)["plan"]
    assert "3 trials of this study" in plan["estimated"] and plan["train_s"] == pytest.approx(2 * 0.2, rel=0.3)


def test_a_step_that_fails_costs_the_estimate_not_the_search(rehearse, notebook, monkeypatch):
    def fails(self, architecture, threads, limit_s):
        raise RuntimeError("no step")

    monkeypatch.setattr(SyntheticEvaluator, "trial_cost", fails)
    evaluator._open.clear()
    result = rehearse(trials=2)
    assert "eta_s" not in dict(notebook.stages)["plan"] and result.front


@pytest.mark.parametrize(("workers", "said"), [(2, "GiB"), (3, "GiB: 3 side by side do not fit, give --workers 2")])
def test_the_plan_says_what_memory_a_trial_needs_before_it_begins(workers, said, rehearse, notebook):
    rehearse(trials=1, orders="gib=6.0", serial=True, workers=workers)
    plan = Plan(**dict(notebook.stages)["plan"])
    plan = plan.model_copy(update={"beside": workers})
    (found,) = [words for label, words in plan_text.plan_rows(plan) if label == "memory"]
    assert found == f"a trial takes about 6.0 of the device's 16.0 {said}"


def test_workers_share_the_devices_there_are(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    asked, pinned = config_of(), config_of(workload={"device": "cuda:1"})
    assert cost.on_one_device(asked, "cpu", 5) == 5 and cost.on_one_device(asked, "cuda:0", 5) == 3
    assert cost.on_one_device(pinned, "cuda:1", 5) == 5
    assert cost.on_one_device(config_of(ray_address="auto"), "cuda:0", 5) == 1
