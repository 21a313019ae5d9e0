"""The disk is asked for room before each trial."""

from __future__ import annotations

import shutil
from collections import namedtuple

import pytest

from nash_search import files
from nash_search.errors import StorageDamaged
from nash_search.trial.job import check_free

Usage = namedtuple("Usage", "total used free")


def test_seven_copies_of_the_weights_and_some_slack_must_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, files.SLACK_BYTES + 700))
    check_free(tmp_path, 100)
    with pytest.raises(OSError, match=r"a trial must find 64 MiB of free disk, but got 64 MiB"):
        check_free(tmp_path, 101)


def test_a_disk_that_fills_up_ends_the_search_before_the_next_trial_and_it_goes_on_later(
    rehearse, notebook, monkeypatch
):
    def left(_):
        return Usage(0, 0, 10 << 30 if len(notebook.trials) < 3 else 1 << 20)

    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", left)
        with pytest.raises(StorageDamaged, match="64 MiB of free disk, but got 1 MiB"):
            rehearse(trials=5)
    assert [record.failure for record in notebook.trials].count("disk_full") == 1 and len(notebook.trials) == 4
    trials = rehearse(trials=5).document["trials"]
    assert trials["complete"] + trials["stopped"] >= 5


def test_keep_all_keeps_the_weights_of_dominated_trials(rehearse, tmp_path):
    rehearse(trials=8, keep_all=True)
    finished = [path for path in tmp_path.glob("*/trials/*") if (path / "record.json").is_file()]
    assert len(finished) >= 8 and all((path / "weights").is_dir() for path in finished)
