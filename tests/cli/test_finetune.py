"""`init` writes a search space that loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nash_search.cli import main
from nash_search.config_loader import load_config


def test_init_writes_a_search_space_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = str(Path(__file__).parents[2] / "nash_search" / "tasks" / "g2p_teacher")
    assert main(["init", teacher, "--output", str(tmp_path / "space.yaml"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["file"] == str(tmp_path / "space.yaml") and (tmp_path / "space.yaml").read_text() == told["text"]
    assert load_config(told["file"]).search_space.decoder_layers
    assert main(["init", teacher]) == 0
    assert capsys.readouterr().out == told["text"]
