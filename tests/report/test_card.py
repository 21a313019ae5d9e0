"""Cards and the study's folder: what is on disk becomes a view, and every export gets a valid card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from nash_search.config import LatencyBudget
from nash_search.errors import InvalidInput
from nash_search.records import Artefact, TrialRecord
from nash_search.report import card, card_metadata, exports, load, page, view


@pytest.fixture
def on_disk(study: Any, tmp_path: Path) -> Path:
    """A study's folder as the search leaves it."""
    records, document, answers = study
    made = tmp_path / "g2p-3f9a1c"
    for record in records:
        place = made / "trials" / f"{record.number:016x}"
        place.mkdir(parents=True)
        (place / "record.json").write_text(record.model_dump_json())
    (made / "trials" / "torn").mkdir()
    (made / "trials" / "torn" / "record.json").write_text('{"number": ')
    (made / "summary.json").write_text(json.dumps(document))
    cells = [
        {"architecture": r.architecture.model_dump(), "latency": r.latency.model_dump()} for r in records if r.latency
    ]
    (made / "probe.json").write_text(json.dumps({"entries": cells, "key": "x"}))
    for number in (0, 4):
        export = made / "checkpoints" / f"g2p-{number}"
        export.mkdir(parents=True)
        (export / "config.json").write_text(json.dumps({"auto_map": {}} if number == 4 else {}))
    (made / "best" / "50pct").mkdir(parents=True)
    (made / "certification.json").write_text(answers.certification.model_dump_json())
    return made


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


def test_an_unfinished_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="study must be finished"):
        load.load(tmp_path)


def test_every_export_gets_a_valid_card(on_disk: Path) -> None:
    written = exports.write_cards(on_disk, load.load(on_disk), license="apache-2.0")
    assert [p.relative_to(on_disk).as_posix() for p in written] == [
        "checkpoints/g2p-4/README.md",
        "best/50pct/README.md",
        "checkpoints/g2p-0/README.md",
    ]
    found = ModelCard(written[0].read_text())
    data = found.data.to_dict()
    assert data["license"] == "apache-2.0" and data["library_name"] == "transformers"
    [result] = data["model-index"][0]["results"]
    assert result["dataset"]["split"] == "test" and result["metrics"][0]["type"] == "100-PER"
    for words in ("2 decoder blocks and 60%", "batch 64", "WER", "trust_remote_code"):
        assert words in found.text
    assert "decoder blocks of the teacher: 0, 5" in found.text and "## Limits" in found.text
    assert "trust_remote_code" not in written[2].read_text(), "a stock checkpoint needs none of our code"


def test_a_card_says_how_the_engine_loads_what_it_was_timed_on(on_disk: Path) -> None:
    place = on_disk / "checkpoints" / "g2p-4" / "ctranslate2"
    place.mkdir()
    record = Artefact(
        runtime="ctranslate2", version="4.8.5", dtype="float32", quantize="int8",
        loading=("import ctranslate2", 'engine = ctranslate2.Translator(f"{folder}/ctranslate2")'),
    )  # fmt: skip
    (place / "artefact.json").write_text(record.model_dump_json())
    narrow, copy, stock = (path.read_text() for path in exports.write_cards(on_disk, load.load(on_disk)))
    assert "ctranslate2" not in stock
    for text in (narrow, copy):
        assert "folder = 'g2p-4'\nimport ctranslate2\nengine = ctranslate2.Translator(f" in text
        assert "int8, float32 beside it" in text and "4.8.5" in ModelCard(text).text.replace("\\", "")
    (place / "artefact.json").write_text("{")
    assert "ctranslate2" not in exports.write_cards(on_disk, load.load(on_disk))[0].read_text()


def test_a_card_says_what_a_trimmed_vocabulary_gained_by_itself(study: Any, export_at: Any) -> None:
    records, document, answers = study
    export = export_at(answers, 4)
    assert "vocabulary" not in card.card(view.build(*study), export)
    lost = {"validation": {"dropped_share": 0.0012}}
    found = {"kept": 9214, "of": 32128, "share": 0.61, "share_bounds": [0.6, 0.62], "metric": "BLEU", "lost": lost}
    trimmed = {**document, "vocabulary": {**found, "quality": 35.1, "given_quality": 35.2}}
    text = card.card(view.build(records, trimmed, answers), export).replace("\\", "")
    assert "vocabulary: 9,214 of 32,128 tokens kept, which leaves 61.0% (60.0% to 62.0%)" in text
    assert "0.12% of validation; every speed-up here is beyond that" in text


def test_a_local_teacher_is_no_hub_id(on_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(on_disk)
    [path, *_] = exports.write_cards(on_disk, load.load(on_disk), teacher="checkpoints/g2p-0", data="best/50pct")
    text = path.read_text()
    assert "base_model" not in text and "datasets" not in text and "checkpoints/g2p-0" not in text


def test_a_card_says_what_was_not_certified(study: Any) -> None:
    seen = view.build(*study)
    text = card.trial_card(seen, next(p for p in seen.points if p.number == 4))
    assert "not certified" in text and "Load it" not in text


def test_an_export_outside_the_folder_is_refused(on_disk: Path) -> None:
    path = on_disk / "certification.json"
    found = json.loads(path.read_text())
    found["points"][0]["checkpoint"] = "../../elsewhere"
    path.write_text(json.dumps(found))
    with pytest.raises(InvalidInput, match="must lie in the study's folder"):
        exports.write_cards(on_disk, load.load(on_disk))


def test_paths_stay_out_of_the_metadata(study: Any) -> None:
    header = card_metadata.metadata(
        view.build(*study), "x", None, card_metadata.Source(teacher="/home/me/teacher", data="g2p")
    )
    assert "base_model" not in header and "datasets" not in header
    source = card_metadata.Source(teacher="google-t5/t5-small", data="knkarthick/samsum")
    header = card_metadata.metadata(view.build(*study), "x", None, source)
    assert "base_model: google-t5/t5-small" in header and "- knkarthick/samsum" in header


@pytest.mark.parametrize(
    ("asked", "name"), [("50%", "50pct"), ("12.5%", "12.5pct"), ("40", "40ms"), ("8.4ms", "8.4ms")]
)
def test_best_folders_are_named_after_their_budget(asked: str, name: str) -> None:
    assert LatencyBudget.parse(asked).folder == name


def test_report_files_are_written_whole(on_disk: Path) -> None:
    written = page.write(load.load(on_disk), on_disk)
    names = [p.name for p in written]
    assert names == ["front.png", "front.svg", "front-dark.png", "front-dark.svg", "report.md", "report.html"]
    assert not list(on_disk.glob(".*")), "no temporary file stays"
    assert all(p.stat().st_mode & 0o077 == 0 for p in written)


def test_a_record_counts_once(on_disk: Path, record_at: Any) -> None:
    again: TrialRecord = record_at(4, 2, 40, seed=7)
    (on_disk / "trials" / "again").mkdir()
    (on_disk / "trials" / "again" / "record.json").write_text(again.model_dump_json())
    assert [r.seed for r in load.records(on_disk) if r.number == 4] == [7]


DATA = {
    "train": 23925, "validation": 999, "test": 1000, "train_dropped": 75, "validation_dropped": 1,
    "validation_in_train": 27, "test_in_train": 38, "test_in_validation": 1, "overlap_allowed": False,
}  # fmt: skip
DROPPED = "23,925 train, 999 validation, 1,000 test rows, after 75 of train and 1 of validation were dropped"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, f"{DROPPED} because their sources are held out (27 of validation also in train, 38 of test also in train"),
        ({"overlap_allowed": True}, "splits share sources, as was allowed (27 of validation also in train, 38 of test"),
        ({key: 0 for key in DATA if "_in_" in key}, "no source stands in two splits"),
    ],
)
def test_what_was_dropped_or_allowed_reaches_plan_card_and_pages(on_disk: Path, changes: Any, expected: str) -> None:
    from nash_search.report import markdown, plan_text

    path = on_disk / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data": DATA | changes}))
    seen = load.load(on_disk)
    exports.write_cards(on_disk, seen)
    texts = {
        "plan": "\n".join(plan_text.plan_lines({"study": "s", "data": DATA | changes})),
        "card": (on_disk / "checkpoints" / "g2p-4" / "README.md").read_text(),
        "page": page.render(seen),
        "markdown": markdown.render(seen),
    }
    for place, text in texts.items():
        assert expected in text.replace("\\", ""), place
