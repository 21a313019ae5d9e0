"""The user's model folder: what passes, and which line each broken one gets, before torch is needed."""

from __future__ import annotations

import json

import pytest

from nash_search.config import TaskConfig
from nash_search.errors import InvalidInput
from nash_search.tasks import models
from nash_search.tasks.load import load_task


def test_whisper_is_refused_for_what_it_hears(tmp_path):
    for model_type in ("whisper", "nash_whisper"):
        config = {"model_type": model_type, "is_encoder_decoder": True}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(InvalidInput, match="but got .*whisper.*, whose input is not text"):
            models.vet(tmp_path)


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
    "unsupported": (config_with(model_type="led"), "but got 'led'"),
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


class Parrot:
    """A "model" that answers each row with the tokens it is told to."""

    def __init__(self, answer):
        import torch

        self._answer = answer
        self._weight = torch.nn.Parameter(torch.zeros(1))
        self.training = False

    def parameters(self):
        yield self._weight

    def eval(self):
        return self

    def train(self, mode=True):
        return self

    def generate(self, input_ids, attention_mask, **settings):
        import torch

        rows = [self._answer(ids[mask.bool()].tolist()) for ids, mask in zip(input_ids, attention_mask, strict=True)]
        longest = max(map(len, rows))
        return torch.tensor([row + [0] * (longest - len(row)) for row in rows])


def test_a_model_that_knows_the_data_passes_and_others_are_told_what_to_run(folder, tokenizer):
    from nash_search.tasks.dense_check import check_finetuned

    task = load_task(TaskConfig(name="mine", data=str(folder), metric="rouge2"), tokenizer)

    def reversed_words(ids):
        text = " ".join(reversed(tokenizer.decode(ids, skip_special_tokens=True).split()))
        return tokenizer(text)["input_ids"]

    assert check_finetuned(Parrot(reversed_words), task, fix="run finetune").value == pytest.approx(100)
    with pytest.raises(InvalidInput, match="run finetune"):
        check_finetuned(Parrot(lambda ids: tokenizer("there now then")["input_ids"]), task, fix="run finetune")
    with pytest.raises(InvalidInput, match="characters"):
        check_finetuned(Parrot(lambda ids: [1]), task, fix="run finetune")


def test_scoring_sorts_batches_guards_and_keeps_the_mode(folder, tokenizer):
    from contextlib import contextmanager

    from nash_search.tasks.scoring import predict, score

    task = load_task(TaskConfig(name="mine", data=str(folder), metric="exact_match"), tokenizer)
    entered = []

    @contextmanager
    def guard():
        entered.append(True)
        yield

    echo = Parrot(lambda ids: ids)
    quality = score(echo, task, batch_size=7, guard=guard)
    assert len(entered) == 3 and quality.n == 20 and quality.split == "validation"
    palindromes = sum(s == r[0] for s, r in zip(task.validation.sources, task.validation.references, strict=True))
    assert quality.value == pytest.approx(100 * palindromes / 20)
    assert predict(echo, task, ["red cat", "small"]) == ["red cat", "small"]
    assert task.sealed.opened == 0
    assert score(echo, task, "test", limit=5).n == 5 and task.sealed.opened == 1
    assert "exact_match" in quality.signature and "num_beams=1" in quality.signature


def test_a_tokenizer_from_scratch_gives_every_text_back_after_a_reload(tmp_path):
    from transformers import AutoTokenizer

    from nash_search.tasks.scratch_tokenizer import train_tokenizer

    texts = ["A man, in an orange hat!", "Ein Mann läuft über 20 Straßen.", "two  spaces"] * 5
    first = train_tokenizer({"kind": "bpe", "vocabulary": 120}, texts)
    assert first.backend_tokenizer.to_str() == train_tokenizer({"vocabulary": 120}, texts).backend_tokenizer.to_str()
    first.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    ids = loaded(texts[:2])["input_ids"]
    assert loaded.batch_decode(ids, skip_special_tokens=True) == texts[:2]
    assert (loaded.pad_token_id, loaded.eos_token_id, loaded.unk_token_id) == (0, 1, 2)
    assert ids[0][-1] == 1


def test_a_search_space_is_written_for_a_model_and_loads(model_folder, tmp_path):
    from nash_search.config_loader import load_config
    from nash_search.tasks.starter import search_space_text

    file = tmp_path / "mine.yaml"
    file.write_text(search_space_text(str(model_folder)))
    config = load_config(file)
    assert config.model == str(model_folder) and config.search_space.decoder_layers == (1, 2)
    assert config.recipe.learning_rate == (1e-4 if model_folder.name == "t5" else 1e-5)


def test_preflight_refuses_what_the_machine_or_the_model_cannot_do(model_folder, folder):
    from nash_search.config_loader import load_config
    from nash_search.tasks.preflight import check

    own = {"task.name": "mine", "task.data": str(folder), "model": str(model_folder)}
    own["search_space.decoder_layers"] = [1, 2]
    check(load_config(None, own))
    cases = {
        "threads must be at most": {"workload.threads": 1000},
        "decoder_layers must be between 1 and 2": {"search_space.decoder_layers": [5]},
        "must exist": {"task.data": "./none.jsonl"},
    }
    if model_folder.name != "t5":
        cases["output_tokens must be at most 64"] = {"workload.output_tokens": 65}
    for expected, change in cases.items():
        with pytest.raises(InvalidInput, match=expected):
            check(load_config(None, own | change))
    with pytest.raises(InvalidInput, match="needs your own model"):
        check(load_config(None, {"task.name": "mine", "task.data": str(folder)}))
    with pytest.raises(InvalidInput, match="come with data"):
        check(load_config(None, {"task.name": "mine"}))


@pytest.mark.parametrize("recipe", [{"kind": "unigram"}, {"vocabulary": 3}, {"vocabulary": True}, {"size": 3}])
def test_a_tokenizer_recipe_that_breaks_a_rule_is_refused(recipe):
    from nash_search.tasks.scratch_tokenizer import train_tokenizer

    with pytest.raises(InvalidInput, match=r"teacher\.tokenizer"):
        train_tokenizer(recipe, ["text"])


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
    assert max(map(len, task.train.input_ids)) == task.max_input_tokens == limit
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
