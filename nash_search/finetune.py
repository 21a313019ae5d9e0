"""Stage 0: a task and a recipe in, a teacher's Hugging Face folder out.

The model starts from scratch in the shape the search space's `teacher:` gives, or from a folder
or hub id. Training state is saved between steps, so a killed run continues where it was:

    lr(k) = lr · min(1, (k+1)/warm-up) · (K − k)/(K − warm-up)      linear warm-up, linear decay

This module refuses to know pruning, latency and search; it borrows the pruner's training loop.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nash_search.config import SearchConfig, TeacherRecipe, digest
from nash_search.errors import InvalidInput
from nash_search.records import CurvePoint, Quality
from nash_search.tasks.loading import load_scratch_task, load_task
from nash_search.tasks.quality import score
from nash_search.tasks.task import Task

Report = Callable[[int, int, float, Quality | None], None]
"""Called with (step, steps, loss, quality at the end of an epoch or None)."""


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
    from nash_search import pruner
    from nash_search.tasks import models

    found = models.find_model(start, config.revision)
    task = load_task(config.task, models.load_tokenizer(found), models.generation_settings(found))
    return task, pruner.load(found.folder), recipe.model_copy(update={"init": start})


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
    fields.setdefault("decoder_start_token_id", tokenizer.pad_token_id)
    for name in ("bos_token_id", "forced_eos_token_id"):  # BART-family defaults name ids of another vocabulary
        fields.setdefault(name, None)
    try:
        config = AutoConfig.for_model(model_type, **fields)
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"teacher.model must be a transformers config, but got {model_type}: {error}") from error
    _set_dropout(config, recipe.dropout)
    torch.manual_seed(recipe.seed)
    return AutoModelForSeq2SeqLM.from_config(config)


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

    Args:
        task: data, tokenizer and metric; the sealed test is not opened.
        recipe: epochs, rates, shape; the same recipe and seed give the same folder on CPU.
        output: the folder to write; training state lies in `output/.training` until the end.
        model: what to start from when `recipe.init` is not `scratch`.
        device: where to train.
        report: told each hundredth step, and each epoch with the validation quality.
        step_guard: entered around every optimizer step.
        save_every_s: seconds between saves of the training state.
    """
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    if recipe.init == "scratch":
        model = scratch_model(recipe, task.tokenizer)
    else:
        _set_dropout(model.config, recipe.dropout)
    model.to(device).train()
    model.generation_config.update(**task.generation)
    batches = task.train_batches(recipe.batch_size, recipe.seed)
    steps = max(1, round(recipe.epochs * batches.steps_per_epoch))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    state = _State(output / ".training", digest([recipe.model_dump(), task.train.fingerprint]))
    done, curve, spent_s = state.load(model, optimizer)
    torch.manual_seed(recipe.seed + done)
    started = saved = time.monotonic()
    for step in range(done, steps):
        batch = {name: tensor.to(device) for name, tensor in batches(step).items()}
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, steps, recipe.warmup_steps)
        with step_guard():
            loss = _loss(model, batch, recipe.label_smoothing)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.grad_clip)
            optimizer.step()
            optimizer.zero_grad()
        now = time.monotonic()
        if (step + 1) % batches.steps_per_epoch == 0 or step + 1 == steps:
            quality = score(model, task, "validation", limit=2000)
            curve = (*curve, CurvePoint(step=step + 1, value=quality.value, train_s=spent_s + now - started))
            if report is not None:
                report(step + 1, steps, float(loss), quality)
        elif report is not None and (step + 1) % 100 == 0:
            report(step + 1, steps, float(loss), None)
        if now - saved > save_every_s:
            saved = now
            state.save(model, optimizer, step + 1, curve, spent_s + now - started)
    train_s = spent_s + time.monotonic() - started
    _set_dropout(model.config, 0.0)  # what deploys has none, and distillation must see the same teacher each time
    model.eval().cpu()
    model.save_pretrained(output)
    task.tokenizer.save_pretrained(output)
    state.delete()
    quality = score(model, task, "validation")
    return Finetuned(folder=output, quality=quality, curve=curve, steps=steps, train_s=train_s)


def _schedule(step: int, steps: int, warmup: int) -> float:
    warmup = min(warmup, steps - 1)
    if step < warmup:
        return (step + 1) / warmup
    return (steps - step) / (steps - warmup)


def _loss(model: Any, batch: dict[str, torch.Tensor], smoothing: float) -> torch.Tensor:
    """Mean cross-entropy over real target tokens."""
    output = model(**batch)
    if not smoothing:
        return output.loss
    return torch.nn.functional.cross_entropy(
        output.logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100, label_smoothing=smoothing
    )


class _State:
    """Weights and optimizer moments in one safetensors file, the rest in JSON; replaced atomically."""

    def __init__(self, folder: Path, question: str) -> None:
        self.folder = folder
        self.question = question
        self.file = folder / "state.safetensors"

    def load(self, model: Any, optimizer: Any) -> tuple[int, tuple[CurvePoint, ...], float]:
        """(steps done, curve, seconds spent); zeros where nothing was saved for this question."""
        from safetensors import safe_open

        if not self.file.exists():
            return 0, (), 0.0
        with safe_open(self.file, "pt") as stored:
            about = json.loads((stored.metadata() or {})["about"])
            if about["question"] != self.question:
                return 0, (), 0.0
            for name, parameter in model.named_parameters():
                parameter.data.copy_(stored.get_tensor(f"weight/{name}"))
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(about["step"])),
                    "exp_avg": stored.get_tensor(f"m/{name}").to(parameter.device),
                    "exp_avg_sq": stored.get_tensor(f"v/{name}").to(parameter.device),
                }
        return about["step"], tuple(CurvePoint(**point) for point in about["curve"]), about["train_s"]

    def save(self, model: Any, optimizer: Any, step: int, curve: Sequence[CurvePoint], train_s: float) -> None:
        """Write beside, then rename: a kill leaves the old state or the new one."""
        from safetensors.torch import save_file

        tensors = {}
        for name, parameter in model.named_parameters():
            moments = optimizer.state[parameter]
            tensors[f"weight/{name}"] = parameter.data.contiguous()
            tensors[f"m/{name}"] = moments["exp_avg"].contiguous()
            tensors[f"v/{name}"] = moments["exp_avg_sq"].contiguous()
        about = {"question": self.question, "step": step, "train_s": train_s}
        about["curve"] = [point.model_dump() for point in curve]
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = self.file.with_suffix(".new")
        save_file(tensors, beside, metadata={"about": json.dumps(about)})
        beside.replace(self.file)

    def delete(self) -> None:
        """Training is over: the folder holds only what deploys."""
        self.file.unlink(missing_ok=True)
        if self.folder.exists():
            self.folder.rmdir()
