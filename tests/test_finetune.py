"""Stage 0: a teacher is made, a killed run continues to the same bits, and the folder deploys."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from nash_search.config import TaskConfig, TeacherRecipe
from nash_search.errors import InvalidInput
from nash_search.finetune import finetune, scratch_model
from nash_search.tasks import load_task
from nash_search.tasks.scratch_tokenizer import train_tokenizer
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


def bart_like(family: str, **fields: Any) -> dict[str, Any]:
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    return {
        "model_type": family, **sizes, "encoder_attention_heads": 2, "decoder_attention_heads": 2, **fields
    }  # fmt: skip


@pytest.mark.parametrize("family", ["bart", "marian", "mbart", "pegasus", "m2m_100"])
def test_other_families_start_from_scratch_and_decode_from_the_token_they_are_trained_with(
    task: Task, family: str
) -> None:
    from nash_search.pruner.distillation import forward

    model = scratch_model(recipe(model=bart_like(family)), task.tokenizer).eval()
    made = model.generate(input_ids=torch.tensor([[3, 4, 1]]), max_new_tokens=4, min_new_tokens=4)
    assert made.shape == (1, 5)
    seen: list[int] = []
    hook = model.get_decoder().register_forward_pre_hook(
        lambda _, args, words: seen.append(int((words["input_ids"] if "input_ids" in words else args[0])[0, 0])),
        with_kwargs=True,
    )
    forward(model, {name: tensor[:1] for name, tensor in task.train_batches(4, 0)(0).items()})
    hook.remove()
    assert seen == [int(made[0, 0])]


def test_dropout_reaches_the_layers_and_leaves_attention_weights_their_own_rate(task: Task, tmp_path: Path) -> None:
    model = scratch_model(recipe(model=bart_like("bart", attention_dropout=0.03), dropout=0.0), task.tokenizer)
    finetune(task, recipe(dropout=0.2, epochs=0.1), tmp_path, model=model)
    layer = model.get_encoder().layers[0]
    assert layer.dropout == 0.2 and layer.self_attn.dropout == 0.03


def test_the_last_epoch_is_scored_once_and_whole(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nash_search.finetune as module

    limits: list[int | None] = []
    whole = module.score
    monkeypatch.setattr(module, "EPOCH_EXAMPLES", 4)
    monkeypatch.setattr(
        module,
        "score",
        lambda *given, limit=None, **words: (limits.append(limit), whole(*given, limit=limit, **words))[1],
    )
    assert finetune(task, recipe(), tmp_path).quality.n == len(task.validation) == 16
    assert limits == [4, None]


@pytest.mark.parametrize(("fields", "words"), [({}, "must name a model_type"), ({"model_type": "nope"}, "nope")])
def test_a_shape_without_a_family_is_refused(task: Task, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        scratch_model(recipe(model=fields), task.tokenizer)


def test_what_is_said_while_a_teacher_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    from types import SimpleNamespace

    from nash_search.cli.finetune import EpochLines

    now = [0.0]
    told = EpochLines(every_s=10, clock=lambda: now[0])
    told(200, 1000, float("nan"), None)
    for step, at in ((210, 5.0), (220, 10.0), (230, 15.0)):
        now[0] = at
        told(step, 1000, 2.5, None)
    told(1000, 1000, 2.0, SimpleNamespace(metric="bleu", value=31.25))
    assert capsys.readouterr().err.splitlines() == [
        "training: goes on after step 200 of 1,000",
        "step 220/1,000, loss 2.500, about 6 min 30 s left",
        "step 1,000/1,000, loss 2.000, bleu 31.25",
    ]


def test_another_run_s_state_is_never_overwritten_and_threads_do_not_make_another_run(
    task: Task, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def kill(step: int, steps: int, loss: float, quality: object) -> None:
        if step == 10:
            raise Killed

    with pytest.raises(Killed):
        finetune(task, recipe(epochs=3), tmp_path, report=kill, save_every_s=0)
    with pytest.raises(InvalidInput, match="output must be new"):
        finetune(task, recipe(epochs=4), tmp_path)
    told: list[int] = []
    finetune(task, recipe(epochs=3, threads=1), tmp_path, report=lambda step, *_: told.append(step), save_every_s=0)
    assert told[0] >= 6, "it began anew"
    state = tmp_path / "damaged" / ".training" / "state.safetensors"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"\xff" * 64)
    with pytest.raises(InvalidInput, match="must be whole"):
        finetune(task, recipe(), tmp_path / "damaged")


@pytest.mark.slow
def test_a_checkpoint_in_half_precision_is_trained_in_whole(tmp_path: Path) -> None:
    from nash_search import pruner
    from nash_search.config import SearchConfig
    from nash_search.finetune import starting_point
    from nash_search.tasks.g2p import teacher_folder

    half = tmp_path / "half"
    shutil.copytree(teacher_folder(), half)
    pruner.load(teacher_folder()).to(torch.bfloat16).save_pretrained(half)
    small = TaskConfig(train_examples=96, validation_examples=16)
    _, model, _ = starting_point(SearchConfig(task=small, model=str(half)))
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("model_type", ["t5gemma", "t5gemma2"])
def test_a_family_of_two_configs_is_not_begun_from_scratch_by_a_vocabulary_that_is_not_the_tokenizer_s(model_type):
    tokenizer = train_tokenizer({"kind": "bpe", "vocabulary": 64}, ["red green", "blue dog"])
    with pytest.raises(InvalidInput, match=f"whose sizes stand in one config, but got {model_type}"):
        scratch_model(TeacherRecipe(model={"model_type": model_type}), tokenizer)
