"""A study's trimmed teacher: chosen from train alone, written once, weighed once, repaired when it is damaged."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from nash_search import pruner
from nash_search.config import SearchConfig, TaskConfig, Workload
from nash_search.latency_record import Latency, Round
from nash_search.records import Quality
from nash_search.tasks.data import _read_texts
from nash_search.tasks.scratch_tokenizer import train_tokenizer
from nash_search.trial import vocabulary
from nash_search.trial.dense import Dense

WORDS = "red green blue small large cat dog bird runs sleeps eats here there now then".split()


def rows(words, count, start):
    n = len(words)
    picked = ([words[i % n], words[i // n % n], words[i // n**2 % n]] for i in range(start, start + count))
    return "".join(json.dumps({"source": " ".join(w), "target": " ".join(w[::-1])}) + "\n" for w in picked)


@pytest.fixture
def dense(tmp_path):
    torch.manual_seed(0)
    (tmp_path / "data").mkdir()
    for name, words, count, start in (
        ("train", WORDS[:8], 100, 0),
        ("validation", WORDS, 20, 700),
        ("test", WORDS, 20, 900),
    ):
        (tmp_path / "data" / f"{name}.jsonl").write_text(rows(words, count, start))
    tokenizer = train_tokenizer({"vocabulary": 120}, [" ".join(WORDS[i:] + WORDS[:i]) for i in range(15)])
    config = transformers.T5Config(
        vocab_size=len(tokenizer) + 9, d_model=16, d_kv=4, d_ff=24, num_heads=2, num_layers=1, decoder_start_token_id=0
    )
    pruner.save(transformers.T5ForConditionalGeneration(config).eval(), tmp_path / "model", tokenizer=tokenizer)
    task = TaskConfig(name="own", data=str(tmp_path / "data"), metric="exact_match")
    return Dense(SearchConfig(task=task, model=str(tmp_path / "model"), trim_vocab=True))


def weighed(times):
    timed = Round(runs_ms=(6.0, 6.1, 5.9), dense_runs_ms=(10.0, 10.1, 9.9), contended=(False,) * 3)
    workload = Workload(input_tokens=4, output_tokens=4)

    def weigh(given, whole):
        times.append((given.config.vocab_size, len(whole.tokenizer)))
        return Latency(rounds=(timed,), workload=workload, fingerprint={}), quality(50.0)

    return weigh


def quality(value=49.0):
    return Quality(metric="exact_match", value=value, standard_error=1.0, n=20, split="validation")


def test_it_is_written_once_weighed_once_and_repaired(dense, tmp_path):
    study, times = tmp_path / "study", []
    study.mkdir()
    given = json.loads((dense.found.folder / "config.json").read_text())["vocab_size"]
    assert dense.folder == dense.found.folder
    found = dense.keep_dense(study, weighed(times), quality, opened=False)
    assert dense.folder == study / "teacher" and times == [(given, given - 9)]
    assert found["of"] == given and found["kept"] == len(dense.task.tokenizer) < given - 9
    assert (found["quality"], found["given_quality"]) == (49.0, 50.0) and found["share"] == pytest.approx(0.6)
    assert found["lost"]["validation"]["dropped"] > 0 and "test" not in found["lost"] and not dense.task.sealed.opened
    loaded = pruner.load(dense.folder)
    assert loaded.config.vocab_size == found["kept"]
    before = (study / "teacher" / "model.safetensors").stat().st_mtime_ns
    assert dense.keep_dense(study, weighed(times), quality, opened=False) == found and len(times) == 1
    assert (study / "teacher" / "model.safetensors").stat().st_mtime_ns == before
    (study / "teacher" / "model.safetensors").write_bytes(b"half")
    again = dense.keep_dense(study, weighed(times), quality, opened=True)
    assert again["lost"]["test"]["dropped"] > 0 and dense.task.sealed.opened == 1 and len(times) == 1
    assert pruner.load(dense.folder).config.vocab_size == found["kept"]
    assert dense.keep_dense(study, weighed(times), quality, opened=True) == again and dense.task.sealed.opened == 1
    assert vocabulary.read(study) == again


def test_the_choice_is_part_of_the_question_and_sees_train_alone(dense, tmp_path):
    plain = dense.config.model_copy(update={"trim_vocab": False})
    assert "trim_vocab" not in plain.question() and dense.config.question()["trim_vocab"] is True
    assert Dense(plain).digest != dense.digest
    first, sources = dense.digest, dense.task.validation.sources
    (tmp_path / "data" / "validation.jsonl").write_text(rows(WORDS[5:], 20, 700))
    _read_texts.cache_clear()
    other = Dense(dense.config)
    assert other.task.validation.sources != sources
    assert other.digest == first and other.trimming.kept_ids == dense.trimming.kept_ids


def test_the_report_is_said_in_one_line(dense, tmp_path):
    from nash_search.report.words import vocabulary_words
    from nash_search.summary_rows import Vocabulary

    found = dense.keep_dense(tmp_path, weighed([]), quality, opened=True)
    said = vocabulary_words(Vocabulary(**found))
    assert said.startswith(f"vocabulary: {found['kept']} of {found['of']} tokens kept, which leaves 60.0%")
    assert "49.00 of 50.00" in said and "of validation" in said and "of test" in said and "\n" not in said
