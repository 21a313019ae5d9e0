"""CTranslate2 writes what PyTorch writes for a model that hears, whole, cut, and with its window cut."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch

from nash_search import encoder_rows, pruner
from nash_search.config import Workload
from nash_search.errors import InvalidInput
from nash_search.latency.runtimes import artefact, parity
from nash_search.latency.runtimes.eager import RUNTIME as EAGER
from nash_search.pruner.surgery import cut, keep_decoder_blocks
from tests.pruner import tiny
from tests.speech import RATE, listening, spoken, told, write_model

pytest.importorskip("ctranslate2")
from nash_search.latency.runtimes import ctranslate2 as engine  # noqa: E402

RUNTIME = engine.RUNTIME
PLAIN = Workload(runtime="ctranslate2", input_tokens=100, output_tokens=8, beams=2, batch_size=3)
GREEDY = PLAIN.model_copy(update={"beams": 1})
INT8 = GREEDY.model_copy(update={"quantize": "int8"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("speech") / "model")


@pytest.fixture
def model(folder):
    return listening(pruner.load(folder))


def narrow(model):
    """One of two decoder blocks, encoder blocks of several widths, half of the window."""
    kept = cut(keep_decoder_blocks(model, [1]), *tiny.some_kept(model)).eval()
    return pruner.cut_window(kept, 50)


@pytest.mark.parametrize("made", [lambda model: model, narrow])
def test_it_writes_eagers_tokens_greedy_and_with_beams(model, made, tmp_path):
    model = made(model)
    rows = parity.random_rows(model, PLAIN, 64)
    with RUNTIME.conversion(model, "/no/tokenizer/here", PLAIN) as found:
        found.save(str(tmp_path), GREEDY)
    loaded = RUNTIME.load(str(tmp_path), GREEDY)
    told_so = loaded.told["compared"]
    assert (told_so["inputs"], told_so["beams"]) == (64, [1, 2]) and not told_so["ties"]
    own, other = (
        served.tokens(of, rows, beams=1, max_new_tokens=9) for served, of in ((EAGER, model), (RUNTIME, loaded))
    )
    assert len({tuple(row) for row in own}) > 8, "the inputs tell nothing apart"
    assert [parity.ended(model, row) for row in other] == [parity.ended(model, row) for row in own]


def test_the_timed_call_writes_as_many_tokens_as_asked_whatever_the_model_would(model):
    with torch.no_grad():  # ends at once, unless it must not
        end = model.get_output_embeddings().weight[model.generation_config.eos_token_id]
        end.copy_(torch.ones(16))
        model.get_decoder().layer_norm.bias.copy_(100 * end)
    for tokens in (1, 3, 9):
        workload = GREEDY.model_copy(update={"output_tokens": tokens})
        session = RUNTIME.build(model, workload, None)
        assert session.generated_tokens(session.generate()) == tokens and session.natural() == 1
    assert np.asarray(session.encode()).shape == (3, 100, 16) and session.facts()["inputs"] == "random"


@pytest.mark.parametrize("mutant", ["positions", "prompt"])
def test_a_wrong_conversion_is_refused(model, mutant, monkeypatch):
    right = engine.spec_of

    def wrong(given):
        spec = right(given)
        spec.encoder.position_encodings.encodings = spec.encoder.position_encodings.encodings.flip(0)
        return spec

    if mutant == "positions":
        monkeypatch.setattr(engine, "spec_of", wrong)
    else:
        settings = engine.decoding_of(model)
        other = settings.model_copy(update={"prompt": settings.prompt[:2] + settings.prompt[:2]})
        monkeypatch.setattr(engine, "decoding_of", lambda _: other)
    with pytest.raises(InvalidInput, match="must write what PyTorch writes, but .* for input of features"):
        RUNTIME.build(model, GREEDY, None)


def test_an_export_s_own_lines_write_what_is_scored_and_hear_no_more_than_the_window(
    model, folder, tmp_path, monkeypatch, capsys
):
    from transformers import AutoFeatureExtractor, AutoTokenizer

    extractor, tokenizer = (of.from_pretrained(folder) for of in (AutoFeatureExtractor, AutoTokenizer))
    pruner.save(model, tmp_path / "w", tokenizer=tokenizer, extractor=extractor)
    sound = spoken("alpha", seed=1)
    heard = extractor(sound, sampling_rate=RATE, return_tensors="np").input_features
    rows = encoder_rows.FeatureRows(heard, range(1), 100)
    RUNTIME.export(model, str(tmp_path / "w"), INT8, rows)
    place, record = artefact.found(tmp_path / "w", "ctranslate2", INT8)
    assert {"tokenizer.json", "preprocessor_config.json", "vocabulary.json"} <= {file.name for file in place.iterdir()}
    settings = json.loads((place / "config.json").read_text())
    assert settings["alignment_heads"] == [[0, 1], [1, 0]] and len(settings["lang_ids"]) == 2
    loaded = RUNTIME.load(str(tmp_path / "w"), INT8)
    expected = tokenizer.decode(RUNTIME.tokens(loaded, rows, beams=1, max_new_tokens=24)[0], skip_special_tokens=True)
    monkeypatch.chdir(tmp_path)
    soundfile.write("clip.wav", sound, RATE, subtype="FLOAT")
    exec("\n".join(record.loading), {"folder": str(tmp_path / "w")})
    assert capsys.readouterr().out.splitlines() == [expected]
    soundfile.write("clip.wav", spoken("alpha", seed=1, seconds=2.5), RATE, subtype="FLOAT")
    with pytest.raises(AssertionError, match="it hears no more"):
        exec("\n".join(record.loading), {"folder": str(tmp_path / "w")})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"language": None}, "language must stand in generation_config.json, but got none"),
        (
            {"return_timestamps": True},
            "return_timestamps must be left out for speech on runtime ctranslate2, but got True",
        ),
        ({"min_length": 3}, "min_length must be left out for runtime ctranslate2, but got 3"),
        ({"no_timestamps_token_id": None}, "no_timestamps_token_id must be named"),
        ({"repetition_penalty": 1.3}, "repetition_penalty must be left out for runtime ctranslate2, but got 1.3"),
        ({"bad_words_ids": [[6, 7]]}, "bad_words_ids must be single tokens for speech"),
    ],
)
def test_settings_that_the_engine_has_not_for_speech_are_refused_by_name(model, settings, words):
    told(model, **settings)
    with pytest.raises(InvalidInput, match=words):
        RUNTIME.build(model, GREEDY, None)


def test_settings_that_it_has_are_followed(model, tmp_path):
    told(model, suppress_tokens=[5, 6], begin_suppress_tokens=[9, 256], bad_words_ids=[[11]])
    with RUNTIME.conversion(model, "/no/tokenizer/here", PLAIN) as found:
        found.save(str(tmp_path), GREEDY)
    written = RUNTIME.tokens(
        RUNTIME.load(str(tmp_path), GREEDY), parity.random_rows(model, PLAIN, 64), beams=1, max_new_tokens=9
    )
    assert not {5, 6, 11} & {token for row in written for token in row}
