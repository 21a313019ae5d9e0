"""Stage 0: a teacher is made, a killed run continues to the same bits, and the folder deploys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nash_search.config import TaskConfig, TeacherRecipe
from nash_search.errors import InvalidInput
from nash_search.finetune import finetune, scratch_model
from nash_search.tasks import load_task
from nash_search.tasks.task import Task

TINY = {
    "model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": 2, "num_decoder_layers": 2
}  # fmt: skip


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task(TaskConfig(train_examples=96, validation_examples=16))


def recipe(**changed: Any) -> TeacherRecipe:
    return TeacherRecipe(**{"model": TINY, "epochs": 2, "batch_size": 16, "warmup_steps": 2, "dropout": 0.1, **changed})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_a_teacher_is_a_plain_folder(task: Task, tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    told: list[tuple[int, bool]] = []
    done = finetune(
        task, recipe(), tmp_path, report=lambda step, steps, loss, quality: told.append((step, bool(quality)))
    )
    assert done.steps == 12 and [p.step for p in done.curve] == [6, 12]
    assert (6, True) in told and (12, True) in told
    assert not (tmp_path / ".training").exists()
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert model.config.dropout_rate == 0.0
    assert model.generation_config.max_new_tokens == task.max_output_tokens
    assert AutoTokenizer.from_pretrained(tmp_path)("pruning").input_ids == task.encode(["pruning"])[0]
    assert task.sealed.opened == 0


def test_a_killed_run_continues_to_the_same_bits(task: Task, tmp_path: Path) -> None:
    finetune(task, recipe(), tmp_path / "whole")

    class Killed(Exception):
        pass

    steps = iter(range(100))

    class Guard:
        def __enter__(self) -> None:
            if next(steps) == 7:
                raise Killed

        def __exit__(self, *_: object) -> None: ...

    with pytest.raises(Killed):
        finetune(task, recipe(), tmp_path / "killed", step_guard=Guard, save_every_s=0)
    again = finetune(task, recipe(), tmp_path / "killed")
    assert again.steps == 12 and [p.step for p in again.curve] == [6, 12]
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


@pytest.mark.parametrize("family", ["bart", "marian", "mbart", "pegasus"])
def test_other_families_start_from_scratch(task: Task, family: str) -> None:
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    model = scratch_model(recipe(model={"model_type": family, **sizes, **heads}), task.tokenizer)
    made = model.generate(input_ids=torch.tensor([[3, 4, 1]]), max_new_tokens=4, min_new_tokens=4)
    assert made.shape == (1, 5)


@pytest.mark.parametrize(("fields", "words"), [({}, "must name a model_type"), ({"model_type": "nope"}, "nope")])
def test_a_shape_without_a_family_is_refused(task: Task, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        scratch_model(recipe(model=fields), task.tokenizer)
