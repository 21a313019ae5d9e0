"""CTranslate2's folder loads where people serve: its documented usage writes our outputs, without nash-search."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nash_search import pruner
from nash_search.config import Workload
from nash_search.latency.runtimes import artefact, parity
from nash_search.latency.runtimes.eager import RUNTIME as EAGER
from nash_search.tasks import models
from nash_search.tasks.g2p import teacher_folder
from tests import speech
from tests.pruner import tiny
from tests.serving import asked

pytest.importorskip("ctranslate2")
from nash_search.latency.runtimes.ctranslate2 import RUNTIME  # noqa: E402

GREEDY = Workload(runtime="ctranslate2", input_tokens=12, output_tokens=8, batch_size=3)
BEAMS, LONGEST = [1, 4], 20
FAMILIES = [kind for kind in tiny.TEXT_FAMILIES if kind not in tiny.PYTORCH_ONLY]
there = asked.where(asked.CTRANSLATE2.is_file(), "CTranslate2")


def numbered_words():
    """A tokenizer of as many words as the tiny models have tokens."""
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "</s>", "<s>", *(f"w{number}" for number in range(3, tiny.VOCABULARY))]
    found = Tokenizer(WordLevel({name: number for number, name in enumerate(names)}, unk_token="<pad>"))
    found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    found.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>"}
    return PreTrainedTokenizerFast(tokenizer_object=found, **special)


def spoken_for(model):
    """The engine's own defaults as the model's settings: one token at least; beams end with as many outputs."""
    model.generation_config.update(num_beams=4, early_stopping=True, min_new_tokens=1)
    return model


def ours(folder, model, rows, longest):
    """By beams, what the exported folder writes here, to the end token; greedy search writes eager's."""
    loaded = RUNTIME.load(str(folder), GREEDY)
    found = {
        str(n): [parity.ended(model, row) for row in RUNTIME.tokens(loaded, rows, beams=n, max_new_tokens=longest)]
        for n in BEAMS
    }
    eager = EAGER.tokens(model, rows, beams=1, max_new_tokens=longest)
    assert [parity.ended(model, row) for row in eager] == found["1"]
    assert len(set(map(tuple, found["1"]))) > 3, "the inputs tell nothing apart"
    return found


def without_end(model, found):
    """The engine's outputs have no end token."""
    end = model.generation_config.eos_token_id
    return {n: [row[: row.index(end)] if end in row else row for row in rows] for n, rows in found.items()}


@there
@asked.one_then(FAMILIES)
def test_the_documented_usage_writes_our_outputs_greedy_and_with_beams(tmp_path, kinds):
    tokenizer, told, expected = numbered_words(), {}, {}
    for kind in kinds:
        model = spoken_for(tiny.cut_of(kind, untied=True))
        rows = parity.ragged(model, GREEDY, 64)
        texts = [" ".join(tokenizer.convert_ids_to_tokens(row)) for row in rows]
        folder = tmp_path / kind
        pruner.save(model, folder, tokenizer=tokenizer)
        RUNTIME.export(model, str(folder), GREEDY, rows)
        told[kind] = str(folder), texts
        expected[kind] = without_end(model, ours(folder, model, tokenizer(texts).input_ids, LONGEST))
    assert asked.answered(tmp_path, asked.WITH_CTRANSLATE2, beams=BEAMS, longest=LONGEST, texts=told) == expected


@there
@pytest.mark.slow
def test_a_model_that_hears_is_served_by_the_documented_usage_of_whisper(tmp_path):
    model = speech.listening(pruner.load(speech.write_model(tmp_path / "dense")))
    folder, rows = tmp_path / "cut", parity.random_rows(model, GREEDY, 64)
    pruner.save(model, folder, tokenizer=speech.tokenizer_of())
    RUNTIME.export(model, str(folder), GREEDY, rows)
    np.save(tmp_path / "features.npy", rows.batch(0)["input_features"].numpy())
    words = ["<|startoftranscript|>", "<|de|>", "<|transcribe|>", "<|notimestamps|>"]
    heard = {"cut": (str(folder), str(tmp_path / "features.npy"), words)}
    found = asked.answered(tmp_path, asked.WITH_CTRANSLATE2, beams=BEAMS, longest=LONGEST, heard=heard)
    assert found == {"cut": without_end(model, ours(folder, model, rows, LONGEST))}


@there
@pytest.mark.slow
def test_the_cards_lines_write_what_was_scored(tmp_path):
    model, tokenizer = pruner.load(teacher_folder()), models.load_tokenizer(models.vet(teacher_folder()))
    pruner.save(model, tmp_path, tokenizer=tokenizer)
    rows = tokenizer(["an input", "budget"]).input_ids
    RUNTIME.export(model, str(tmp_path), GREEDY, rows)
    [own, _] = RUNTIME.load(str(tmp_path), GREEDY).write(rows, beams=1, max_new_tokens=32)
    _, record = artefact.found(tmp_path, "ctranslate2", GREEDY)
    lines = {"card": [f"folder = {str(tmp_path)!r}", *record.loading]}
    found = asked.answered(tmp_path, asked.WITH_CTRANSLATE2, lines=lines)
    assert found == {"card": tokenizer.decode(own, skip_special_tokens=True) + "\n"}
    config = json.loads((tmp_path / "ctranslate2" / "config.json").read_text())
    assert config["eos_token"] == tokenizer.eos_token and config["unk_token"] == tokenizer.unk_token
    assert config["decoder_start_token"] == tokenizer.convert_ids_to_tokens(model.config.decoder_start_token_id)
