"""ONNX Runtime writes what PyTorch writes, for every family and every cut; a wrong graph is caught."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from nash_search import pruner
from nash_search.config import Workload
from nash_search.errors import InvalidInput
from nash_search.families import family_of
from nash_search.latency import runtimes
from nash_search.latency.runtimes import artefact, decoding, parity
from nash_search.latency.runtimes.eager import RUNTIME as EAGER
from nash_search.tasks.g2p import teacher_folder
from tests.pruner import tiny

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
from nash_search.latency.runtimes import onnxruntime as engine  # noqa: E402
from nash_search.latency.runtimes import onnxruntime_graphs as graphs  # noqa: E402

RUNTIME = engine.RUNTIME
BEAMS = Workload(runtime="onnxruntime", input_tokens=12, output_tokens=8, beams=3, batch_size=3)
GREEDY = BEAMS.model_copy(update={"beams": 1})
INT8 = GREEDY.model_copy(update={"quantize": "int8"})
FAMILIES = [kind for kind in tiny.TEXT_FAMILIES if kind not in tiny.PYTORCH_ONLY]
cut = tiny.cut_of


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow) for kind in FAMILIES] + ["flan", "bart"])
def test_a_cut_and_an_untied_dense_model_write_eagers_tokens_greedy_and_with_beams(kind):
    for model in (cut(kind, untied=False), tiny.model_of(kind, untied=True)):
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        attention = model.config._attn_implementation
        rows = parity.ragged(model, BEAMS, 64)
        assert len({len(row) for row in rows}) == 12
        loaded = RUNTIME.build(model, BEAMS, None).engine
        assert loaded.told["compared"] == {"inputs": 64, "beams": [1, 3], "ties": 0}
        for beams in (1, 3):
            found = RUNTIME.tokens(loaded, rows, beams=beams, max_new_tokens=20)
            assert found == EAGER.tokens(model, rows, beams=beams, max_new_tokens=20)
        assert not model.training and model.config._attn_implementation == attention
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


SETTINGS = {
    "ends soon": {"eos_token_id": [1, 7, 9, 12, 20, 31]},
    "forced": {"forced_bos_token_id": 6, "forced_eos_token_id": 1},
    "suppressed": {"suppress_tokens": [3, 5, 8], "bad_words_ids": [[11], [17]]},
    "not before": {"min_new_tokens": 5, "eos_token_id": [1, 7, 9, 12, 20, 31]},
    "long wanted": {"length_penalty": 2.0, "eos_token_id": [1, 7, 9]},
    "short wanted": {"length_penalty": -1.0, "eos_token_id": [1, 7, 9]},
    "first come": {"early_stopping": True, "eos_token_id": [1, 7, 9]},
    "never": {"early_stopping": "never", "length_penalty": 0.5, "eos_token_id": [1, 7, 9]},
}


class TorchDecoder:
    """The model itself, without a cache: what the loops are compared on, whatever the engine."""

    def __init__(self, model, rows, beams):
        ids, mask = decoding.padded(rows, 0)
        self.model = model
        self.inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
        self.inputs = {name: tensor.repeat_interleave(beams, 0) for name, tensor in self.inputs.items()}
        self.written = torch.zeros(len(rows) * beams, 0, dtype=torch.long)

    def step(self, tokens_R):
        self.written = torch.cat([self.written, torch.tensor(tokens_R)[:, None]], 1)
        with torch.no_grad():
            return self.model(**self.inputs, decoder_input_ids=self.written).logits[:, -1].numpy()

    def reorder(self, rows_R):
        self.written = self.written[torch.tensor(rows_R)]


@pytest.mark.parametrize("name", SETTINGS)
def test_the_loops_follow_a_models_own_settings(name):
    model = tiny.model_of("bart")
    model.generation_config.update(**SETTINGS[name])
    rows = parity.ragged(model, GREEDY, 12)
    for beams in (1, 2, 4):
        rules = decoding.rules_of(model, "onnxruntime")
        found = decoding.search(TorchDecoder(model, rows, beams), rules, len(rows), beams, longest=10)
        assert found.tolist() == EAGER.tokens(model, rows, beams=beams, max_new_tokens=10)


@pytest.mark.parametrize("kind", tiny.PYTORCH_ONLY)
def test_a_family_that_the_engine_cannot_say_is_refused_by_name(kind):
    with pytest.raises(InvalidInput, match=f"model must be one of t5, .* for runtime .*, but got {kind}"):
        RUNTIME.build(tiny.model_of(kind), GREEDY, None)


def test_the_output_has_exactly_the_workloads_length():
    model = cut("bart")
    own = model.generation_config.eos_token_id
    with torch.no_grad():
        model.final_logits_bias[0, own] = 50.0  # ends at once, unless it must not
    for workload in (GREEDY, BEAMS):
        session = RUNTIME.build(model, workload, [[3, 4, 5], [6]])
        output = session.generate()
        assert output.shape == (3, 9) and session.generated_tokens(output) == 8
        assert not (output[:, 1:] == own).any()
        assert session.natural() == 1 and session.facts()["inputs"] == "task"
        assert session.encode() is not None and session.weight_bytes() > 0


@pytest.mark.slow
def test_an_export_is_loaded_as_it_was_written_and_int8_is_smaller(tmp_path):
    model = tiny.model_of("t5")
    pruner.save(model, tmp_path)
    rows = parity.ragged(model, GREEDY, 8)
    whole = RUNTIME.tokens(RUNTIME.load(str(tmp_path), GREEDY), rows, beams=1, max_new_tokens=8)
    assert artefact.found(tmp_path, "onnxruntime", GREEDY) is None  # the checkpoint was exported on the way
    for workload in (GREEDY, INT8):
        RUNTIME.export(model, str(tmp_path), workload, rows)
        place, record = artefact.found(tmp_path, "onnxruntime", workload)
        assert {p.name for p in place.iterdir()} == {"artefact.json", "config.json", "generation_config.json", "onnx"}
        assert {p.name for p in (place / "onnx").iterdir()} == {graphs.ENCODER, graphs.DECODER}
        assert record.settings["compared"]["inputs"] == 64
        loaded = RUNTIME.load(str(tmp_path), workload)
        tokens = RUNTIME.tokens(loaded, rows, beams=1, max_new_tokens=8)
        assert (tokens == whole) or workload is INT8
    assert artefact.found(tmp_path, "onnxruntime", GREEDY) is None
    assert RUNTIME.build(loaded, INT8, None).weight_bytes() < RUNTIME.build(model, GREEDY, None).weight_bytes()


@pytest.mark.slow
def test_int8_holds_a_model_whose_feed_forward_layers_have_outliers(tmp_path):
    model = pruner.load(teacher_folder())
    with torch.no_grad():
        for block in (*model.encoder.block, *model.decoder.block):  # as in a real T5; not one bit of float32 changes
            ffn = block.layer[-1].DenseReluDense
            ffn.wi.weight[0] *= 2.0**12
            ffn.wo.weight[:, 0] /= 2.0**12
    rows = parity.ragged(model, GREEDY, 64)
    RUNTIME.export(model, str(tmp_path), INT8, rows)
    found = RUNTIME.tokens(RUNTIME.load(str(tmp_path), INT8), rows, beams=1, max_new_tokens=6)
    own = EAGER.tokens(model, rows, beams=1, max_new_tokens=6)
    assert sum(a == b for a, b in zip(found, own, strict=True)) >= 32


@pytest.mark.parametrize(("family", "both"), [("t5", True), ("bart", False)])
def test_int8_leaves_in_float32_what_the_library_keeps_there(family, both, tmp_path):
    model = tiny.model_of(family)
    RUNTIME.export(model, str(tmp_path), INT8)
    place, _ = artefact.found(tmp_path, "onnxruntime", INT8)
    out = f"/{family_of(model).layout.ffn_out}/MatMul"
    kept = {}
    for name in (graphs.ENCODER, graphs.DECODER):
        nodes = _nodes(onnx.load(place / "onnx" / name).graph)
        kept[name] = any(node.op_type == "MatMul" and node.name.endswith(out) for node in nodes)
        assert any(node.op_type == "MatMulInteger" for node in nodes)
    assert kept == {graphs.ENCODER: True, graphs.DECODER: both}


def _nodes(graph):
    """A graph's nodes and those of its branches."""
    inner = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return [*graph.node, *(node for one in inner for node in _nodes(one))]


def test_a_graph_that_writes_something_else_is_refused(monkeypatch):
    added = graphs._added
    monkeypatch.setattr(graphs, "_added", lambda mask_BS, queries: added(mask_BS, queries) * 0)  # padding is looked at
    with pytest.raises(InvalidInput, match="runtime onnxruntime must write what PyTorch writes"):
        RUNTIME.build(tiny.model_of("bart"), GREEDY, None)


@pytest.mark.parametrize("field, value", [("dtype", "bfloat16"), ("device", "cuda:0")])
def test_what_the_engine_does_not_have_is_refused(field, value):
    with pytest.raises(InvalidInput, match=f"{field} must be .* for runtime onnxruntime, but got {value}"):
        RUNTIME.build(tiny.model_of("t5"), GREEDY.model_copy(update={field: value}), None)


def test_settings_that_are_not_followed_are_refused():
    model = tiny.model_of("t5")
    for settings in ({"no_repeat_ngram_size": 3}, {"repetition_penalty": 1.2}, {"bad_words_ids": [[3, 4]]}):
        model.generation_config.update(no_repeat_ngram_size=0, repetition_penalty=1.0, bad_words_ids=None)
        model.generation_config.update(**settings)
        with pytest.raises(InvalidInput, match=next(iter(settings))):
            RUNTIME.build(model, GREEDY, None)


def test_it_is_the_runtime_that_a_workload_names_and_runs_on_the_asked_threads():
    assert runtimes.runtime_of(GREEDY) is RUNTIME and RUNTIME.outside_torch
    assert "onnxruntime" in RUNTIME.fingerprint(GREEDY)
    session = RUNTIME.build(tiny.model_of("bart"), GREEDY.model_copy(update={"threads": 2}), None)
    assert session.engine.decoder.get_session_options().intra_op_num_threads == 2
    assert np.array_equal(session.generate(), session.generate())


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"forced_bos_token_id": 40}])
def test_the_lines_an_export_carries_write_what_the_engine_writes(tmp_path, settings):
    folder = shutil.copytree(teacher_folder(), tmp_path / "teacher")
    model = pruner.load(folder)
    model.generation_config.update(**settings)
    RUNTIME.export(model, str(folder), GREEDY)
    _, record = artefact.found(folder, "onnxruntime", GREEDY)
    lines = "\n".join([f"folder = {str(folder)!r}", *record.loading])
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", lines], capture_output=True, text=True, check=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [tokenizer("an input").input_ids]
    [tokens] = RUNTIME.tokens(RUNTIME.load(str(folder), GREEDY), rows, beams=1, max_new_tokens=32)
    assert done.stdout.splitlines()[0] == tokenizer.decode(tokens, skip_special_tokens=True) != ""
