"""The sealed test split is opened once, at the end, and every opening is counted."""

import shutil

import pytest

from nash_search.config import LatencyBudget
from nash_search.search import certify
from tests.synthetic_evaluator import SyntheticEvaluator


def test_nothing_before_the_last_step_needs_the_sealed_test(rehearse, monkeypatch):
    with monkeypatch.context() as patched:

        def opened(self, folders):
            raise RuntimeError("the sealed test was opened")

        patched.setattr(SyntheticEvaluator, "test_quality", opened)
        with pytest.raises(RuntimeError, match="sealed test was opened"):
            rehearse(trials=6, finalist_seeds=2)
    result = rehearse(trials=6, finalist_seeds=2)
    assert result.full_document["sealed_test_openings"] == 2, "the failed opening was one"
    assert [b["verdict"] for b in result.document["budgets"]] == ["met", "met"]


def test_an_export_that_was_deleted_hides_no_opening_of_the_sealed_test(rehearse, monkeypatch):
    first = rehearse(trials=6)
    assert first.full_document["sealed_test_openings"] == 1
    known = certify.read(first.folder)
    shutil.rmtree(first.folder / known.points[0].checkpoint)
    opened = []
    monkeypatch.setattr(SyntheticEvaluator, "test_quality", lambda self, folders: opened.append(folders))
    again = certify.read(rehearse(trials=6).folder)
    assert not opened, "what is known is not scored again"
    assert again.opened == 1 and again.tests() == known.tests() and again.dense_test == known.dense_test


def test_scores_of_a_test_split_that_was_edited_since_stand_beside_none_of_todays(rehearse, monkeypatch):
    first = rehearse(trials=6, budgets=(LatencyBudget.parse("70%"),))
    score = SyntheticEvaluator.test_quality

    def edited(self, folders):
        return {k: q.model_copy(update={"signature": "m|data:edited"}) for k, q in score(self, folders).items()}

    monkeypatch.setattr(SyntheticEvaluator, "test_quality", edited)
    again = certify.read(rehearse(trials=6, budgets=(LatencyBudget.parse("70%"), LatencyBudget.parse("45%"))).folder)
    assert first.full_document["sealed_test_openings"] == 1 and again.opened == 3
    assert {q.data for q in (again.dense_test, *again.tests().values())} == {"data:edited"}
