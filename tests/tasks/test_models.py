"""The user's model folder: what passes, and which line each broken one gets, before torch is needed."""

from __future__ import annotations

import json

import pytest

from nash_search.config import TaskConfig
from nash_search.errors import InvalidInput
from nash_search.tasks import models
from nash_search.tasks.load import load_task


def test_a_saved_folder_passes_and_its_settings_are_read(model_folder):
    stored = model_folder / "generation_config.json"
    stored.write_text(json.dumps(json.loads(stored.read_text()) | {"num_beams": 4, "max_length": 99}))
    found = models.find_model(str(model_folder))
    assert (found.decoder_layers, found.ours, found.model_type) == (2, False, model_folder.name)
    assert models.generation_settings(found) == {"num_beams": 4}
    assert len(models.load_tokenizer(found)) <= found.config["vocab_size"]


def test_an_export_of_ours_passes_with_its_auto_map(tmp_path, tokenizer):
    from conftest import tiny_model

    from nash_search import pruner

    narrow = pruner.cut(tiny_model("t5", len(tokenizer)), [[0], [1, 2], [0, 3]], [list(range(8)), list(range(24)), [0]])
    pruner.save(narrow, tmp_path / "ours", tokenizer=tokenizer)
    assert "auto_map" in json.loads((tmp_path / "ours" / "config.json").read_text())
    found = models.find_model(str(tmp_path / "ours"))
    assert found.ours and found.model_type == "t5"


def config_with(**fields):
    def change(folder):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return change


def cut_weights(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def rename_weights(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def lose_shard(folder):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"shared.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def lose_tokenizer(folder):
    for name in models.TOKENIZER_FILES:
        (folder / name).unlink(missing_ok=True)


BROKEN = {
    "no config": (lambda f: (f / "config.json").unlink(), "must hold config.json"),
    "config not json": (lambda f: (f / "config.json").write_text("{"), "must be JSON"),
    "config a list": (lambda f: (f / "config.json").write_text("[]"), "JSON object"),
    "config binary": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\0"), "must be JSON"),
    "no model type": (config_with(model_type=None), "must name a model_type"),
    "decoder only": (config_with(model_type="gpt2", is_encoder_decoder=False), "'gpt2', which is no encoder-decoder"),
    "unsupported": (config_with(model_type="fsmt"), "but got 'fsmt'"),
    "remote code": (config_with(auto_map={"AutoModel": "x.Y"}), "auto_map in config.json"),
    "pickle": (rename_weights, "pytorch_model.bin"),
    "truncated": (cut_weights, "whole safetensors"),
    "lost shard": (lose_shard, "every shard"),
    "shape": (config_with(d_model=32), "shape"),
    "vocabulary": (config_with(vocab_size=7), "shape"),
    "depth": (config_with(num_decoder_layers=5, decoder_layers=5), "decoder blocks"),
    "depth zero": (config_with(num_decoder_layers=0, decoder_layers=0), "at least 1"),
    "no tokenizer": (lose_tokenizer, "tokenizer"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_gets_one_line(model_folder, case):
    change, expected = BROKEN[case]
    change(model_folder)
    with pytest.raises(InvalidInput) as refused:
        models.find_model(str(model_folder))
    assert expected in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["./none", "/none/at/all", "a\0b", "x.safetensors"])
def test_a_missing_folder_gets_one_line(name):
    with pytest.raises(InvalidInput, match="must exist"):
        models.find_model(name)


def test_an_unreachable_hub_id_gets_one_line():
    with pytest.raises(InvalidInput, match="can be reached, but got neither"):
        models.find_model("somebody/some-model")


def test_a_model_s_own_positions_limit_inputs_outputs_and_timing(model_folder, tmp_path):
    """The tokenizer says 512; BART and Marian have 64 positions, in a search, in `finetune`, and for the clock."""
    from nash_search import pruner
    from nash_search.config import TeacherRecipe, Workload
    from nash_search.latency.runtimes.eager import RUNTIME
    from nash_search.tasks.load import load_scratch_task
    from nash_search.tasks.scoring import predict

    words = "red green blue small large cat dog bird runs sleeps eats here there now then".split()
    rows = [{"source": " ".join(words[i % 15 :] * 40), "target": " ".join(words[: 1 + i % 15] * 40)} for i in range(60)]
    rows = [row | {"source": f"{words[i % 15]} {i} " + row["source"]} for i, row in enumerate(rows)]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = TaskConfig(name="mine", data=str(tmp_path / "long.jsonl"), metric="exact_match")
    found = models.vet(model_folder)
    task = load_task(config, models.load_tokenizer(found), models.generation_settings(found))
    limit = 512 if found.model_type == "t5" else 64
    assert max(map(len, task.train.inputs)) == task.max_input_tokens == limit
    assert task.max_output_tokens <= limit and max(map(len, task.train.labels)) <= limit
    model = pruner.load(model_folder)
    model(**task.train_batches(4, 0)(0))
    predict(model, task, task.validation.sources[:2])
    session = RUNTIME.build(model, Workload(input_tokens=8, output_tokens=40), None)
    assert session.natural() <= 4 * 40
    session.close()
    recipe = TeacherRecipe(model={"model_type": found.model_type, "max_position_embeddings": 64})
    assert load_scratch_task(config, recipe).max_input_tokens == limit


def test_a_prefix_that_the_model_names_and_nobody_gives_is_said(model_folder, folder):
    from nash_search.tasks.exported import generation_notes

    config_with(prefix="say: ")(model_folder)
    found = models.vet(model_folder)
    for prefix, said in (("", 1), ("say: ", 0)):
        asked = TaskConfig(name="mine", data=str(folder), metric="exact_match", prefix=prefix)
        task = load_task(asked, models.load_tokenizer(found), models.generation_settings(found))
        notes = [note for note in generation_notes(found, task) if "prefix" in note]
        assert len(notes) == said and all("'say: '" in note for note in notes)
