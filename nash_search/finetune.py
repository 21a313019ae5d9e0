"""Stage 0: a task and a recipe in, a teacher's Hugging Face folder out.

The model starts from scratch in the shape the search space's `teacher:` gives, or from a folder
or hub id. A killed run continues where it was; at the end of each epoch the model is scored on
validation, the sealed test stays sealed.

The training loop is the pruner's.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nash_search import pruner
from nash_search.config import SearchConfig, TeacherRecipe, digest
from nash_search.errors import InvalidInput, message_of, shown_path
from nash_search.families import find_family
from nash_search.pruner.distillation import cross_entropy, forward
from nash_search.pruner.state_file import StateFile
from nash_search.pruner.training import Group, Optimization, Watch, linear_decay, train
from nash_search.recipes import on_gpu
from nash_search.records import CurvePoint, Quality
from nash_search.tasks import exported, models
from nash_search.tasks.load import load_scratch_task, task_of_model
from nash_search.tasks.scoring import score
from nash_search.tasks.task import Task

EPOCH_EXAMPLES = 2000
"""Validation examples scored at the end of an epoch; all of them at the end of the last."""
Report = Callable[[int, int, float, Quality | None], None]
"""Called with (steps done, steps, loss, quality at the end of an epoch or None); loss is NaN before the first step."""


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """The teacher's folder and what was seen while it was made."""

    folder: Path
    quality: Quality
    """On the validation split."""
    curve: tuple[CurvePoint, ...]
    steps: int
    train_s: float


def starting_point(config: SearchConfig) -> tuple[Task, Any, TeacherRecipe]:
    """The task, the model to start from (None: from scratch) and the recipe that a configuration asks for."""
    recipe = config.teacher or TeacherRecipe()
    start = config.model or (None if recipe.init == "scratch" else recipe.init)
    if start is None:
        return load_scratch_task(config.task, recipe), None, recipe
    found = models.find_model(start, config.revision)
    task = task_of_model(found, config.task)
    model = pruner.load(found.folder).float()
    if task.speech is not None:
        model = pruner.cut_window(model, task.speech.settings.positions)
    exported.complete(model, task.tokenizer)
    task = replace(task, notes=(*task.notes, *exported.generation_notes(found, task)))
    return task, model, recipe.model_copy(update={"init": start})


def scratch_model(recipe: TeacherRecipe, tokenizer: Any) -> Any:
    """A freshly initialised model in the recipe's shape; token ids come from the tokenizer.

    Raises:
        InvalidInput: `teacher.model` names no model type or a field its config refuses.
    """
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    fields = dict(recipe.model)
    model_type = fields.pop("model_type", None)
    if model_type is None:
        raise InvalidInput("teacher.model must name a model_type, but got none")
    fields = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **fields}
    fields["eos_token_id"] = tokenizer.eos_token_id
    family = find_family(str(model_type))
    last_label = family is not None and family.outputs_begin_with == "last_label"
    start = tokenizer.eos_token_id if last_label else tokenizer.pad_token_id
    fields.setdefault("decoder_start_token_id", start)
    for name in ("bos_token_id", "forced_eos_token_id"):  # BART-family defaults name ids of another vocabulary
        fields.setdefault(name, None)
    if family is not None and family.positions_are_sinusoidal:
        fields.setdefault("scale_embedding", True)
    try:
        config = AutoConfig.for_model(model_type, **fields)
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"teacher.model must be a transformers config, but got {model_type}: {error}") from error
    if type(config).sub_configs:  # T5Gemma: the vocabulary and its tokens stand in configs of its sides
        rule = "teacher.model must be of a family whose sizes stand in one config"
        fix = "make a folder of it with transformers and your tokenizer, and give that with --model"
        raise InvalidInput(f"{rule}, but got {model_type}", fix=fix)
    _set_dropout(config, recipe.dropout)
    torch.manual_seed(recipe.seed)
    return AutoModelForSeq2SeqLM.from_config(config)


def _set_dropout_modules(model: Any, rate: float) -> None:
    """A loaded model's layers were built with another rate: the BART family keeps it as a number, T5 in modules.

    The BART family drops attention weights at a rate of their own, `attention_dropout`, which stays.
    """
    in_attention = getattr(model.config, "attention_dropout", rate)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = rate
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = in_attention if type(module).__name__.endswith("Attention") else rate


def _set_dropout(config: Any, rate: float) -> None:
    """T5 says `dropout_rate`, the BART family `dropout`."""
    for name in ("dropout_rate", "dropout"):
        if hasattr(config, name):
            setattr(config, name, rate)


def finetune(
    task: Task,
    recipe: TeacherRecipe,
    output: Path,
    *,
    model: Any = None,
    device: str = "cpu",
    report: Report | None = None,
    step_guard: Callable[[], AbstractContextManager[Any]] = nullcontext,
    save_every_s: float = 60.0,
) -> Finetuned:
    """Train (or go on training) a teacher and leave its folder at `output`.

    Raises:
        InvalidInput: `output` holds the training state of another run.

    Args:
        task: data, tokenizer and metric; the sealed test is not opened.
        recipe: epochs, rates, shape; the same recipe and seed give the same folder on CPU.
        output: the folder to write; training state lies in `output/.training` until the end.
        model: what to start from; changed in place (None: from scratch).
        device: where to train.
        report: told where training begins, the loss every tenth step, and the validation quality after each epoch.
        step_guard: entered around every optimizer step.
        save_every_s: seconds between saves of the training state.
    """
    recipe = on_gpu(recipe) if device.startswith("cuda") else recipe
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    student = scratch_model(recipe, task.tokenizer) if model is None else model
    _set_dropout(student.config, recipe.dropout)
    _set_dropout_modules(student, recipe.dropout)
    student.to(device)
    exported.carry(student, task)
    pruner.check_export(student, output.absolute(), tokenizer=task.tokenizer, extractor=task.extractor)
    batches = task.train_batches(recipe.batch_size, recipe.seed)
    steps = max(1, round(recipe.epochs * batches.steps_per_epoch))
    rungs = sorted({*range(batches.steps_per_epoch, steps, batches.steps_per_epoch), steps})
    window = [task.input_tokens] if task.speech is not None else []
    question = digest([recipe.model_dump(exclude={"threads"}), task.train.fingerprint, *window])
    state = StateFile(path=output / ".training" / "state.safetensors", question=question, every_s=save_every_s)
    before = _begun(state)
    state.details = dict(before["details"]) if before is not None else {"curve": []}
    began = time.monotonic() - (before["seconds"] if before is not None else 0.0)
    if report is not None:
        report(before["step"] if before is not None else 0, steps, math.nan, None)
    seen: list[float] = [math.nan]
    final: list[Quality] = []

    def on_step(step: int, total: int, loss: float) -> None:
        seen[0] = loss
        if report is not None:
            report(step, total, loss, None)

    def on_rung(step: int) -> None:
        quality = score(student, task, limit=None if step == steps else EPOCH_EXAMPLES, guard=step_guard)
        if step == steps:
            final.append(quality)
        state.details["curve"].append({"step": step, "value": quality.value, "train_s": time.monotonic() - began})
        if report is not None:
            report(step, steps, seen[0], quality)

    group = Group(params=list(student.parameters()), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    done = train(
        student,
        loss=lambda batch, step: cross_entropy(forward(student, batch), batch["labels"], recipe.label_smoothing),
        batches=batches,
        steps=steps,
        optimization=Optimization(
            groups=[group],
            schedule=linear_decay(steps, min(recipe.warmup_steps, steps - 1)),
            clip=recipe.grad_clip,
            precision=recipe.precision,
        ),
        seed=recipe.seed,
        watch=Watch(step_guard=step_guard, on_step=on_step, rungs=rungs, on_rung=on_rung),
        state=state,
    )
    _set_dropout(student.config, 0.0)  # distillation must see the same teacher each time
    student.cpu().save_pretrained(output)
    pruner.save_tokenizer(task.tokenizer, output)
    if task.extractor is not None:
        task.extractor.save_pretrained(output)
    shutil.rmtree(state.path.parent)
    return Finetuned(
        folder=output,
        quality=final[0] if final else score(student, task),  # none: killed after the last epoch
        curve=tuple(CurvePoint(**point) for point in state.details["curve"]),
        steps=done.steps,
        train_s=done.seconds,
    )


def _begun(state: StateFile) -> dict[str, Any] | None:
    """What an earlier run of the same question left to go on from; another's is never overwritten."""
    try:
        found = state.header()
    except Exception as error:
        reason = message_of(error)
        raise InvalidInput(f"training state must be whole, but got {reason}", where=shown_path(state.path)) from None
    if found is None and state.path.exists():
        where = shown_path(state.path.parent.parent)
        fix = "ask as before to go on, or give another --output"
        raise InvalidInput("output must be new, but got a run of another recipe, data or model", where=where, fix=fix)
    return found
