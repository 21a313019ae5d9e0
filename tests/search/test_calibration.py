"""Rates and labels are found by short trainings: bounded, resumable, kept, and said."""

import json

import optuna
import pytest

from nash_search.calibration_record import Calibration, Setting
from nash_search.config import LatencyBudget, SearchSpace
from nash_search.errors import InvalidInput
from nash_search.recipes import PruningRecipe
from nash_search.report import exports, load
from nash_search.report.page import trial_words
from nash_search.report.words import recipe_words, setting_words
from nash_search.search import Interrupted
from nash_search.search.calibration import FILE
from nash_search.search.margins import LATENCIES
from nash_search.storage.artifacts import CALIBRATION
from tests.synthetic_evaluator import SyntheticEvaluator

AUTO = {"recipe": PruningRecipe(calibrate=True, learning_rate=5e-5, tune_learning_rate=5e-5)}


def found_in(result):
    return Calibration.model_validate_json((result.folder / FILE).read_bytes())


def stages(notebook, name):
    return [detail for stage, detail in notebook.stages if stage == name]


@pytest.mark.parametrize("start", [5e-5, pytest.param(5e-4, marks=pytest.mark.slow), 3e-2])
def test_whatever_rate_it_starts_from_it_ends_near_the_best(rehearse, start):
    """The synthetic evaluator is best at 1e-3 in both stages, with mixed labels."""
    recipe = AUTO["recipe"].model_copy(update={"learning_rate": start, "tune_learning_rate": start})
    found = found_in(rehearse(trials=12, recipe=recipe))
    assert 5e-4 <= found.chosen.learning_rate <= 2e-3 and 5e-4 <= found.chosen.tune_learning_rate <= 2e-3
    assert found.chosen.labels == "mixed" and found.by == "quality" and not found.remembered


def test_every_trial_trains_by_what_was_found_and_its_record_says_so(rehearse, notebook):
    result = rehearse(trials=8, **AUTO)
    found = found_in(result)
    records = [r for r in notebook.trials if r.recipe is not None]
    assert len(records) == 8
    assert {(r.recipe.learning_rate, r.recipe.labels) for r in records} == {
        (found.chosen.learning_rate, found.chosen.labels)
    }
    assert {r.recipe.trial_steps for r in records} == {AUTO["recipe"].trial_steps}
    assert (
        json.loads((result.folder / "summary.json").read_text())["calibration"]["chosen"] == found.chosen.model_dump()
    )
    exports.write_cards(result.folder, load.load(result.folder))
    (card, *_) = (result.folder / "checkpoints").glob("*/README.md")
    said = setting_words(found.chosen)
    assert said in card.read_text() and said in trial_words(load.load(result.folder))
    assert stages(notebook, "recipe") and len(stages(notebook, "calibrated")) == len(found.trainings)


@pytest.mark.parametrize("trials", [5, 12, pytest.param(40, marks=pytest.mark.slow)])
def test_it_takes_at_most_a_quarter_of_the_trials_training_seconds(rehearse, trials):
    found = found_in(rehearse(trials=trials, sampler="random", **AUTO))
    assert found.limit_s == pytest.approx(0.25 * trials * AUTO["recipe"].trial_steps * 0.1)
    assert found.seconds <= found.limit_s
    lengths = [t.steps for t in found.trainings]
    assert lengths == sorted(lengths) and len(set(lengths)) == 2


def test_the_plan_counts_it_before_it_is_spent_and_not_when_it_is_known(rehearse, notebook):
    for study in ("plain", "first", "second"):
        rehearse(trials=8, orders="trial_s=0.05", study=study, **({} if study == "plain" else AUTO))
    plain, first, second = stages(notebook, "plan")
    assert first["train_s"] == pytest.approx(1.25 * plain["train_s"])
    assert first["eta_s"] == pytest.approx(plain["eta_s"] + 0.25 * plain["train_s"])
    assert second["train_s"] == pytest.approx(plain["train_s"])


def test_a_time_budget_leaves_it_a_quarter_too(rehearse):
    result = rehearse(trials=8, time_budget_s=120, **AUTO)
    found = found_in(result)
    assert found.limit_s < 0.25 * 120 and found.seconds <= found.limit_s and 1 < len(found.trainings) < 5
    assert not list((result.folder.parent / LATENCIES).glob("calibration-*")), "what was cut short is nobody else's"
    tiny = found_in(rehearse(trials=8, time_budget_s=40, study="tiny", **AUTO))
    assert len(tiny.trainings) == 1 and tiny.chosen == Setting.of(AUTO["recipe"])
    assert "one short training took 7 s of 5 s; more time or trials find better" in recipe_words(tiny)


def test_too_few_trials_leave_the_recipe_as_it_is_and_the_plan_says_so(rehearse, notebook):
    result = rehearse(trials=1, **AUTO)
    (plan,) = stages(notebook, "plan")
    assert plan["calibration"]["steps"] is None and not (result.folder / FILE).exists()
    assert notebook.trials[-1].recipe.learning_rate == 5e-5


def test_without_being_asked_nothing_is_calibrated(rehearse, notebook):
    result = rehearse(trials=8)
    assert stages(notebook, "plan")[0]["calibration"] is None
    assert not (result.folder / FILE).exists() and not (result.folder / CALIBRATION).exists()


def test_what_diverges_is_a_result_and_is_not_trained_again(rehearse, monkeypatch, tmp_path):
    train, seen = SyntheticEvaluator.train_short, []

    def counted(self, job, hooks):
        seen.append(job.key)
        if len(seen) == 7:
            raise KeyboardInterrupt
        return train(self, job, hooks)

    monkeypatch.setattr(SyntheticEvaluator, "train_short", counted)
    with pytest.raises(KeyboardInterrupt):
        rehearse(trials=12, orders="diverge=0.005", **AUTO)
    killed = rehearse(trials=12, orders="diverge=0.005", **AUTO)
    assert len(seen) == len(set(seen)) + 1, "only the one that was interrupted is trained twice"
    found = found_in(killed)
    failed = [t for t in found.trainings if t.failure]
    assert failed and {t.failure for t in failed} == {"nan"} and all(t.setting.learning_rate > 2e-3 for t in failed)
    undisturbed = found_in(rehearse(trials=12, orders="diverge=0.005", results=tmp_path / "b", **AUTO))
    order = [(t.setting, t.steps, t.quality) for t in undisturbed.trainings]
    assert sorted(map(repr, order)) == sorted(repr((t.setting, t.steps, t.quality)) for t in found.trainings)
    assert found.chosen == undisturbed.chosen


def test_where_all_diverge_it_says_what_to_do_and_trains_no_trial(rehearse, notebook):
    with pytest.raises(InvalidInput, match=r"must find rates that train, but all \d+ from 2e-05 to 0.01 failed.*nan"):
        rehearse(trials=12, orders="diverge=0", **AUTO)
    assert not [r for r in notebook.trials if r.status == "complete"]


def test_a_metric_that_is_the_same_for_all_leaves_it_to_the_loss(rehearse):
    found = found_in(rehearse(trials=12, orders="flat=1", **AUTO))
    assert found.by == "loss" and 5e-4 <= found.chosen.learning_rate <= 2e-3 and found.chosen.labels == "mixed"


def test_the_next_study_of_the_same_question_begins_with_it(rehearse, notebook):
    first = found_in(rehearse(trials=8, **AUTO))
    trained = len(stages(notebook, "calibrated"))
    again = found_in(rehearse(trials=8, study="other", **AUTO))
    assert again.remembered and again.chosen == first.chosen and len(stages(notebook, "calibrated")) == trained
    planned = stages(notebook, "plan")[-1]["calibration"]
    assert planned["known"] and planned["twice"] == again.twice.model_dump() == first.twice.model_dump()
    assert again.twice.begin == AUTO["recipe"].trial_steps and 0 < again.twice.gain < 92.6 - again.best.quality
    assert "; twice a trial's steps would bring about" in recipe_words(again)
    other = AUTO["recipe"].model_copy(update={"batch_size": 32})
    assert not found_in(rehearse(trials=8, study="third", recipe=other)).remembered, "another batch asks anew"


def test_its_rows_are_an_optuna_study_of_their_own(rehearse):
    result = rehearse(trials=8, orders="diverge=0.005", **AUTO)
    found = found_in(result)
    url = f"sqlite:///{result.folder}/study.db"
    study = optuna.load_study(study_name="s-calibration", storage=url)
    assert len(study.trials) == len(found.trainings)
    assert study.best_trial.params == found.chosen.model_dump()
    assert sum(t.state.name == "FAIL" for t in study.trials) == sum(t.failure is not None for t in found.trainings) > 0
    assert all(set(t.params) == {"encoder_sparsity_pct", "decoder_layers", "decoder_selection"}
               for t in optuna.load_study(study_name="s", storage=url).trials)  # fmt: skip


def test_it_runs_side_by_side_and_stops_at_a_signal(rehearse, monkeypatch):
    def interrupted(self, job, hooks):
        raise Interrupted(2)

    monkeypatch.setattr(SyntheticEvaluator, "train_short", interrupted)
    with pytest.raises(Interrupted):
        rehearse(trials=8, **AUTO)
    monkeypatch.undo()


def test_a_calibration_that_cannot_be_read_is_made_again(rehearse):
    first = rehearse(trials=8, **AUTO)
    for path in [first.folder / FILE, *(first.folder.parent / LATENCIES).glob("calibration-*")]:
        path.write_text("{")
    again = rehearse(trials=8, **AUTO)
    assert found_in(again).chosen == Calibration.model_validate_json((again.folder / FILE).read_bytes()).chosen


def test_where_only_the_dense_model_is_admitted_there_is_nothing_to_calibrate(rehearse):
    space = SearchSpace(encoder_sparsity_pct=(0, 0, 10), decoder_layers=(6,))
    result = rehearse(trials=8, search_space=space, budgets=(LatencyBudget.parse("100%"),), **AUTO)
    assert not (result.folder / FILE).exists()
