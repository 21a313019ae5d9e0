"""The ONNX folder loads where people serve: optimum writes our outputs, in an environment without nash-search."""

from __future__ import annotations

import json
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


@pytest.mark.slow
@pytest.mark.skipif(not OPTIMUM.is_file(), reason="optimum's environment is absent: make .venv/installed-serving")
def test_optimum_writes_what_eager_writes_for_every_family_and_cut(tmp_path):
    asked, wanted = {}, {}
    for kind in [kind for kind in tiny.TEXT_FAMILIES if kind not in tiny.PYTORCH_ONLY]:
        model = tiny.cut_of(kind)
        rows = parity.ragged(model, GREEDY, 64)
        RUNTIME.export(model, str(tmp_path / kind), GREEDY, rows)
        ids, mask = decoding.padded(rows, model.config.pad_token_id)
        asked[kind] = str(tmp_path / kind / "onnxruntime"), ids.tolist(), mask.tolist()
        wanted[kind] = {str(n): EAGER.tokens(model, rows, beams=n, max_new_tokens=LONGEST) for n in BEAMS}
    words = tmp_path / "words"
    words.mkdir()
    pruner.save_tokenizer(build_tokenizer(), words)
    texts = [(str(words), "search"), (str(teacher_folder()), "search")]
    ids = AutoTokenizer.from_pretrained(teacher_folder())("search").input_ids
    wanted["words"] = {folder: ids for folder, _ in texts}
    question, answer = tmp_path / "question.json", tmp_path / "answer.json"
    question.write_text(json.dumps({"folders": asked, "words": texts, "beams": BEAMS, "longest": LONGEST}))
    script = ROOT / "tests" / "serving" / "with_optimum.py"
    subprocess.run([OPTIMUM, "-W", "ignore", script, question, answer], cwd=tmp_path, check=True, capture_output=True)
    assert json.loads(answer.read_text()) == wanted
