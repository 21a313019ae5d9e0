"""Whatever fails after training leaves an answer, and the next start ends it without training; failure has its code."""

import errno
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from nash_search import files
from nash_search.cli.search import run_search
from nash_search.cli.studies import stored_config
from nash_search.config import LatencyBudget
from nash_search.config_loader import load_config
from nash_search.errors import InvalidInput, NashSearchError, Unfinished
from nash_search.latency.fresh_process import MeasurementFailed, OutOfMemory
from nash_search.report import load as stored
from nash_search.report import markdown
from nash_search.search import certify
from nash_search.search import summary as document
from nash_search.storage import artifacts
from tests.synthetic_evaluator import SyntheticEvaluator

Usage = namedtuple("Usage", "total used free")
FULL = OSError(errno.ENOSPC, "No space left on device")


def raising(error):
    def fail(*args, **given):
        raise error

    return fail


def summary(results):
    return json.loads((results / "s" / "summary.json").read_text())


def untrainable(monkeypatch):
    monkeypatch.setattr(SyntheticEvaluator, "train", raising(AssertionError("trained again")))


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("time_fresh", OutOfMemory("a fresh timing process was killed")),
        ("time_fresh", MeasurementFailed("a fresh timing process must end")),
        ("time_fresh", FULL),
        ("same_tokens", MemoryError("no memory")),
        ("test_quality", MemoryError("no memory")),
    ],
    ids=["oom", "died", "disk", "tokens", "test"],
)
def test_what_fails_after_training_leaves_an_answer_that_the_next_start_completes(
    rehearse, monkeypatch, tmp_path, step, error
):
    with monkeypatch.context() as failing:
        failing.setattr(SyntheticEvaluator, step, raising(error))
        with pytest.raises(Unfinished, match=r"\(s\): nash-search resume .*/s goes on from there, no trial is trained"):
            rehearse(trials=6, finalist_seeds=2)
    left = summary(tmp_path)
    assert str(error) in left["unfinished"] and left["trials"]["complete"] >= 2
    expected = "met" if step == "test_quality" else "ambiguous"
    for budget in left["budgets"]:
        assert budget["verdict"] == expected and budget["architecture"], "nothing is called met that was not certified"
        assert expected == "met" or (budget["upper_ms"] is None and budget["quality_split"] == "validation")
        assert os.path.isdir(budget["checkpoint"])
    assert (tmp_path / "s" / "trials.csv").exists()
    markdown.render(stored.load(tmp_path / "s"))
    untrainable(monkeypatch)
    again = rehearse(trials=6, finalist_seeds=2)
    assert again.exit_code == 0 and summary(tmp_path)["unfinished"] is None
    assert {b["verdict"] for b in again.document["budgets"]} == {"met"}


def test_json_prints_what_was_known_when_certification_failed(rehearse, monkeypatch, tmp_path, capsys):
    result = rehearse(trials=4, study="whole")
    with monkeypatch.context() as failing:
        failing.setattr(SyntheticEvaluator, "time_fresh", raising(OutOfMemory("killed")))
        with pytest.raises(Unfinished):
            config = stored_config(result.folder).model_copy(update={"study": "s"})
            run_search(config, tmp_path, as_json=True, quiet=True)
    told = json.loads(capsys.readouterr().out)
    assert "killed" in told.pop("unfinished") and list(told) == list(result.document)
    assert {b["verdict"] for b in told["budgets"]} == {"ambiguous"}


def test_the_next_start_trains_nothing_though_time_was_left_or_trials_were_and_more_trials_train_again(
    rehearse, monkeypatch
):
    with monkeypatch.context() as failing:
        failing.setattr(SyntheticEvaluator, "time_fresh", raising(OutOfMemory("killed")))
        with pytest.raises(Unfinished):
            rehearse(trials=500, orders="trial_s=0.1", time_budget_s=8.0)
    with monkeypatch.context() as patched:
        untrainable(patched)
        first = rehearse(trials=500, time_budget_s=8.0)
    assert first.exit_code == 0
    trained = first.full_document["trials"]
    more = rehearse(trials=500, time_budget_s=8.5, orders="trial_s=0.1")
    assert more.full_document["trials"]["complete"] > trained["complete"]


def test_a_disk_that_fills_up_while_the_answer_is_written_says_so_and_costs_nothing(rehearse, monkeypatch, tmp_path):
    with monkeypatch.context() as full:
        full.setattr(document, "write_tables", raising(FULL))
        with pytest.raises(Unfinished, match="No space left"):
            rehearse(trials=6)
    assert not (tmp_path / "s" / "summary.json").exists()
    known = certify.read(tmp_path / "s")
    monkeypatch.setattr(SyntheticEvaluator, "time_fresh", raising(AssertionError("timed again")))
    monkeypatch.setattr(SyntheticEvaluator, "test_quality", raising(AssertionError("opened again")))
    assert rehearse(trials=6).exit_code == 0 and certify.read(tmp_path / "s") == known


def test_a_bug_after_training_leaves_the_answer_too_and_stays_a_bug(rehearse, monkeypatch, tmp_path):
    with monkeypatch.context() as failing:
        failing.setattr(SyntheticEvaluator, "same_tokens", raising(KeyError("ours")))
        with pytest.raises(KeyError, match="ours"):
            rehearse(trials=6)
    assert "ours" in summary(tmp_path)["unfinished"]
    untrainable(monkeypatch)
    assert rehearse(trials=6).exit_code == 0


@pytest.mark.parametrize(
    ("error", "budget", "code", "words"),
    [
        (RuntimeError("ours"), "70%", 1, " of RuntimeError: ours"),
        # the dense model meets it, and is no trial
        pytest.param(RuntimeError("ours"), "100%", 1, " of RuntimeError: ours", marks=pytest.mark.slow),
        (MemoryError("theirs"), "70%", 5, " of oom: MemoryError: theirs"),
    ],
)
def test_a_search_whose_trials_all_failed_says_so_with_the_first_reason(
    rehearse, monkeypatch, tmp_path, error, budget, code, words
):
    monkeypatch.setattr(SyntheticEvaluator, "train", raising(error))
    with pytest.raises(NashSearchError, match=r"a trial must end with a model, but all \d+ failed, the first") as told:
        rehearse(trials=6, budgets=(LatencyBudget.parse(budget),))
    assert told.value.exit_code == code and words in str(told.value)
    assert {b["verdict"] for b in summary(tmp_path)["budgets"]} == {"ambiguous"}, "infeasible would be a lie"
    monkeypatch.undo()
    assert rehearse(trials=6, budgets=(LatencyBudget.parse(budget),)).exit_code == 0, "the next start trains others"


def test_certification_asks_the_disk_for_room_and_hard_links_need_none(rehearse, monkeypatch):
    monkeypatch.setattr(artifacts, "SMALL_BYTES", 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, files.SLACK_BYTES + 1))  # enough for these trials
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(os, "link", raising(OSError(errno.EXDEV, "Invalid cross-device link")))
        with pytest.raises(Unfinished, match="certification must find 64 MiB of free disk, but got 64 MiB"):
            rehearse(trials=4)
    untrainable(monkeypatch)
    assert rehearse(trials=4).exit_code == 0


def test_exports_and_trials_share_their_bytes_and_neither_loses_them_with_the_other(rehearse, monkeypatch, tmp_path):
    monkeypatch.setattr(artifacts, "SMALL_BYTES", 0)
    result = rehearse(trials=6)
    for point in result.front:
        trial = result.folder / "trials" / point.key / "weights" / "model.json"
        export = result.folder / point.checkpoint / "model.json"
        assert os.path.samefile(trial, export), "no second copy"
        before = export.read_bytes()
        artifacts.drop(trial.parent.parent, "weights/")
        assert not trial.exists() and export.read_bytes() == before
    for copy in (result.folder / "best").iterdir():
        before = (copy / "model.json").read_bytes()
        shutil.rmtree(result.folder / "checkpoints", ignore_errors=True)
        assert (copy / "model.json").read_bytes() == before


def test_a_time_budget_without_room_for_a_trial_is_said_and_is_no_lack_of_architectures(rehearse, monkeypatch):
    from nash_search.search.scheduler import Scheduler

    with monkeypatch.context() as late:
        late.setattr(Scheduler, "_out_of_time", lambda self: True)
        with pytest.raises(
            Unfinished, match=r"time budget must leave room for a trial, but got 90 s.*resume .*goes on"
        ):
            rehearse(trials=3, time_budget_s=90.0)
    assert rehearse(trials=3).exit_code == 0


def test_a_hint_names_the_study_as_a_command_finds_it(tmp_path, monkeypatch):
    from nash_search.errors import typed_study

    monkeypatch.chdir(tmp_path)
    assert typed_study(Path("results/mine")) == typed_study(tmp_path / "results" / "mine") == "mine"
    assert typed_study(Path("else where/mine")) == "'else where/mine'"
    with pytest.raises(InvalidInput, match=r"--task|task must be 1 to 57 letters"):
        load_config(None, {"task.name": "../../evil"})
