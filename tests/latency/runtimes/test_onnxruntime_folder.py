"""The ONNX folder loads where people serve: optimum writes our outputs, in an environment without nash-search."""

from __future__ import annotations

from functools import cache

import pytest
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from nash_search import pruner
from nash_search.config import Workload
from nash_search.latency.runtimes import decoding, parity
from nash_search.latency.runtimes.eager import RUNTIME as EAGER
from nash_search.tasks.g2p import teacher_folder
from tests.pruner import tiny
from tests.serving import asked

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from nash_search.latency.runtimes import onnxruntime_folder  # noqa: E402
from nash_search.latency.runtimes.onnxruntime import RUNTIME  # noqa: E402

GREEDY = Workload(runtime="onnxruntime", input_tokens=12, output_tokens=8, batch_size=3)
BEAMS, LONGEST = [1, 4], 20
FAMILIES = [kind for kind in tiny.TEXT_FAMILIES if kind not in tiny.PYTORCH_ONLY]
KNOWN_TO_JS = ("t5", "flan", "mt5", "bart", "mbart", "marian", "m2m_100", "blenderbot", "blenderbot-small")


def test_the_configuration_is_of_the_familys_own_type_and_says_the_decoders_shape():
    model = tiny.cut_of("bart")
    assert model.config.model_type == "nash_bart"
    found = onnxruntime_folder.stock_config(model)
    assert found["model_type"] == "bart" and found["architectures"] == ["BartForConditionalGeneration"]
    assert found["decoder_layers"] == len(model.get_decoder().layers)
    assert not [key for key in found if key.startswith("nash_") or key == "auto_map"]


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_the_folder_holds_each_weight_once_and_what_loaders_ask_for(tmp_path, quantize):
    teacher = teacher_folder()
    model = pruner.load(teacher)
    with RUNTIME.conversion(model, str(teacher), GREEDY) as found:
        found.save(str(tmp_path), GREEDY.model_copy(update={"quantize": quantize}))
    folder = tmp_path / "onnxruntime"
    assert AutoConfig.from_pretrained(folder).model_type == "t5"
    assert GenerationConfig.from_pretrained(folder).eos_token_id == model.generation_config.eos_token_id
    word = AutoTokenizer.from_pretrained(teacher)("search").input_ids
    assert AutoTokenizer.from_pretrained(folder)("search").input_ids == word
    taken_bytes = sum(path.stat().st_size for path in (folder / "onnx").iterdir())
    weights_bytes = sum(4 * tensor.numel() for tensor in {id(p): p for p in model.parameters()}.values())
    assert taken_bytes < (1.6 if quantize == "none" else 0.9) * weights_bytes, "graphs of a small model weigh too"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Of a family: a cut's folder with 64 rows padded to one length and their mask, what eager writes, the model."""
    root = tmp_path_factory.mktemp("served")

    @cache
    def of(kind):
        model = tiny.cut_of(kind, untied=True)  # tied, a random one says one word for ever
        rows = parity.ragged(model, GREEDY, 64)
        RUNTIME.export(model, str(root / kind), GREEDY, rows)
        ids, mask = decoding.padded(rows, model.config.pad_token_id)
        written = {str(n): EAGER.tokens(model, rows, beams=n, max_new_tokens=LONGEST) for n in BEAMS}
        assert len(set(map(tuple, written["1"]))) > 3, "the inputs tell nothing apart"
        return (str(root / kind / "onnxruntime"), ids.tolist(), mask.tolist()), written, model

    return of


@asked.where(asked.OPTIMUM.is_file(), "optimum")
@asked.one_then(FAMILIES)
def test_optimum_writes_what_eager_writes_for_every_family_and_cut(tmp_path, served, kinds):
    folders = {kind: served(kind)[0] for kind in kinds}
    found = asked.answered(tmp_path, asked.WITH_OPTIMUM, folders=folders, beams=BEAMS, longest=LONGEST)
    assert found == {kind: served(kind)[1] for kind in kinds}


@asked.where(bool(asked.NODE) and asked.JS.is_dir(), "transformers.js")
@asked.one_then(KNOWN_TO_JS)
def test_transformers_js_writes_what_eager_writes_for_every_family_that_it_knows(tmp_path, served, kinds):
    folders = {kind: served(kind)[0] for kind in kinds}
    found = asked.answered(tmp_path, asked.WITH_JS, folders=folders, longest=LONGEST)
    for kind, rows in found.items():  # it writes on behind the end of a row until the whole batch has ended
        _, written, model = served(kind)
        ours, theirs = ([parity.ended(model, row) for row in every] for every in (written["1"], rows))
        assert theirs == ours, kind
