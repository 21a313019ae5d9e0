"""A serial search keeps its limits: a trial's time, the search's time, the disk."""

import pytest

from nash_search.errors import StorageDamaged
from tests.patience import stretched


def test_a_full_disk_stops_the_search_and_it_goes_on_later(rehearse, notebook):
    with pytest.raises(StorageDamaged, match="disk must have room"):
        rehearse(trials=5, orders="disk=enc10-dec1")
    assert notebook.trials[-1].failure == "disk_full"
    result = rehearse(trials=5)
    assert result.document["trials"]["complete"] + result.document["trials"]["stopped"] == 5


def test_a_hanging_trial_is_ended_at_its_timeout(rehearse, notebook):
    result = rehearse(trials=2, orders="hang=enc0-dec2", trial_timeout_s=stretched(0.5))
    assert [r.failure for r in notebook.trials] == [None, "timeout", None, None]
    assert result.exit_code == 0


def test_a_time_budget_is_respected(rehearse, notebook):
    rehearse(trials=100, orders="trial_s=0.2", time_budget_s=2.0)
    assert len(notebook.trials) <= 7  # dense, five of 0.2 s at most (half is kept to certify in), one under way
    assert dict(notebook.stages)["front"]["why"] == "the time budget is spent"


def test_the_time_left_counts_the_finalists(rehearse, notebook):
    rehearse(trials=4, orders="trial_s=0.05", finalist_seeds=3)
    assert notebook.states[-1].eta_s > 0, "four finalists are still to train"
