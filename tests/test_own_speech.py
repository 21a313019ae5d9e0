"""A user's own recordings and own model that hears, from `finetune` to a certified checkpoint, by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
import torch
from transformers import AutoFeatureExtractor, AutoTokenizer, WhisperForConditionalGeneration

from nash_search.cli import main
from tests import speech

SPACE = """
teacher: {batch_size: 8, epochs: 40, learning_rate: 1e-2, warmup_steps: 0}
search_space: {encoder_sparsity_pct: [0, 0, 10], decoder_layers: [1, 2]}
recipe: {narrow_steps: 12, tune_steps: 12, batch_size: 8, learning_rate: 1e-3, tune_learning_rate: 1e-3, rungs: 1}
trials: 2
finish_steps: 0
certify_rounds: 2
certify_pairs: 4
"""


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    document: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return document


@pytest.mark.slow
def test_from_recordings_to_a_stock_checkpoint_that_transcribes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    speech.write_clips(tmp_path / "data")
    speech.write_model(tmp_path / "model")
    (tmp_path / "space.yaml").write_text(SPACE)
    own = ["--config", "space.yaml", "--data", "data", "--language", "en", "--quiet", "--json"]
    assert main(["finetune", *own, "--audio-seconds", "1", "--model", "model", "--output", "tuned"]) == 0
    assert told(capsys)["quality"]["value"] > 80  # type: ignore[index]
    asked = [*own, "--model", "tuned", "--budget-ms", "100%", "--serial", "--study", "s"]
    assert main(asked) in (0, 3)  # on a busy machine nothing may be certain
    found = told(capsys)
    front = found["front"]
    assert all(point["same_tokens"] for point in front)  # type: ignore[attr-defined]
    short = next(p for p in front if p["architecture"]["decoder_layers"] == 1)  # type: ignore[attr-defined]
    folder = Path(short["checkpoint"])
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["max_source_positions"], config["decoder_layers"]) == ("whisper", 50, 1)
    writing = json.loads((folder / "generation_config.json").read_text())
    assert (writing["language"], writing["task"]) == ("en", "transcribe")
    assert all(block < 1 for block, _ in writing.get("alignment_heads", []))  # no head of a block that is gone
    dense = WhisperForConditionalGeneration.from_pretrained(tmp_path / "tuned")
    model = WhisperForConditionalGeneration.from_pretrained(folder)
    for name, tensor in model.get_encoder().state_dict().items():  # depth alone was searched
        assert torch.equal(tensor, dense.get_encoder().state_dict()[name]), name
    extractor, tokenizer = (of.from_pretrained(folder) for of in (AutoFeatureExtractor, AutoTokenizer))
    assert (extractor.chunk_length, extractor.n_samples) == (1, speech.RATE)
    rows = [json.loads(line) for line in (tmp_path / "data" / "test.jsonl").read_text().splitlines()]
    sounds = [soundfile.read(tmp_path / "data" / row["file"], dtype="float32")[0] for row in rows]
    heard = extractor(sounds, sampling_rate=speech.RATE, return_tensors="pt").input_features
    written = tokenizer.batch_decode(model.generate(heard), skip_special_tokens=True)  # as the folder says, no more
    right = sum(text.strip() == row["text"] for text, row in zip(written, rows, strict=True))
    assert abs(100 * right / len(rows) - short["quality"]) < 12  # one word of nine
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: automatic-speech-recognition" in card and "real-time factor" in card
    assert 'assert len(sound) <= 1 * rate, "it hears 1 s"' in card and "AutoModelForSpeechSeq2Seq" in card
    page = (tmp_path / "results" / "s" / "report.html").read_text()
    assert all("real-time factor" in text for text in (page, (tmp_path / "results" / "s" / "report.md").read_text()))
