"""Which architecture comes next, and what becomes of a trial's outcome."""

import pytest

from nash_search.errors import NashSearchError
from tests.opened import study_of
from tests.synthetic_evaluator import quality_of, share_of


def test_what_cannot_meet_the_loosest_budget_is_never_trained(rehearse, notebook):
    rehearse(trials=14)
    for record in notebook.trials[1:]:
        assert share_of(record.architecture) <= 0.71
    assert len({r.architecture for r in notebook.trials}) == len(notebook.trials)


def test_interrupting_by_trials_equals_one_go(rehearse, tmp_path):
    whole = rehearse(trials=14, results=tmp_path / "whole")
    for trials in (10, 11, 12, 14):  # of fewer, half are anchors
        parts = rehearse(trials=trials, results=tmp_path / "parts")
    values = [[(t.params, t.values) for t in study_of(r).trials] for r in (whole, parts)]
    assert values[0] == values[1]


@pytest.mark.parametrize("sampler", ["random", "grid", "tpe", "gp"])
def test_other_samplers_cover_the_feasible_space_without_repeats(rehearse, notebook, sampler):
    rehearse(trials=9, sampler=sampler)
    trained = [r.architecture for r in notebook.trials[1:]]
    assert len(set(trained)) == 9 and all(share_of(a) <= 0.71 for a in trained)


def test_a_space_can_be_exhausted(rehearse, notebook):
    result = rehearse(trials=500, sampler="grid")
    assert result.exit_code == 0
    stages = dict(notebook.stages)
    assert stages["front"]["why"] == "every feasible architecture is decided"
    records = {r.architecture: r for r in notebook.trials}
    best = max((a for a in records if share_of(a) <= 0.49), key=quality_of)
    assert quality_of(result.best_under("50%").architecture) >= quality_of(best) - 0.4


def test_failures_end_a_trial_with_a_reason_and_do_not_count(rehearse, notebook):
    result = rehearse(trials=8, orders="nan=enc0-dec2,error=enc10-dec1,oom=enc40-dec2")
    reasons = [(r.architecture.slug, r.failure) for r in notebook.trials if r.failure]
    assert reasons == [
        ("enc0-dec2", "nan"),
        ("enc10-dec1", "error"),
        ("enc40-dec2", "oom"),
        ("enc40-dec2", "oom"),  # one more try
    ]
    assert result.document["trials"]["complete"] + result.document["trials"]["stopped"] == 8
    assert result.document["trials"]["failed"] == 4


def test_a_search_in_which_everything_fails_ends(rehearse, notebook, monkeypatch):
    from tests.synthetic_evaluator import SyntheticEvaluator

    def train(self, job, scratch, hooks):
        raise RuntimeError("broken\nfor all")

    monkeypatch.setattr(SyntheticEvaluator, "train", train)
    with pytest.raises(NashSearchError, match="all 5 failed, the first .* of RuntimeError: broken for all"):
        rehearse(trials=50)
    assert len(notebook.trials) == 6, "the dense model's row and five in a row"
    assert notebook.trials[-1].message == "RuntimeError: broken for all"


def test_a_failure_killed_before_its_tell_is_told_once(rehearse, notebook, monkeypatch):
    from nash_search.storage.study import Study
    from tests import failpoints

    class Killed(BaseException):
        pass

    def die():
        raise Killed

    told = Study.fail
    with monkeypatch.context() as patched:
        failpoints.plant("tell:2", die, patched.setattr)
        patched.setattr(Study, "fail", lambda *a: None)  # a kill closes nothing
        with pytest.raises(Killed):
            rehearse(trials=3, orders="nan=enc0-dec2")
    assert Study.fail is told
    result = rehearse(trials=3, orders="nan=enc0-dec2")
    assert result.document["trials"] == {"complete": 3, "stopped": 0, "infeasible": 1, "failed": 1}
    assert not list((result.folder / "trials").glob(".work-*"))
