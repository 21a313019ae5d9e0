"""A search on a serving engine: what is certified is what the engine alone loads and writes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ctranslate2")

ALONE = """
import json, sys
import ctranslate2
folder, rows = sys.argv[1], json.loads(sys.argv[2])
engine = ctranslate2.Translator(f"{folder}/ctranslate2", intra_threads=1)
words = json.load(open(f"{folder}/ctranslate2/shared_vocabulary.json"))
rows = [[words[token] for token in row] for row in rows]
found = engine.translate_batch(rows, beam_size=1, min_decoding_length=0, max_decoding_length=32)
assert not {"torch", "nash_search", "transformers"} & set(sys.modules)
print(json.dumps([[words.index(word) for word in r.hypotheses[0]] for r in found]))
"""


@pytest.mark.slow
def test_a_search_ends_in_an_export_that_the_engine_alone_translates_with(tmp_path):
    quantize = "int8"  # float32's tokens are eager's, which cheaper tests hold
    asked = ["--config", "smoke", "--runtime", "ctranslate2", "--quantize", quantize, "--budget-ms", "90%"]
    asked += ["--finish-steps", "0"]  # one point is looked at
    run = [sys.executable, "-m", "nash_search", *asked, "--trials", "1", "--serial", "--study", "s", "--json"]
    done = subprocess.run(
        [*run, "--results", str(tmp_path)], capture_output=True, text=True, timeout=1500, cwd=tmp_path
    )
    assert done.returncode in (0, 3), done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert document["workload"]["runtime"] == "ctranslate2"
    [point] = document["front"]
    export = Path(point["checkpoint"])
    assert point["same_tokens"]
    certification = json.loads((tmp_path / "s" / "certification.json").read_text())
    [certified] = certification["points"]
    assert certified["latency"]["fresh"] and certified["latency"]["fingerprint"]["compute_type"] == "int8_float32"
    assert certified["latency"]["details"]["compared"]["inputs"] == 64
    assert f"served:ctranslate2 float32 quantize={quantize}" in certified["validation"]["signature"]
    assert "quantize" not in certification["dense_test"]["signature"], "kept is of the float dense model"
    assert certified["fidelity"]["served"]["n"] >= 200 and point["fidelity"]["examples"] >= 200
    record = json.loads((export / "ctranslate2" / "artefact.json").read_text())
    assert record["quantize"] == quantize and record["version"]

    kept = next((tmp_path / "s" / "trials").glob(f"{certified['key']}/engine-tokens.json"))
    wrote = json.loads(kept.read_text())
    config = json.loads((export / "config.json").read_text())
    from nash_search.config_loader import load_config
    from nash_search.trial.dense import Dense

    rows = Dense(load_config("smoke", {})).task.validation.first(64).inputs
    ids = json.dumps(list(rows))
    alone = subprocess.run([sys.executable, "-c", ALONE, str(export), ids], capture_output=True, text=True, check=True)
    found = json.loads(alone.stdout)
    end = config["eos_token_id"]
    assert [row[1:][: row[1:].index(end)] if end in row[1:] else row[1:] for row in wrote] == found

    card = (export / "README.md").read_text()
    lines = card.split("## Serve it with")[1].split("```")[1].splitlines()[1:]
    lines[0] = f"folder = {str(export)!r}"
    said = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert said.stdout.strip()


@pytest.mark.slow
def test_a_search_on_onnx_runtime_certifies_its_artefact(tmp_path):
    pytest.importorskip("onnxruntime")
    asked = ["--config", "smoke", "--runtime", "onnxruntime", "--budget-ms", "90%", "--trials", "1", "--serial"]
    asked += ["--finish-steps", "0"]  # one point is looked at
    run = [sys.executable, "-m", "nash_search", *asked, "--study", "s", "--json", "--results", str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=1500, cwd=tmp_path)
    assert done.returncode in (0, 3), done.stderr
    [point] = json.loads(done.stdout.splitlines()[-1])["front"]
    assert point["same_tokens"]
    certification = json.loads((tmp_path / "s" / "certification.json").read_text())
    [certified] = certification["points"]
    assert certified["latency"]["fresh"] and certified["latency"]["fingerprint"]["runtime"] == "onnxruntime"
    assert "served:onnxruntime float32" in certified["validation"]["signature"]
    export = Path(point["checkpoint"])
    assert json.loads((export / "onnxruntime" / "artefact.json").read_text())["runtime"] == "onnxruntime"
    assert "onnxruntime" in (export / "README.md").read_text()
