"""What the shapes cost, without training: the floor, what each budget admits, and where nothing does the nearest."""

import json

import pytest

from nash_search.config import LatencyBudget
from nash_search.latency_table import LatencyTable
from nash_search.search import probe_only
from nash_search.survey import Survey
from nash_search.trial import evaluator
from tests import crash, synthetic_evaluator


@pytest.fixture
def survey(tmp_path, monkeypatch):
    def of(*asked, orders="", **changes):
        synthetic_evaluator.answer_here(monkeypatch, orders)
        evaluator._open.clear()
        budgets = tuple(LatencyBudget.parse(budget) for budget in asked)
        return probe_only.survey(crash.config(4, budgets=budgets, **changes), tmp_path)

    yield of
    evaluator._open.clear()


def test_a_budget_below_the_floor_is_told_with_the_nearest_that_is_not(survey, tmp_path):
    found = survey("10%", "50%")
    below, above = found.budgets
    assert found.floor_ms == pytest.approx(27.6, abs=0.5) == below.floor_ms
    assert (below.verdict, below.feasible, above.verdict, above.feasible) == ("infeasible", False, "", True)
    assert LatencyBudget.parse(below.nearest_feasible).ms_at(100.0) >= found.floor_ms
    assert below.fits == {} and set(above.fits) == {"1", "2", "3"}
    assert found.ms_per_decoder_block == pytest.approx(10.0, abs=0.1), "0.60 of 100 ms over six blocks"
    assert not (tmp_path / "s").exists(), "a probe begins no study"


def test_other_engines_are_tried_unless_that_is_switched_off(survey):
    assert survey("50%", orders="engine=0.3").engines.answers[0].verdict == "met"
    assert survey("50%", orders="engine=0.3", engines=False).engines.tried == ()


def test_one_depth_has_no_slope():
    assert probe_only.ms_per_decoder_block(LatencyTable(entries=())) is None


def test_what_is_printed_reads_back_as_what_was_found(survey):
    found = survey("50%", orders="engine=0.3")
    assert Survey.model_validate_json(json.dumps(found.to_json())) == found
