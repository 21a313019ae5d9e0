"""The study that counts what Ray, Optuna and the bookkeeping cost counts right."""

import pytest

from experiments import overhead


def test_workers_that_are_never_idle_have_no_overhead_and_a_tail_is_none():
    busy = overhead.overhead(10.0, [12.0, 14.0, 14.0, 18.0], [2.0, 4.0, 2.0, 4.0], workers=2)
    assert busy["overhead"] == pytest.approx(0) and busy["tail_s"] == 4.0 and busy["wall_s"] == 8.0


def test_every_second_between_two_jobs_counts():
    late = overhead.overhead(0.0, [4.0, 4.0, 8.0, 8.0], [3.0, 3.0, 3.5, 3.5], workers=2)
    assert late["overhead"] == pytest.approx(3 / 16) and late["overhead_s_per_trial"] == pytest.approx(0.75)


def test_a_finished_study_holds_what_is_needed(rehearse):
    result = rehearse(trials=4, orders="trial_s=0.1")
    found = overhead.of_study(result.folder, workers=1)
    assert 0.4 <= found["busy_s"] < found["wall_s"] and found["tail_s"] == 0
    assert 0 < found["overhead"] < 1
    assert found["overhead"] == pytest.approx(1 - found["busy_s"] / found["wall_s"])
