"""Cards and the study's folder: what is on disk becomes a view, and every export gets a valid card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from nash_search.records import Artefact
from nash_search.report import card, card_metadata, exports, load, page, view
from nash_search.summaries import Plan
from nash_search.summary_rows import Vocabulary


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
    trimmed = document.model_copy(update={"vocabulary": Vocabulary(**found, quality=35.1, given_quality=35.2)})
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


def test_paths_stay_out_of_the_metadata(study: Any) -> None:
    header = card_metadata.metadata(
        view.build(*study), "x", None, card_metadata.Source(teacher="/home/me/teacher", data="g2p")
    )
    assert "base_model" not in header and "datasets" not in header
    source = card_metadata.Source(teacher="google-t5/t5-small", data="knkarthick/samsum")
    header = card_metadata.metadata(view.build(*study), "x", None, source)
    assert "base_model: google-t5/t5-small" in header and "- knkarthick/samsum" in header


@pytest.mark.parametrize(
    "metric, prefix, tag",
    [
        ("rougeL", "", "summarization"),
        ("bleu", "", "translation"),
        ("rouge1", "translate English to German: ", "translation"),
        ("bleu", "Summarize: ", "summarization"),
        ("per", "", "text2text-generation"),
        ("exact_match", "question: ", "text2text-generation"),
    ],
)
def test_the_hubs_tag_is_of_the_task(metric: str, prefix: str, tag: str) -> None:
    assert card_metadata.task_tag(metric, prefix) == tag


def test_report_files_are_written_whole(on_disk: Path) -> None:
    written = page.write(load.load(on_disk), on_disk)
    names = [p.name for p in written]
    assert names == ["front.png", "front.svg", "front-dark.png", "front-dark.svg", "report.md", "report.html"]
    assert not list(on_disk.glob(".*")), "no temporary file stays"
    assert all(p.stat().st_mode & 0o077 == 0 for p in written)


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
        "plan": "\n".join(plan_text.plan_lines(Plan(study="s", data=DATA | changes))),
        "card": (on_disk / "checkpoints" / "g2p-4" / "README.md").read_text(),
        "page": page.render(seen),
        "markdown": markdown.render(seen),
    }
    for place, text in texts.items():
        assert expected in text.replace("\\", ""), place
