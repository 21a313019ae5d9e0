"""Make the vocabulary smaller: embedding rows, head rows and the bias of the logits, for the tokens that stay.

    trimmed = trim_vocabulary(model, kept_ids)        token kept_ids[i] becomes token i
    logits(trimmed)[i] = logits(model)[kept_ids[i]]   for the same text: a head has one row per token

Every id that config and generation config name is renumbered; a list that forbids or rewards a token
which is gone loses that entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from nash_search import loading
from nash_search.errors import InvalidInput
from nash_search.families import family_of

NEEDED = (
    "pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "forced_bos_token_id",
    "forced_eos_token_id", "sep_token_id", "unk_token_id", "cls_token_id", "mask_token_id",
)  # fmt: skip
"""Settings with ids (one, or a list of them) that a model cannot do without."""
FORBIDDEN = ("suppress_tokens", "begin_suppress_tokens")
"""Lists of ids that are never written."""
SEQUENCES = ("bad_words_ids", "force_words_ids")
"""Lists of sequences of ids."""


def named_ids(model: Any) -> set[int]:
    """Ids that config and generation config name and that have a row: these must be kept."""
    found = {i for settings in _settings_of(model) for name in NEEDED for i in _listed(getattr(settings, name, None))}
    return {i for i in found if 0 <= i < model.config.vocab_size}


@torch.no_grad()
def trim_vocabulary(model: Any, kept_ids: Sequence[int]) -> Any:
    """A copy that has only these tokens, renumbered in their order.

    Args:
        model: any supported model; not changed.
        kept_ids: increasing; every id of `named_ids` is among them.

    Raises:
        InvalidInput: when ids are missing or out of range, or source and target have vocabularies of their own.
    """
    family_of(model)
    kept, size = list(kept_ids), int(model.config.vocab_size)
    if not kept or kept != sorted(set(kept)) or not 0 <= kept[0] <= kept[-1] < size:
        raise InvalidInput(f"kept_ids must be one or more increasing ids below {size}, but got {str(kept)[:80]}")
    missing = sorted(named_ids(model) - set(kept))
    if missing:
        raise InvalidInput(f"kept_ids must hold every id that the model's config names, but got none of {missing}")
    new = {old: i for i, old in enumerate(kept)}
    _refuse_two_vocabularies(model)
    _refuse_moved_padding(model, new)
    trimmed = loading.copied(model)
    _slice_weights(trimmed, torch.tensor(kept, device=trimmed.device))
    for module in trimmed.modules():
        if getattr(module, "padding_idx", None) is not None and not hasattr(module, "make_weights"):
            module.padding_idx = new.get(module.padding_idx)
        if hasattr(module, "vocab_size"):  # T5Gemma's loss reads it
            module.vocab_size = len(kept)
    for settings in _settings_of(trimmed):
        _renumber(settings, new)
    return trimmed


def _embeddings(model: Any) -> list[Any]:
    """Every module with one row per token; several may share one parameter."""
    sides = (model.get_encoder(), model.get_decoder())
    tables = [model.get_input_embeddings(), *(side.embed_tokens for side in sides), model.get_output_embeddings()]
    return [*tables, *([model.base_model.shared] if hasattr(model.base_model, "shared") else [])]


def _slice_weights(model: Any, kept_K: torch.Tensor) -> None:
    modules = {id(module): module for module in _embeddings(model)}.values()
    weights = {id(module.weight): module.weight for module in modules}
    sliced = {key: nn.Parameter(w[kept_K], requires_grad=w.requires_grad) for key, w in weights.items()}
    for module in modules:
        module.weight = sliced[id(module.weight)]  # tied before, tied after
        if getattr(module, "bias", None) is not None:
            module.bias = nn.Parameter(module.bias[kept_K], requires_grad=module.bias.requires_grad)
        for name in ("num_embeddings", "out_features"):
            if hasattr(module, name):
                setattr(module, name, len(kept_K))
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias = model.final_logits_bias[:, kept_K].clone()


def _settings_of(model: Any) -> Iterator[Any]:
    """The generation config and every config of the model (T5's halves have copies), each once."""
    found = [model.generation_config, *(getattr(module, "config", None) for module in model.modules())]
    yield from {id(settings): settings for settings in found if settings is not None}.values()


def _listed(value: Any) -> list[int]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [int(value)]


def _renumber(settings: Any, new: Mapping[int, int]) -> None:
    for name in ("vocab_size", "decoder_vocab_size"):
        if getattr(settings, name, None) is not None:
            setattr(settings, name, len(new))
    for name in NEEDED:
        value = getattr(settings, name, None)
        if value is not None:
            ids = [new[i] for i in _listed(value) if i in new]  # an id without a row means nothing
            setattr(settings, name, ids if isinstance(value, list | tuple) else ids[0] if ids else None)
    for name in FORBIDDEN:
        if getattr(settings, name, None) is not None:
            setattr(settings, name, [new[i] for i in getattr(settings, name) if i in new])
    for name in SEQUENCES:
        if getattr(settings, name, None) is not None:
            setattr(settings, name, _sequences(getattr(settings, name), new))
    if getattr(settings, "sequence_bias", None) is not None:
        settings.sequence_bias = _biases(settings.sequence_bias, new)


def _sequences(rows: Sequence[Any], new: Mapping[int, int]) -> list[Any] | None:
    """Sequences whose tokens are all left (`force_words_ids` may hold lists of them); None when none is."""
    found: list[Any] = []
    for row in rows:
        if row and isinstance(row[0], list | tuple):
            inner = _sequences(row, new)
            found += [inner] if inner else []
        elif all(i in new for i in row):
            found.append([new[i] for i in row])
    return found or None


def _biases(biases: Any, new: Mapping[int, int]) -> Any:
    """`sequence_bias` in either of its spellings."""
    pairs = biases.items() if isinstance(biases, Mapping) else biases
    kept = [(tuple(new[i] for i in row), bias) for row, bias in pairs if all(i in new for i in row)]
    if not kept:
        return None
    return dict(kept) if isinstance(biases, Mapping) else [[list(row), bias] for row, bias in kept]


def _refuse_two_vocabularies(model: Any) -> None:
    """An id must mean the same token in source and target (Marian may have two vocabularies)."""
    if not hasattr(model.get_encoder(), "embed_tokens"):
        what = f"model must read text alone to have its vocabulary trimmed, but got {type(model).__name__}"
        raise InvalidInput(what)
    sizes = {int(module.weight.shape[0]) for module in _embeddings(model)}
    if len(sizes) > 1 or not getattr(model.config, "share_encoder_decoder_embeddings", True):
        raise InvalidInput(f"source and target must share one vocabulary to be trimmed, but got two of {sorted(sizes)}")


def _refuse_moved_padding(model: Any, new: Mapping[int, int]) -> None:
    """M2M100 counts positions from its pad id, so that id must stay what it is."""
    pad = model.config.pad_token_id
    if any(hasattr(module, "make_weights") for module in model.modules()) and new.get(pad) != pad:
        what = f"pad_token_id must keep its number, for positions are counted from it, but got {pad} as {new.get(pad)}"
        raise InvalidInput(what, fix="keep every id below it")
