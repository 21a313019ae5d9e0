"""Before anything is spent: budgets below the floor, and a study that belongs to another question."""

import json

import pytest

from nash_search.config import LatencyBudget, PruningRecipe, SearchConfig, SearchSpace, TaskConfig
from nash_search.config_loader import load_config
from nash_search.errors import InvalidInput, StorageDamaged
from tests.search.test_run import KEYS


def test_budgets_below_the_floor_train_nothing_and_name_the_floor(rehearse, notebook):
    result = rehearse(budgets=(LatencyBudget.parse("10%"), LatencyBudget.parse("20ms")))
    assert result.exit_code == 3 and notebook.trials == []
    assert [b["verdict"] for b in result.document["budgets"]] == ["infeasible", "infeasible"]
    assert result.document["budgets"][0]["floor_ms"] == pytest.approx(27.6, abs=0.5)
    assert result.document["trials"] == {"complete": 0, "stopped": 0, "infeasible": 0, "failed": 0}
    assert not (result.folder / "study.db").exists()
    assert set(result.document) == KEYS


OTHER_QUESTIONS = [
    ({"seed": 1}, "seed: 0 -> 1"),
    ({"sampler": "random"}, 'sampler: "tpe" -> "random"'),
    ({"search_space": SearchSpace(encoder_sparsity_pct=(0, 50, 10))}, r"encoder_sparsity_pct: \[0, .*50, 10\]"),
    ({"search_space": SearchSpace(decoder_layers=(2,))}, "decoder_layers: .* -> .2."),
    ({"task": TaskConfig(name="rehearsal", metric="bleu")}, 'task.metric: null -> "bleu"'),
    ({"task": TaskConfig(name="rehearsal", train_examples=9)}, "task.train_examples: null -> 9"),
    ({"recipe": PruningRecipe(tune_steps=7)}, "recipe.tune_steps: .* -> 7"),
    ({"max_drop_pct": 3.0}, "max_drop_pct: null -> 3.0"),
    ({"budgets": (LatencyBudget.parse("80%"),)}, "loosest budget must stay within the study's 70.0%"),
]


def test_another_question_is_refused_with_the_difference(rehearse):
    rehearse(trials=3)
    for changes, words in OTHER_QUESTIONS:
        with pytest.raises(InvalidInput, match=words):
            rehearse(trials=3, **changes)


@pytest.mark.parametrize("changes", [OTHER_QUESTIONS[0][0], OTHER_QUESTIONS[6][0]], ids=["seed", "recipe"])
def test_a_fork_answers_another_question_with_the_trials_there_are(rehearse, notebook, changes):
    rehearse(trials=3)
    before = len(notebook.trials)
    forked = rehearse(trials=3, fork=True, **changes)
    assert forked.document["study"].startswith("s-")
    dense, *trained = (r.architecture for r in notebook.trials[:before])
    assert next(r.architecture for r in notebook.trials[before:] if r.architecture != dense) in trained


def test_a_study_without_its_folder_is_refused_in_one_line(rehearse):
    result = rehearse(trials=2)
    (result.folder / "probe.json").unlink()
    with pytest.raises(StorageDamaged, match="study s must have its folder, but .* has no probe.json"):
        rehearse(trials=3)


def test_other_data_protocols_and_devices_are_another_question_too(rehearse, monkeypatch):
    from nash_search.trial.synthetic_evaluator import SyntheticEvaluator

    rehearse(trials=2)
    facts = SyntheticEvaluator.facts

    def changed(self):
        return facts(self) | {"model": "other", "data": {"train": "other"}, "protocol": {"trial": 9}}

    with monkeypatch.context() as patched:
        patched.setattr(SyntheticEvaluator, "facts", changed)
        with pytest.raises(InvalidInput, match="data: .*other.*; model: .*other.*; protocol: .*9"):
            rehearse(trials=2)
    call = SyntheticEvaluator.workload(None).model_copy(update={"batch_size": 3})
    with monkeypatch.context() as patched:
        patched.setattr(SyntheticEvaluator, "workload", lambda self: call)
        with pytest.raises(InvalidInput, match="workload.batch_size: 64 -> 3"):
            rehearse(trials=2)
    elsewhere = {"device": "rehearsal", "torch": "9.9", "hash": "elsewhere"}
    monkeypatch.setattr(SyntheticEvaluator, "fingerprint", lambda self: elsewhere)
    with pytest.raises(InvalidInput, match='got device.torch: null -> "9.9"'):
        rehearse(trials=2)


def test_a_study_whose_database_is_elsewhere_is_not_begun_anew(rehearse, notebook):
    result = rehearse(trials=2)
    for path in result.folder.glob("study.db*"):
        path.unlink()
    before = (result.folder / "probe.json").read_bytes()
    with pytest.raises(StorageDamaged, match="must have its database.*set NASH_SEARCH_STORAGE"):
        rehearse(trials=2)
    assert not (result.folder / "study.db").exists() and (result.folder / "probe.json").read_bytes() == before


def test_a_study_of_a_retired_sampler_is_read_and_its_continuation_refused_in_one_line(rehearse, monkeypatch):
    asked = SearchConfig.question
    monkeypatch.setattr(SearchConfig, "question", lambda self: asked(self) | {"sampler": "nsga2"})
    folder = rehearse(trials=1, sampler="gp").folder
    monkeypatch.undo()
    stored = json.loads((folder / "config.json").read_text()) | {"sampler": "nsga2"}
    assert SearchConfig.stored(json.dumps(stored)).sampler == "gp"
    with pytest.raises(InvalidInput, match='sampler: "nsga2" -> "gp"'):
        rehearse(trials=2, sampler="gp")
    with pytest.raises(InvalidInput, match="sampler must be 'gp', 'tpe', 'random' or 'grid', but got 'nsga2'"):
        load_config(None, {"sampler": "nsga2"})
