"""What a shorter window gains is timed by itself, once, against the model with its whole window."""

from __future__ import annotations

from pathlib import Path

import pytest

from nash_search.config import SearchConfig, TaskConfig, WorkloadRequest
from nash_search.report.words import window_words
from nash_search.summary_rows import Window
from nash_search.trial import window
from nash_search.trial.nash_evaluator import NashEvaluator
from tests import speech


@pytest.fixture
def evaluator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of a model that hears 4 s, at the window asked for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data, model = speech.write_clips(tmp_path / "data", train=20), speech.write_model(tmp_path / "model", seconds=4)

    def at(seconds: float | None) -> NashEvaluator:
        task = TaskConfig(name="own", data=str(data), language="en", audio_seconds=seconds)
        return NashEvaluator(SearchConfig(task=task, model=str(model), workload=WorkloadRequest(threads=1)))

    return at


def test_the_whole_window_is_timed_next_to_the_shorter_one(evaluator, tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    (study / window.FILE).write_text('{"seconds": ')  # torn: made anew
    heard = evaluator(1)
    assert heard.keep_dense(study) is None, "nothing was trimmed"
    found = window.read(study)
    assert found is not None and (found["seconds"], found["of_seconds"]) == (1, 4)
    assert 0 < found["share"] < 1.2 and found["latency_ms"] > 0  # at this size the clock promises no more
    said = window_words(Window(**found))
    assert said.startswith("window: 1 s instead of 4 s, which leaves ") and "of the 4 s model's latency" in said
    before = (study / window.FILE).stat().st_mtime_ns
    heard.keep_dense(study)
    assert (study / window.FILE).stat().st_mtime_ns == before, "once per study"


def test_a_whole_window_is_no_gain(evaluator, tmp_path: Path) -> None:
    evaluator(None).keep_dense(tmp_path)
    assert window.read(tmp_path) is None and not (tmp_path / window.FILE).exists()
