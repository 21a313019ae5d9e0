"""Rows of recordings that cannot be used: one line on stderr that names the row, exit 2, nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from nash_search.cli import main
from tests import speech

SECOND = speech.RATE
Row = dict[str, Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return speech.write_model(tmp_path_factory.mktemp("bad") / "model", seconds=30)


def loud(seconds: float, rate: int = SECOND, channels: int = 1) -> Any:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (int(seconds * rate), channels)).astype(np.float32)


def too_long(file: Path, row: Row) -> None:
    soundfile.write(file, loud(31), SECOND)


def huge(file: Path, row: Row) -> None:
    """Three days of silence, of which the disk holds nothing."""
    soundfile.write(file, loud(0.1), SECOND, format="RF64")
    header = file.read_bytes()
    at = header.index(b"ds64")
    size = 3 * 86_400 * SECOND * 2
    sizes = b"".join(n.to_bytes(8, "little") for n in (size + len(header), size, size // 2))
    file.write_bytes(header[: at + 8] + sizes + header[at + 32 :])
    with file.open("r+b") as grown:
        grown.truncate(size)


def of_a_thousand_channels(file: Path, row: Row) -> None:
    """Within the window, and six gigabytes when it is decoded."""
    soundfile.write(file, loud(0.01, 48_000, 1000), 48_000, format="W64")
    header = file.read_bytes()
    at = header.index(b"data")
    size = 30 * 48_000 * 1000 * 2
    file.write_bytes(header[: at + 16] + (size + 24).to_bytes(8, "little") + header[at + 24 :])
    with file.open("r+b") as grown:
        grown.truncate(at + 24 + size)


def without_transcript(file: Path, row: Row) -> None:
    row["text"] = ""


def with_no_transcript_at_all(file: Path, row: Row) -> None:
    row["text"] = None


def without_recording(file: Path, row: Row) -> None:
    row["file"] = ""


def with_no_recording_at_all(file: Path, row: Row) -> None:
    row["file"] = None


def silent(file: Path, row: Row) -> None:
    soundfile.write(file, np.zeros(SECOND), SECOND)


def a_text(file: Path, row: Row) -> None:
    file.write_text("this is no sound\n")


def of_no_length(file: Path, row: Row) -> None:
    file.write_bytes(b"")


def corrupt(file: Path, row: Row) -> None:
    file.write_bytes(file.read_bytes()[:20])


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [
        (too_long, "recording must fit the window of 30 s, but got 31.00 s"),
        (huge, "recording must fit the window of 30 s, but got 259,200.00 s"),
        (of_a_thousand_channels, "recording must hold at most 100,000,000 samples"),
        (without_transcript, "transcript must stand beside every recording"),
        (with_no_transcript_at_all, "text must be text in every row, but got None"),
        (without_recording, "recording must stand beside every transcript"),
        (with_no_recording_at_all, "file must be text in every row, but got None"),
        (silent, "but got silence"),
        (a_text, "recording must be readable sound"),
        (of_no_length, "recording must be readable sound"),
        (corrupt, "recording must be readable sound"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_in_one_line(
    spoilt: Callable[[Path, Row], None],
    words: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = speech.write_clips(tmp_path / "data", train=18)
    rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    spoilt(data / rows[4]["file"], rows[4])
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["finetune", "--data", "data", "--model", str(model), "--language", "en", "--output", "out", "--quiet"]
    assert main(asked) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and words in err and "line 5" in err, err
    assert not (tmp_path / "out").exists()
