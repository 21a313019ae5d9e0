"""CTranslate2 writes what PyTorch writes, for every family and every cut; a wrong spelling is caught."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
import torch
from transformers import MarianConfig, MarianMTModel

from nash_search import device, pruner
from nash_search.config import Workload
from nash_search.errors import InvalidInput
from nash_search.latency import runtimes
from nash_search.latency.runtimes import artefact, parity
from nash_search.latency.runtimes.eager import RUNTIME as EAGER
from tests.pruner import tiny

ctranslate2 = pytest.importorskip("ctranslate2")
from nash_search.latency.runtimes import ctranslate2 as engine  # noqa: E402
from nash_search.latency.runtimes import ctranslate2_spec as spelling  # noqa: E402
from nash_search.latency.runtimes import ctranslate2_words as vocabulary  # noqa: E402

RUNTIME = engine.RUNTIME
PLAIN = Workload(runtime="ctranslate2", input_tokens=12, output_tokens=8, beams=2, batch_size=3)
GREEDY = PLAIN.model_copy(update={"beams": 1})
INT8 = GREEDY.model_copy(update={"quantize": "int8"})
NAME, SIDES = "ctranslate2", ("source", "target")
FAMILIES = [kind for kind in tiny.TEXT_FAMILIES if kind not in tiny.PYTORCH_ONLY]
cut = tiny.cut_of


def alike(model):
    """The model with Hugging Face's setting under which its beams end as the engine's do, output for output."""
    model.generation_config.update(early_stopping=True)
    return model


def eager(model, rows, beams, longest=12):
    """Eager's tokens to the end token."""
    return ended(model, EAGER.tokens(model, rows, beams=beams, max_new_tokens=longest))


def ended(model, found):
    """Without what fills up a batch: eager pads with zeros after greedy search, with end tokens after beams."""
    return [parity.ended(model, row) for row in found]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "flan" else pytest.mark.slow) for kind in FAMILIES]
)
def test_a_cut_and_an_untied_dense_model_write_eagers_tokens_greedy_and_with_beams(kind):
    for model in map(alike, (cut(kind, untied=False), tiny.model_of(kind, untied=True))):
        rows = parity.ragged(model, PLAIN, 64)
        assert len({len(row) for row in rows}) == 12
        loaded = RUNTIME.build(model, PLAIN, None).engine
        assert loaded.told["compared"] == {"inputs": 64, "beams": [1, 2], "ties": 0}
        for beams in (1, 2):
            own = RUNTIME.tokens(loaded, rows, beams=beams, max_new_tokens=12)
            assert ended(model, own) == eager(model, rows, beams)


@pytest.mark.parametrize("kind", tiny.PYTORCH_ONLY)
def test_a_family_that_the_engine_cannot_say_is_refused_by_name(kind):
    with pytest.raises(InvalidInput, match=f"model must be one of t5, .* for runtime .*, but got {kind}"):
        RUNTIME.build(tiny.model_of(kind), GREEDY, None)


def test_the_output_has_exactly_the_workloads_length_and_the_encoder_has_no_time_of_its_own():
    model = cut("bart")
    own = model.generation_config.eos_token_id
    with torch.no_grad():
        model.final_logits_bias[0, own] = 50.0  # ends at once, unless it must not
    for workload in (GREEDY, PLAIN):
        session = RUNTIME.build(model, workload, [[3, 4, 5], [6]])
        output = session.generate()
        assert [len(row) for row in output] == [8, 8, 8] and session.generated_tokens(output) == 8
        assert not any(str(own) in row for row in output)
        assert session.natural() == 1 and session.rows == [["3", "4", "5"], ["6"], ["3", "4", "5"]]
        assert session.generated_tokens([*output[:2], output[2][:5]]) == 5
        assert session.encode is None and session.facts()["inputs"] == "task"


def own_bias_of_another_block(model, spec):
    layers = spec.encoder.layer
    layers[0].self_attention.relative_attention_bias = layers[2].self_attention.relative_attention_bias


def heads_not_filled_up(model, spec):
    for layer, block in zip(spec.encoder.layer, model.encoder.block, strict=True):
        own = block.layer[0].SelfAttention
        linear = layer.self_attention.linear
        linear[0].weight = torch.cat([own.q.weight, own.k.weight, own.v.weight]).detach()
        linear[1].weight = own.o.weight.detach()
    widest = max(block.layer[0].SelfAttention.n_heads for block in model.encoder.block)
    spec.encoder.num_heads = np.int16(widest)


def logits_not_scaled(model, spec):
    spec.decoder.scale_outputs = float(model.config.d_model**0.5)


def gate_and_value_exchanged(model, spec):
    ffn = spec.decoder.layer[0].ffn
    ffn.linear_0.weight, ffn.linear_0_noact.weight = ffn.linear_0_noact.weight, ffn.linear_0.weight


def decoder_blocks_exchanged(model, spec):
    spec.decoder.layer = spec.decoder.layer[::-1]


@pytest.mark.parametrize(
    "mutant", [own_bias_of_another_block, heads_not_filled_up, gate_and_value_exchanged, decoder_blocks_exchanged]
)
def test_a_wrong_spelling_is_refused_and_the_input_named(mutant, monkeypatch):
    model = cut("flan")
    right = spelling.spec_of

    def wrong(given):
        spec = right(given)
        mutant(given, spec)
        return spec

    monkeypatch.setattr(engine, "spec_of", wrong)
    with pytest.raises(InvalidInput, match=r"must write what PyTorch writes, but .* for input \[\d+"):
        RUNTIME.build(model, GREEDY, None)
    monkeypatch.setattr(engine, "spec_of", right)
    RUNTIME.build(model, GREEDY, None)


@pytest.mark.slow
def test_only_what_eager_itself_scores_alike_is_forgiven():
    model = tiny.model_of("bart")
    with torch.no_grad():
        model.model.shared.weight[7] = model.model.shared.weight[9]  # two tokens that nothing tells apart
        model.final_logits_bias[0, [7, 9]] = 20.0  # and no other is ever written

    def same(rows, *, beams, max_new_tokens):
        return EAGER.tokens(model, rows, beams=beams, max_new_tokens=max_new_tokens)

    def other(rows, **asked):
        return [[{7: 9, 9: 7}.get(token, token) for token in row] for row in same(rows, **asked)]

    def wrong(rows, **asked):
        return [[*row[:2], 11, *row[3:]] for row in same(rows, **asked)]

    brief = GREEDY.model_copy(update={"output_tokens": 3, "input_tokens": 4})
    assert parity.agreed(model, same, brief) == {"inputs": 64, "beams": [1], "ties": 0}
    assert parity.agreed(model, other, brief, [[7, 9, 7], [9, 9]])["ties"] == 64
    with pytest.raises(InvalidInput, match=r"with 1 beams it got \[7, 11, 7\] instead of \[7, 7, 7\] for input"):
        parity.agreed(model, wrong, brief)


@pytest.mark.slow
def test_int8_is_what_was_asked_and_really_runs_and_is_smaller(tmp_path):
    model = cut("flan")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    RUNTIME.export(model, str(tmp_path), INT8)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()), "quantised in place"
    RUNTIME.export(model, str(tmp_path / "full"), GREEDY)
    quantised = RUNTIME.load(str(tmp_path), INT8)
    session = RUNTIME.build(quantised, INT8, None)
    assert session.generated_tokens(session.generate()) == 8
    assert session.facts()["compute_type"] == "int8_float32" and session.facts()["compared"]["inputs"] == 64
    size = {name: (tmp_path / name / "model.bin").stat().st_size for name in ("ctranslate2", "full/ctranslate2")}
    assert size["ctranslate2"] < 0.5 * size["full/ctranslate2"]
    here = device.resolve("cpu")
    prints = [runtimes.fingerprint(here, w) for w in (INT8, PLAIN)]
    assert [p["compute_type"] for p in prints] == ["int8_float32", "float32"] and prints[0]["hash"] != prints[1]["hash"]
    assert prints[0]["ctranslate2"] == ctranslate2.__version__
    with pytest.raises(InvalidInput, match="what ctranslate2 has on cpu"):
        engine.compute_type(PLAIN.model_copy(update={"dtype": "bfloat16"}))


def test_the_artefact_itself_is_what_is_loaded_and_only_for_its_own_precision(tmp_path, monkeypatch):
    model = cut("t5")
    pruner.save(model, tmp_path / "w")
    RUNTIME.export(model, str(tmp_path / "w"), INT8, [[3, 4], [5]])
    place, record = artefact.found(tmp_path / "w", "ctranslate2", INT8)
    assert record.settings["compared"]["inputs"] == 64 and record.quantize == "int8"
    assert artefact.found(tmp_path / "w", "ctranslate2", PLAIN) is None
    rows = parity.ragged(model, PLAIN, 64)
    from_checkpoint = RUNTIME.load(str(tmp_path / "w"), GREEDY)  # the artefact is quantised: not this one
    assert from_checkpoint.write(rows, beams=1, max_new_tokens=9) == EAGER.tokens(
        model, rows, beams=1, max_new_tokens=9
    )
    monkeypatch.setattr(engine, "spec_of", None)  # nothing is converted any more
    assert RUNTIME.load(str(tmp_path / "w"), INT8).write(rows[:2], beams=1, max_new_tokens=4)
    (place / artefact.FILE).write_text("{}")
    with pytest.raises(InvalidInput, match="record of ours"):
        RUNTIME.load(str(tmp_path / "w"), INT8)


def test_generation_settings_are_the_models_own_or_refused_by_name():
    model = alike(cut("mbart"))
    settings = {"forced_bos_token_id": 5, "forced_eos_token_id": 1, "bad_words_ids": [[6], [7, 8]], "min_length": 4}
    model.generation_config.update(**settings)
    rows = parity.ragged(model, PLAIN, 64)
    loaded = RUNTIME.build(model, PLAIN, None).engine
    for beams in (1, 2):
        found = RUNTIME.tokens(loaded, rows, beams=beams, max_new_tokens=9)
        assert {row[1] for row in found} == {5} and {len(row) for row in found} == {10}
        assert ended(model, found) == eager(model, rows, beams, 9)
    model.generation_config.update(encoder_repetition_penalty=2.0)
    with pytest.raises(InvalidInput, match="encoder_repetition_penalty must be left out for runtime ctranslate2"):
        RUNTIME.build(model, PLAIN, None)


ENDS = [1, 7, 9, 12, 20, 31]
"""Ends that come by chance: beams finish at different lengths, and keep on looking."""
SETTINGS = {
    "until none is better": {},
    "never": {"early_stopping": "never"},
    "long wanted": {"length_penalty": 2.0},
    "forced": {"forced_bos_token_id": 6, "forced_eos_token_id": 1},
    "suppressed": {"bad_words_ids": [[11], [3, 5]], "min_length": 3},
    "no pair twice": {"no_repeat_ngram_size": 2},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_score_is_what_hugging_faces_beams_look_for(name):
    model = tiny.model_of("bart")
    model.generation_config.update(**{"eos_token_id": ENDS, **SETTINGS[name]})
    asked = {"num_beams": 4, "max_new_tokens": 9, "output_scores": True, "return_dict_in_generate": True}
    for row in parity.ragged(model, PLAIN, 12):
        found = model.generate(torch.tensor([row]), **asked)
        output = parity.ended(model, found.sequences[0].tolist())
        score = parity.objective(model, [row], output, longest=9)
        assert score == pytest.approx(found.sequences_scores[0].item(), abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "output"),
    [
        ({"bad_words_ids": [[3, 5]]}, [4, 3, 5, 1]),
        ({"suppress_tokens": [4]}, [4, 3, 1]),
        ({"no_repeat_ngram_size": 2}, [4, 3, 4, 3, 1]),
        ({"forced_bos_token_id": 6}, [4, 3, 1]),
        ({"forced_eos_token_id": 1}, [4, 3, 2, 4, 3, 2, 4, 3, 2]),
        ({"min_new_tokens": 3}, [4, 1]),
    ],
)
def test_an_output_that_breaks_a_setting_scores_nothing(settings, output):
    model = tiny.model_of("bart")
    model.generation_config.update(eos_token_id=1)
    assert math.isfinite(parity.objective(model, [[3, 4]], output, longest=9))
    model.generation_config.update(**settings)
    assert parity.objective(model, [[3, 4]], output, longest=9) == -math.inf


def test_beams_that_end_by_another_rule_are_judged_by_pytorchs_score(monkeypatch):
    model = tiny.model_of("bart")
    model.generation_config.update(eos_token_id=ENDS)
    wide = PLAIN.model_copy(update={"beams": 4, "output_tokens": 12})
    rows = parity.ragged(model, wide, 64)
    found = engine._compared(model, engine.decoding_of(model), words_of(model), wide, rows)
    assert found["beams"] == [1, 4] and found["differing"] > 0, "eager goes on where the engine stops"
    assert -parity.GAP <= found["score_gap"] <= parity.GAP
    wrong = engine.decoding_of(model).model_copy(update={"length_penalty": -4.0})  # greedy search does not see it
    with pytest.raises(InvalidInput, match=r"scores at most 0.02 nats per token below its own, but with 4 beams"):
        engine._compared(model, wrong, words_of(model), wide, rows)


def words_of(model):
    sizes = spelling.sizes_of(spelling.spec_of(model))
    return vocabulary.words_for("/no/tokenizer/here", *sizes, pad=0)


def test_marian_with_a_vocabulary_for_each_language_writes_eagers_tokens(tmp_path):
    sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 32}
    ids = {"pad_token_id": 36, "eos_token_id": 0, "decoder_start_token_id": 36, "forced_eos_token_id": 0}
    apart = {"vocab_size": 37, "decoder_vocab_size": 45, "share_encoder_decoder_embeddings": False}
    torch.manual_seed(0)
    config = MarianConfig(**sizes, **heads, **ids, **apart, tie_word_embeddings=False, init_std=0.3)
    model = alike(MarianMTModel(config).eval())
    rows = parity.ragged(model, PLAIN, 64)
    RUNTIME.export(model, str(tmp_path), PLAIN, rows)
    assert {len(json.loads((tmp_path / NAME / f"{side}_vocabulary.json").read_text())) for side in SIDES} == {37, 45}
    loaded = RUNTIME.load(str(tmp_path), PLAIN)
    found = ended(model, RUNTIME.tokens(loaded, rows, beams=1, max_new_tokens=12))
    assert found == eager(model, rows, 1) and max(max(row) for row in found) >= 37


def test_every_id_has_one_word_though_the_tokenizer_does_not_know_it():
    words = vocabulary._named({"a": 0, "<unused_3>": 1, "b": 2}, 5)
    assert words == ("a", "<unused_3>", "b", "<unused_3>_", "<unused_4>")


def test_what_the_engine_cannot_say_is_refused_by_name():
    model = tiny.model_of("t5")
    model.config.dense_act_fn = "mish"
    with pytest.raises(InvalidInput, match="activation must be one of .* but got mish"):
        spelling.spec_of(model)
    model.config.model_type = "fsmt"
    with pytest.raises(InvalidInput, match="but got fsmt"):
        spelling.spec_of(model)
    long = PLAIN.model_copy(update={"input_tokens": 65})
    with pytest.raises(InvalidInput, match="at most 64, but got 65"):
        RUNTIME.build(RUNTIME.build(cut("bart"), GREEDY, None).engine, long, None)


def test_an_absent_engine_is_named_with_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    monkeypatch.delitem(sys.modules, "nash_search.latency.runtimes.ctranslate2")
    with pytest.raises(InvalidInput, match=r"needs ctranslate2, .*pip install nash-search\[ctranslate2\]"):
        runtimes.runtime_of(PLAIN)
