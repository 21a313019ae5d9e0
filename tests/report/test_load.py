"""A study's folder reads back as the study."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from nash_search.errors import InvalidInput
from nash_search.records import TrialRecord
from nash_search.report import load, page, view


def test_a_folder_reads_back_as_the_study(on_disk: Path, study: Any) -> None:
    seen = load.load(on_disk)
    expected = view.build(*study, folder=on_disk)
    assert [p.record for p in seen.points] == [p.record for p in expected.points], "a torn record is left out"
    assert seen.picks == expected.picks and len(seen.probe) == 15


def test_a_study_that_came_without_its_trials_shows_its_front(on_disk: Path) -> None:
    shutil.rmtree(on_disk / "trials")
    seen = load.load(on_disk)
    assert {p.number for p in seen.front} == {p.number for p in seen.certified}
    assert all(p.record.parameters and p.measured for p in seen.front)
    text = page.render(seen)
    assert "13 complete, 1 stopped, 1 infeasible, 1 failed" in text and "The front alone is listed" in text
    assert 'id="plot-front"' in text and 'id="plot-samples"' in text and 'id="plot-progress"' not in text


def test_without_its_trials_a_finished_point_still_says_what_the_search_found(on_disk: Path) -> None:
    shutil.rmtree(on_disk / "trials")
    path = on_disk / "certification.json"
    found = json.loads(path.read_text("utf-8"))
    point = found["points"][-1]
    point["finish_steps"], whole = 900, point["validation"]
    short = whole | {"value": whole["value"] - 7}
    one = {"seed": point["seed"], "share": 0.5, "train_s": 9.0}
    point["seeds"] = [
        one | {"validation": short, "key": "x", "checkpoint": "trials/x/model"},
        one | {"validation": whole, "finish_steps": 900, "key": point["key"], "checkpoint": point["checkpoint"]},
    ]
    path.write_text(json.dumps(found), "utf-8")
    shown = load.load(on_disk)
    [row] = [p for p in shown.front if p.number == point["number"]]
    assert row.quality == whole["value"] and row.searched is not None and row.searched.quality is not None
    assert row.searched.quality.value == short["value"]


def test_an_unfinished_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="study must be finished"):
        load.load(tmp_path)


def test_a_record_counts_once(on_disk: Path, record_at: Any) -> None:
    again: TrialRecord = record_at(4, 2, 40, seed=7)
    (on_disk / "trials" / "again").mkdir()
    (on_disk / "trials" / "again" / "record.json").write_text(again.model_dump_json())
    assert [r.seed for r in load.records(on_disk) if r.number == 4] == [7]


def test_without_its_certificate_a_front_is_not_shown(on_disk: Path) -> None:
    (on_disk / "certification.json").write_text('{"points": ')
    with pytest.raises(InvalidInput, match=r"must have a readable certification\.json"):
        load.load(on_disk)
