"""Weights of CTranslate2's file are read back as the model that they were made of; prompts stand in one split each."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from experiments.__main__ import main
from experiments.shared import prompts
from experiments.shared.whisper_weights import converted
from nash_search import pruner
from nash_search.config import Workload
from tests.speech import write_model

pytest.importorskip("ctranslate2", reason="needs the ctranslate2 extra")


def test_a_converted_model_is_read_back_weight_for_weight(tmp_path: Path) -> None:
    from nash_search.latency.runtimes.ctranslate2 import RUNTIME

    folder = write_model(tmp_path / "model")
    model = pruner.load(folder)
    model.generation_config.language = "de"
    RUNTIME.export(model, str(folder), Workload(runtime="ctranslate2", input_tokens=100, output_tokens=4))
    converted(folder / "ctranslate2", tmp_path / "out", language="de")
    again = WhisperForConditionalGeneration.from_pretrained(tmp_path / "out")
    own = model.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in again.state_dict().items())
    settings = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert settings["language"] == "de" and set(settings["lang_to_id"]) == {"<|en|>", "<|de|>"}
    assert settings["alignment_heads"] == [[0, 1], [1, 0]]


def test_a_sentence_stands_in_one_split_however_it_is_written() -> None:
    said = [f"Press {number} to hear this again." for number in range(200)]
    splits = [prompts.split_of(prompts.said(text)) for text in said]
    assert splits == [prompts.split_of(prompts.said(text.upper().replace(".", "!"))) for text in said]
    shares = {name: splits.count(name) / len(splits) for name in ("train", "validation", "test")}
    assert 0.5 < shares["train"] < 0.7 and min(shares.values()) > 0.12


def test_without_its_decoder_nothing_is_fetched_and_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr("sys.argv", ["experiments", "whisper-prompts", "--prepare"])
    assert main() == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("whisper-prompts: error: G.722 needs PyAV")
    assert not list(tmp_path.iterdir())
