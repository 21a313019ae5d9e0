"""The ONNX folder loads where people serve: optimum writes our outputs, in an environment without nash-search."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from nash_search import pruner
from nash_search.config import Workload
from nash_search.latency.runtimes import decoding, parity
from nash_search.latency.runtimes.eager import RUNTIME as EAGER
from nash_search.tasks.g2p import build_tokenizer, teacher_folder
from tests.pruner import tiny

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from nash_search.latency.runtimes import onnxruntime_folder  # noqa: E402
from nash_search.latency.runtimes.onnxruntime import RUNTIME  # noqa: E402

ROOT = Path(__file__).parents[3]
OPTIMUM = ROOT / ".venv" / "serving-optimum" / "bin" / "python"
GREEDY = Workload(runtime="onnxruntime", input_tokens=12, output_tokens=8, batch_size=3)
BEAMS, LONGEST = [1, 4], 20
NODE, JS = shutil.which("node"), ROOT / ".venv" / "serving-js" / "node_modules"
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
    """By family: a cut's folder with 64 rows padded to one length and their mask, what eager writes, the model."""
    root, found = tmp_path_factory.mktemp("served"), {}
    for kind in [kind for kind in tiny.TEXT_FAMILIES if kind not in tiny.PYTORCH_ONLY]:
        model = tiny.cut_of(kind)
        rows = parity.ragged(model, GREEDY, 64)
        RUNTIME.export(model, str(root / kind), GREEDY, rows)
        ids, mask = decoding.padded(rows, model.config.pad_token_id)
        written = {str(n): EAGER.tokens(model, rows, beams=n, max_new_tokens=LONGEST) for n in BEAMS}
        found[kind] = (str(root / kind / "onnxruntime"), ids.tolist(), mask.tolist()), written, model
    return found


def answered(folder, command, **question):
    """What a tool of another environment answers."""
    asked, answer = folder / "question.json", folder / "answer.json"
    asked.write_text(json.dumps({"longest": LONGEST, **question}))
    subprocess.run([*command, asked, answer], cwd=folder, check=True, capture_output=True)
    return json.loads(answer.read_text())


@pytest.mark.slow
@pytest.mark.skipif(not OPTIMUM.is_file(), reason="optimum's environment is absent: make .venv/installed-serving")
def test_optimum_writes_what_eager_writes_for_every_family_and_cut(tmp_path, served):
    words = tmp_path / "words"
    words.mkdir()
    pruner.save_tokenizer(build_tokenizer(), words)
    texts = [(str(words), "search"), (str(teacher_folder()), "search")]
    ids = AutoTokenizer.from_pretrained(teacher_folder())("search").input_ids
    folders = {kind: given for kind, (given, *_) in served.items()}
    command = [OPTIMUM, "-W", "ignore", ROOT / "tests" / "serving" / "with_optimum.py"]
    found = answered(tmp_path, command, folders=folders, words=texts, beams=BEAMS)
    assert found.pop("words") == {folder: ids for folder, _ in texts}
    assert found == {kind: written for kind, (_, written, _) in served.items()}


@pytest.mark.slow
@pytest.mark.skipif(not NODE or not JS.is_dir(), reason="transformers.js is absent: make .venv/installed-serving")
def test_transformers_js_writes_what_eager_writes_for_every_family_that_it_knows(tmp_path, served):
    folders = {kind: given for kind, (given, *_) in served.items() if kind in KNOWN_TO_JS}
    assert len(folders) == len(KNOWN_TO_JS)
    found = answered(tmp_path, [NODE, ROOT / "tests" / "serving" / "with_transformers.mjs", JS], folders=folders)
    for kind, rows in found.items():  # it writes on behind the end of a row until the whole batch has ended
        _, written, model = served[kind]
        ours, theirs = ([parity.ended(model, row) for row in every] for every in (written["1"], rows))
        assert theirs == ours, kind
