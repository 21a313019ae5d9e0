"""What an export says by itself: how its task feeds it, how it writes, and which tokens pad and end its outputs.

A deployed model has nothing but its folder. What scoring knew besides is written into the model's own configs here,
before the model is cut, so that every export of it carries the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nash_search.errors import InvalidInput, shown
from nash_search.tasks.models import ModelFolder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from nash_search.tasks.task import Task


def generation_notes(model: ModelFolder, task: Task) -> tuple[str, ...]:
    """What of the folder's generation settings and prefix is not as it was stored, sentences to be said aloud."""
    longest = task.max_output_tokens
    stored, changed = model.generation.settings, list(model.generation.changed)
    own = stored.get("max_new_tokens") or (stored.get("max_length") or 1) - 1
    if own not in (0, longest):
        changed.append(f"longest output {own} -> {longest} tokens, the data's")
    for name in too_long(stored, longest):
        changed.append(f"{name} {stored[name]} -> none, beyond the longest output")
    for name in ("pad_token_id", "eos_token_id"):
        if name in model.config and model.config[name] is None and stored.get(name) is None:
            changed.append(f"{name} none -> {getattr(task.tokenizer, name)}, the tokenizer's")
    said = [f"model: generation settings {', '.join(changed)}"] if changed else []
    prefix = model.config.get("prefix") or ""
    if prefix and prefix != task.prefix:
        said.append(
            f"model: its config.json names the prefix {shown(prefix)}, but inputs begin with {shown(task.prefix)}"
        )
    return tuple(said)


def too_long(settings: Mapping[str, Any], longest: int) -> list[str]:
    """Settings that ask for more tokens than an output may have."""
    return [name for name in ("min_length", "min_new_tokens") if (settings.get(name) or 0) > longest]


def carry(model: Any, task: Task) -> None:
    """Write into a model's configs how the task feeds it and lets it write, so that every export says so."""
    settings = model.generation_config
    for name, value in settings.update(**task.generation, max_length=None).items():
        setattr(settings, name, value)  # a language, which only some models have
    settings.update(**dict.fromkeys(too_long(vars(settings), task.max_output_tokens)))
    # pipelines of transformers 4 read both: `prefix` is put before every input, the other replaces settings
    if getattr(model.config, "task_specific_params", None) is not None:
        model.config.task_specific_params = None
    if getattr(model.config, "prefix", None) != (task.prefix or None):
        model.config.prefix = task.prefix or None


def complete(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Fill in the ids of padding and end that a model does not name.

    Raises:
        InvalidInput: the tokenizer has none either.
    """
    for name, role in (("pad_token_id", "padding"), ("eos_token_id", "end")):
        configs = [model.config, model.generation_config]
        known = [value for value in (getattr(config, name, None) for config in configs) if value is not None]
        found = known[0] if known else getattr(tokenizer, name)
        if found is None:
            raise InvalidInput(f"model or tokenizer must name {name} (the token of {role}), but got neither")
        for config in configs:
            if getattr(config, name, None) is None:
                setattr(config, name, found)
