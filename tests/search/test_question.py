"""A study keeps its question: another one is refused with what differs, or begun anew beside it."""

import pytest

from nash_search.config import LatencyBudget, PruningRecipe, SearchSpace, TaskConfig
from nash_search.errors import InvalidInput

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


def test_other_data_protocols_and_devices_are_another_question_too(rehearse, monkeypatch):
    from nash_search.config import SearchConfig
    from tests.synthetic_evaluator import SyntheticEvaluator

    rehearse(trials=2)
    facts = SyntheticEvaluator.facts

    def changed(self):
        return facts(self) | {"model": "other", "data": {"train": "other"}, "protocol": {"trial": 9}}

    with monkeypatch.context() as patched:
        patched.setattr(SyntheticEvaluator, "facts", changed)
        with pytest.raises(InvalidInput, match="data: .*other.*; model: .*other.*; protocol: .*9"):
            rehearse(trials=2)
    call = SyntheticEvaluator(SearchConfig()).workload().model_copy(update={"batch_size": 3})
    with monkeypatch.context() as patched:
        patched.setattr(SyntheticEvaluator, "workload", lambda self: call)
        with pytest.raises(InvalidInput, match="workload.batch_size: 64 -> 3"):
            rehearse(trials=2)
    elsewhere = SyntheticEvaluator(SearchConfig()).fingerprint() | {"torch": "9.9", "hash": "elsewhere"}
    monkeypatch.setattr(SyntheticEvaluator, "fingerprint", lambda self: elsewhere)
    with pytest.raises(InvalidInput, match='got device.torch: null -> "9.9"'):
        rehearse(trials=2)


def test_a_fork_with_looser_budgets_is_another_study_than_the_fork_before_it(rehearse):
    rehearse(trials=3)
    names = [rehearse(trials=3, fork=True, budgets=(LatencyBudget.parse(b),)).document["study"] for b in ("80%", "90%")]
    assert len(set(names)) == 2


def test_what_studies_of_before_do_not_say_is_not_asked_of_them(rehearse, monkeypatch):
    from tests.synthetic_evaluator import SyntheticEvaluator

    rehearse(trials=2)
    facts = SyntheticEvaluator.facts
    for digest in ("one", "other"):
        monkeypatch.setattr(SyntheticEvaluator, "facts", lambda self, d=digest: facts(self) | {"model_files": d})
        rehearse(trials=2)
    rehearse(trials=2, study="new")
    monkeypatch.setattr(SyntheticEvaluator, "facts", lambda self: facts(self) | {"model_files": "third"})
    with pytest.raises(InvalidInput, match='model_files: "other" -> "third"'):
        rehearse(trials=2, study="new")
