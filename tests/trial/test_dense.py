"""What the search asks for is what the dense model's family can give, or it is refused before anything is spent."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration

from nash_search.config import SearchConfig
from nash_search.config_loader import load_config
from nash_search.errors import InvalidInput
from nash_search.generation import ResolvedSettings
from nash_search.records import Quality
from nash_search.tasks import models, scoring
from nash_search.tasks.g2p import teacher_folder
from nash_search.trial.dense import Dense
from nash_search.trial.evaluator import open_evaluator
from nash_search.trial.nash_evaluator import NashEvaluator

FOUND = {"metric": "m", "value": 1.0, "standard_error": 0.1, "n": 4, "split": "validation", "signature": "m"}


@pytest.mark.parametrize(
    ("family", "changes", "refusal"),
    [
        ("mbart", {"recipe": {"labels": "teacher"}}, "labels teacher must have .*, but got mbart"),
        ("bart", {"recipe": {"labels": "teacher"}}, None),
        (
            "t5",
            {"format": "stock", "recipe": {"widths": "uniform"}},
            "format stock must .*, but got narrow encoders of t5",
        ),
        ("bart", {"format": "stock", "recipe": {"widths": "uniform"}}, None),
    ],
)
def test_what_a_family_cannot_give_is_refused(monkeypatch, family, changes, refusal):
    found = models.ModelFolder(
        folder=Path("m"), model_type=family, ours=False, encoder_layers=2, decoder_layers=2, config={},
        generation=ResolvedSettings(settings={}),
    )  # fmt: skip
    monkeypatch.setattr(models, "find_model", lambda name, revision: found)
    dense = Dense(SearchConfig.model_validate({"model": "m", **changes}))
    if refusal is None:
        assert dense.found is found
    else:
        with pytest.raises(InvalidInput, match=refusal):
            dense.found  # noqa: B018


@pytest.mark.parametrize("file", ["generation_config.json", "tokenizer.json", "normalizer.json"])
def test_how_a_model_reads_and_writes_is_part_of_its_identity(tmp_path, file):
    model = shutil.copytree(teacher_folder(), tmp_path / "model")
    before = Dense(load_config(None, {"model": str(model)})).digests
    (model / "README.md").write_text("of no weight")
    assert Dense(load_config(None, {"model": str(model)})).digests == before
    (model / file).write_text((model / file).read_text() + " " if (model / file).exists() else "{}")
    after = Dense(load_config(None, {"model": str(model)})).digests
    assert after["model"] == before["model"] and after["model_files"] != before["model_files"]


def bench_of(**workload):
    return open_evaluator(load_config("smoke", {f"workload.{name}": value for name, value in workload.items()}))


@pytest.mark.slow
def test_the_beams_that_are_timed_are_those_that_are_scored_and_exported(tmp_path):
    assert bench_of().task.generation["num_beams"] == bench_of().workload().beams == 1
    several = bench_of(beams=3)
    assert several.task.generation["num_beams"] == several.workload().beams == 3
    assert several.teacher.generation_config.num_beams == 3
    given = tmp_path / "teacher"
    shutil.copytree(teacher_folder(), given)
    settings = {"num_beams": 4, "early_stopping": True, "length_penalty": 2.0}
    stored = given / "generation_config.json"
    stored.write_text(json.dumps({**json.loads(stored.read_text()), **settings}))
    config = load_config("smoke", {"model": str(given), "workload.beams": 1})
    one, own = NashEvaluator(config), NashEvaluator(load_config("smoke", {"model": str(given)}))
    assert own.task.generation["num_beams"] == own.workload().beams == 4
    assert one.task.generation["num_beams"] == one.workload().beams == 1
    one._save(one.teacher, tmp_path)
    kept = json.loads((tmp_path / "weights" / "generation_config.json").read_text())
    assert kept["num_beams"] == 1 and kept.get("early_stopping") in (None, False)


@pytest.mark.slow
def test_what_is_scored_has_the_precision_that_is_timed(monkeypatch):
    seen = []
    generate = scoring.generate

    def seeing(model, task, rows, **given):
        seen.append((next(model.parameters()).dtype, next(model.parameters()).device.type))
        return generate(model, task, rows[:4], **given)

    monkeypatch.setattr(scoring, "generate", seeing)
    monkeypatch.setattr(scoring, "quality_of", lambda outputs, examples, task, split: Quality(**FOUND))
    half = bench_of(dtype="bfloat16")
    assert half.dense_quality().signature == "m|served:bfloat16"
    served, float32 = (torch.bfloat16, "cpu"), (torch.float32, "cpu")
    assert seen == [served, float32, served], "compared with its float32 twin, then scored as it is served"
    half.test_quality({"dense": half.dense_folder()})
    assert bench_of().dense_quality().signature == "m"
    assert seen[3:] == [served, float32], "float32 has no twin to be compared with"
    assert next(half.teacher.parameters()).dtype == torch.float32


def test_a_sparsity_that_the_encoder_cannot_reach_is_refused_before_it_is_timed():
    sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 40}
    bart = BartForConditionalGeneration(BartConfig(**sizes, **heads))  # uniform widths keep its heads: a third stays
    for high, widths, refused in ((60, "uniform", False), (70, "uniform", True), (70, "free", False)):
        changes = {"search_space.encoder_sparsity_pct": [0, high, 10], "recipe.widths": widths}
        dense = Dense(load_config("smoke", changes))
        rule = r"encoder_sparsity_pct must be at most 66 \(this encoder with widths uniform\), but got 70"
        with pytest.raises(InvalidInput, match=rule) if refused else nullcontext():
            dense._check_sparsity(bart)


@pytest.mark.parametrize(
    ("family", "changes", "named"),
    [
        ("bart", {"format": "stock"}, True),
        ("bart", {}, False),
        ("bart", {"format": "stock", "search_space": {"encoder_sparsity_pct": [0, 0, 10]}}, False),
        ("mbart", {"format": "stock"}, False),
    ],
)
def test_a_search_for_stock_exports_names_the_server_that_will_misread_them(family, changes, named):
    config = SearchConfig.model_validate({"recipe": {"widths": "uniform", "precision": "fp32"}, **changes})
    parts = {
        "task": SimpleNamespace(notes=("a note",)),
        "dense": SimpleNamespace(found=SimpleNamespace(model_type=family)),
    }
    first, *more = NashEvaluator.notes(SimpleNamespace(config=config, **parts))
    assert first == "a note" and [line[:18] for line in more] == ["vLLM's bart-plugin"] * named
