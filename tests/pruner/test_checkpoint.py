"""What is saved is what is loaded: stock and self-contained folders, tied and untied heads."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import KINDS, batch_of, logits_of, model_of, some_kept
from transformers import AutoTokenizer

from nash_search.errors import InvalidInput
from nash_search.pruner import cut, load, save, save_tokenizer, shapes_of, shorten
from nash_search.tasks.g2p import build_tokenizer
from tests import speech
from tests.serving import asked
from tests.tasks.test_vocabulary import MAKERS

CORE = ("t5", "flan", "bart")
ALL = [pytest.param(kind, marks=[] if kind in CORE else pytest.mark.slow) for kind in KINDS]


def tied(model):
    return model.get_output_embeddings().weight is model.get_decoder().get_input_embeddings().weight


@pytest.mark.parametrize("untied", [False, True], ids=["tied", "untied"])
@pytest.mark.parametrize("narrow", [False, True], ids=["stock", "narrow"])
@pytest.mark.parametrize("kind", ALL)
def test_round_trip_is_exact_twice(kind, narrow, untied, tmp_path):
    model, batch = shorten(model_of(kind, untied=untied), 2), batch_of(kind=kind)
    if narrow:
        model = cut(model, *some_kept(model))
    model.generation_config.num_beams = 2
    first = load(save(model, tmp_path / "first"))
    second = load(save(first, tmp_path / "second"))
    for loaded in (first, second):
        assert type(loaded) is type(model)
        assert torch.equal(logits_of(model, batch), logits_of(loaded, batch))
        assert tied(loaded) is tied(model) is (not untied)
        assert shapes_of(loaded) == shapes_of(model)
        depths = [m.get_decoder().config.num_hidden_layers for m in (loaded, model)]
        assert depths[0] == depths[1]
        assert loaded.generation_config.num_beams == 2
        assert loaded.num_parameters() == model.num_parameters()
    config = json.loads((tmp_path / "second" / "config.json").read_text())
    assert ("auto_map" in config) is narrow
    assert not untied or config["tie_word_embeddings"] is False  # transformers 4 would tie it again
    assert (tmp_path / "second" / "modeling_nash.py").exists() is narrow
    assert config["model_type"].startswith("nash_") is narrow
    assert {p.name for p in tmp_path.iterdir()} == {"first", "second"}


def test_stock_format_is_refused_where_the_stock_config_cannot_say_the_shape(tmp_path):
    model = model_of("t5")
    with pytest.raises(InvalidInput, match="format stock must be able to say the model's shape"):
        save(cut(model, *some_kept(model)), tmp_path / "x", format="stock")
    assert not (tmp_path / "x").exists()
    save(shorten(model, 2), tmp_path / "x", format="stock")


def test_weights_of_another_size_than_the_config_says_are_refused(tmp_path):
    model = model_of("t5")
    folder = save(cut(model, *some_kept(model)), tmp_path / "x")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"d_ff": 40}))
    with pytest.raises(InvalidInput, match="weights must have the shapes its config says"):
        load(folder)
    stock = json.loads((save(model, tmp_path / "stock") / "config.json").read_text())
    (tmp_path / "stock" / "config.json").write_text(json.dumps(stock | {"nash_shapes": config["nash_shapes"]}))
    with pytest.raises(InvalidInput, match="encoder must have the shapes its config says"):
        load(tmp_path / "stock")


def test_the_tokenizer_travels_along(tmp_path):
    folder = save(model_of("bart"), tmp_path / "x", tokenizer=build_tokenizer())
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == build_tokenizer().get_vocab()


def test_foreign_code_other_families_and_damaged_weights_are_refused(tmp_path):
    model = model_of("bart")
    folder = save(model, tmp_path / "x")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(InvalidInput, match="must not carry code of its own"):
        load(folder)
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "fsmt"}))
    with pytest.raises(InvalidInput, match="but got fsmt"):
        load(folder)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    save(model, folder)
    with pytest.raises(InvalidInput, match="weights must be finite"):
        load(folder)
    save(model_of("t5"), folder)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.block.1.layer.0.SelfAttention.q.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidInput, match="must hold all weights, but got none for encoder.block.1.layer.0"):
        load(folder)
    with pytest.raises(InvalidInput, match="must be a folder with a config.json"):
        load(tmp_path / "nowhere")


def test_a_tokenizer_is_saved_under_names_that_transformers_4_knows_too(tmp_path):
    save_tokenizer(build_tokenizer(), tmp_path / "letters")
    settings = json.loads((tmp_path / "letters" / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "letters")("search").input_ids == build_tokenizer()("search").input_ids
    )
    save_tokenizer(speech.tokenizer_of(), tmp_path / "speech")
    settings = json.loads((tmp_path / "speech" / "tokenizer_config.json").read_text())
    assert len(settings["additional_special_tokens"]) == 6 and "extra_special_tokens" not in settings
    assert len(AutoTokenizer.from_pretrained(tmp_path / "speech").extra_special_tokens) == 6


@asked.where(asked.CTRANSLATE2.is_file(), "transformers 4.57")
def test_every_tokenizer_that_is_saved_loads_in_transformers_4_57(tmp_path):
    made = {maker.__name__: maker() for maker in MAKERS} | {"g2p": build_tokenizer(), "speech": speech.tokenizer_of()}
    text, words, ids = "ba search stru?", {}, {}
    for name, tokenizer in made.items():
        save_tokenizer(tokenizer, tmp_path / name)
        words[name] = str(tmp_path / name), text
        ids[name] = tokenizer(text).input_ids
    assert asked.answered(tmp_path, asked.WITH_CTRANSLATE2, words=words) == ids
