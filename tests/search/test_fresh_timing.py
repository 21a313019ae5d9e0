"""Folders timed alone: what is known is not asked again, what is open is, and a kill in between costs nothing."""

import json

import pytest

from nash_search.search import certify
from tests.synthetic_evaluator import SyntheticEvaluator

STEPS = 1800


@pytest.fixture
def timed(monkeypatch):
    """Names of the folders of each timing, in order."""
    calls, time_fresh = [], SyntheticEvaluator.time_fresh

    def counted(self, folders, budgets, **timing):
        calls.append(sorted(folders))
        return time_fresh(self, folders, budgets, **timing)

    monkeypatch.setattr(SyntheticEvaluator, "time_fresh", counted)
    return calls


def test_what_was_decided_before_the_finish_is_not_timed_again(rehearse, timed):
    result = rehearse(trials=10, finish_steps=STEPS)
    first, second = timed
    assert first and not set(first) & set(second)
    stored = certify.Certification.stored(result.folder)
    assert set(first) | set(second) <= set(stored.latencies()) and set(first) <= set(stored.timed)


def test_a_search_that_is_killed_while_it_finishes_knows_what_was_decided(rehearse, timed, monkeypatch):
    train = SyntheticEvaluator.train

    def killed(self, job, scratch, hooks):
        if job.finish_steps:
            raise KeyboardInterrupt
        return train(self, job, scratch, hooks)

    with monkeypatch.context() as patched:
        patched.setattr(SyntheticEvaluator, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            rehearse(trials=10, finish_steps=STEPS)
    result = rehearse(trials=10, finish_steps=STEPS)
    assert len(timed) == 2 and result.exit_code == 0
    whole = rehearse(trials=10, finish_steps=STEPS, study="whole")
    fronts = [[(p["architecture"], p["quality"]) for p in r.document["front"]] for r in (result, whole)]
    assert fronts[0] == fronts[1]


def test_what_another_device_found_is_asked_again(rehearse, timed):
    result = rehearse(trials=4)
    path = result.folder / "certification.json"
    stored = json.loads(path.read_text())
    stored["timed"] = ["a front of before"]
    for latency in [p["latency"] for p in stored["points"]] + list(stored["others"].values()):
        latency["fingerprint"]["hash"] = "another"
    path.write_text(json.dumps(stored))
    rehearse(trials=4)
    assert set(timed[1]) == set(timed[0])
