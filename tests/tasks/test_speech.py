"""Recordings and transcripts as a task: features made once, labels behind the prompt, normalised word errors."""

import hashlib
import json

import datasets
import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoFeatureExtractor

from nash_search import pruner
from nash_search.config import TaskConfig
from nash_search.errors import InvalidInput
from nash_search.tasks import features, models
from nash_search.tasks.load import task_of_model
from nash_search.tasks.scoring import predict, score
from tests.speech import RATE, spoken, write_clips, write_model


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    return write_model(tmp_path / "model")


def task_of(folder, data, **asked):
    asked = {"name": "mine", "data": str(data), "language": "en", "audio_seconds": 1, **asked}
    return task_of_model(models.vet(folder), TaskConfig(**asked))


def test_batches_hold_the_extractor_s_features_and_labels_behind_the_prompt(folder, tmp_path):
    data = write_clips(tmp_path / "data", train=20)
    task = task_of(folder, data)
    batch = task.train_batches(4, seed=0)(0)
    assert batch["input_features"].shape == (4, 8, 100)
    sound, _ = soundfile.read(data / task.train.sources[0], dtype="float32")
    extractor = AutoFeatureExtractor.from_pretrained(folder, chunk_length=1)
    expected = extractor(sound, sampling_rate=RATE, return_tensors="np").input_features
    row = task.train.inputs.picked([0]).batch(0)["input_features"].numpy()
    assert np.abs(row - expected).max() < 1e-3
    prompt, end = list(task.speech.settings.prompt), task.tokenizer.eos_token_id
    first = task.train.labels[0]
    assert first[:3] == prompt[1:] and first[-1] == end
    assert task.tokenizer.decode(first[3:-1]) == f" {task.train.references[0][0]}"
    assert (task.input_tokens, task.output_tokens, task.clip_seconds) == (50, 7, 0.8)
    assert task.generation == {
        "num_beams": 1, "do_sample": False, "language": "en", "task": "transcribe", "max_new_tokens": 8,
    }  # fmt: skip
    words = " ".join(task.notes)
    assert "29 recordings, median 0.8 s, longest 0.8 s, in a window of 1 s" in words
    assert "the window is cut from 2 s to 1 s" in words


def test_features_are_made_once_and_again_where_a_recording_changed(folder, tmp_path, monkeypatch):
    data = write_clips(tmp_path / "data", train=20)
    before, made = task_of(folder, data), []
    own = features.SpeechFeatures._heard
    monkeypatch.setattr(features.SpeechFeatures, "_heard", lambda self, name: made.append(name) or own(self, name))
    assert task_of(folder, data).train.fingerprint == before.train.fingerprint and not made
    soundfile.write(data / before.train.sources[0], spoken("beta", seed=99), RATE)
    after = task_of(folder, data)
    assert made and after.train.fingerprint != before.train.fingerprint
    assert before.open_sealed_test().inputs.source != before.train.inputs.source


def test_scoring_normalises_and_predict_hears_a_file(folder, tmp_path):
    task = task_of(folder, write_clips(tmp_path / "data", train=20))
    assert task.metric.statistics(["ALPHA, beta!", "gamma"], [["alpha beta"], ["delta"]]).tolist() == [
        [0, 2, 0, 1], [1, 1, 1, 1],
    ]  # fmt: skip
    assert "norm:english without its spellings" in task.metric.signature
    model = pruner.cut_window(pruner.load(folder), 50)
    assert score(model, task).n == 9
    assert len(predict(model, task, ["clips/test-0.wav", "clips/test-1.wav"])) == 2
    by_letter = task_of(folder, tmp_path / "data", metric="cer", language="de")
    assert by_letter.metric.label == "100-CER" and "norm:basic" in by_letter.metric.signature
    assert by_letter.metric.statistics(["abd"], [["abc"]]).tolist() == [[1, 3, 1, 1]]


def test_a_teacher_that_misheard_is_not_learnt_from(folder, tmp_path):
    task = task_of(folder, write_clips(tmp_path / "data", train=20))
    agrees = task.train_batches(4, seed=0).agrees
    prompt, words = list(task.speech.settings.prompt[1:]), "red green blue small large cat dog bird runs sleeps"

    def ids(text):
        return [*prompt, *task.tokenizer(f" {text}", add_special_tokens=False).input_ids, task.tokenizer.eos_token_id]

    assert agrees(ids(words.upper() + "!"), ids(words)) and agrees(ids(words.replace("sleeps", "slept")), ids(words))
    assert not agrees(ids(words.replace("runs sleeps", "slept")), ids(words))


@pytest.mark.parametrize(
    ("name", "value", "words"), [("train-3", 0.0, "got silence"), ("validation-2", np.nan, "got NaN or infinity")]
)
def test_a_recording_that_cannot_be_heard_is_refused_by_its_row(folder, tmp_path, name, value, words):
    data = write_clips(tmp_path / "data", train=20)
    soundfile.write(data / "clips" / f"{name}.wav", np.full(RATE // 2, value), RATE, subtype="FLOAT")
    split, number = name.split("-")
    row = rf"{split}\.jsonl, line {int(number) + 1}"
    with pytest.raises(InvalidInput, match=rf"{words} in 'clips/{name}\.wav' \(.*{row}\)"):
        task_of(folder, data)


def test_recordings_that_no_row_names_are_said(folder, tmp_path):
    data = write_clips(tmp_path / "data", train=20)
    assert not any("named by no row" in note for note in task_of(folder, data).notes)
    for name in ("clips/more.wav", "other.flac"):
        soundfile.write(data / name, spoken("alpha", 1), RATE)
    (data / "notes.txt").write_text("no recording")
    assert "2 recordings beside the data are named by no row and are left out" in task_of(folder, data).notes


def test_telephone_and_stereo_are_said(folder, tmp_path):
    data = write_clips(tmp_path / "data", train=20)
    soundfile.write(data / "clips" / "train-0.wav", spoken("alpha", 1, rate=8000), 8000)
    soundfile.write(data / "clips" / "train-3.wav", np.stack([spoken("alpha", 2)] * 2, axis=1), RATE)
    words = " ".join(task_of(folder, data).notes)
    assert "1 of 29 recordings are resampled from 8,000 Hz, which holds nothing above 4 kHz" in words
    assert "1 of 29 recordings have several channels, which are averaged" in words


@torch.no_grad()
def test_a_cut_window_computes_what_the_whole_one_does_on_its_positions(folder):
    whole = pruner.load(folder)
    cut = pruner.cut_window(whole, 50)
    assert (cut.config.max_source_positions, whole.config.max_source_positions) == (50, 100)
    heard = torch.randn(2, 8, 100)
    encoder = whole.get_encoder()
    # the same stack, its own table of positions cut by hand
    states = torch.nn.functional.gelu(encoder.conv2(torch.nn.functional.gelu(encoder.conv1(heard)))).permute(0, 2, 1)
    states = states + encoder.embed_positions.weight[:50]
    for block in encoder.layers:
        states = block(states, None)
    expected = encoder.layer_norm(states)
    assert torch.equal(cut.get_encoder()(heard).last_hidden_state, expected)
    assert pruner.cut_window(whole, 100) is whole
    with pytest.raises(InvalidInput, match="window must be of 1 to 100 positions"):
        pruner.cut_window(whole, 101)


@pytest.mark.parametrize("kind", ["parquet", "saved", "plain"])
def test_recordings_may_lie_in_the_table(folder, tmp_path, kind):
    data = write_clips(tmp_path / "data", train=40)
    rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    sounds = [{"bytes": (data / row["file"]).read_bytes(), "path": row["file"].rpartition("/")[2]} for row in rows]
    table = datasets.Dataset.from_dict({"audio": sounds, "sentence": [row["text"] for row in rows]})
    table = table if kind == "plain" else table.cast_column("audio", datasets.Audio(decode=False))
    if kind == "saved":
        table.save_to_disk(tmp_path / "table")
    else:
        table.to_parquet(tmp_path / "table.parquet")
    task = task_of(folder, tmp_path / ("table" if kind == "saved" else "table.parquet"))
    assert task.data.train + task.data.validation + task.data.test == 40
    beside = task_of(folder, data)
    files = {
        hashlib.sha256(sound["bytes"]).hexdigest()[:32] + ".wav": row["file"]
        for sound, row in zip(sounds, rows, strict=True)
    }
    theirs = beside.train.sources.index(files[task.train.sources[0]])
    one, other = task.train.inputs.picked([0]), beside.train.inputs.picked([theirs])
    assert torch.equal(one.batch(0)["input_features"], other.batch(0)["input_features"])
