"""How a model writes: its stored generation settings, resolved into those that are scored, timed and shipped.

    generation_config.json (in older folders: config.json)  ->  resolve  ->  settings, and what was changed

Every setting that transformers knows stands in one of three tables; a test compares them with the installed version.

    KEPT       decides the text: honoured as it is stored, in scoring, in timing and in exports
    SET        a search needs one text per input, the same each time: set by it, and said aloud
    REFUSED    cannot be done here: refused by name

Nothing here imports torch, so a setting is refused before anything is loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nash_search.errors import InvalidInput, shown, shown_path
from nash_search.families import find_family
from nash_search.plain_json import read_object

FILE = "generation_config.json"

Kind = tuple[str, Callable[[Any, int], bool]]
"""Rule of a setting: its words in an error, and a test of (value, size of the vocabulary)."""


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _id(value: Any, size: int) -> bool:
    return _whole(value) and 0 <= value < size


def _ids(value: Any, size: int) -> bool:
    return isinstance(value, list) and all(_id(i, size) for i in value)


def _biases(value: Any, size: int) -> bool:
    pairs = isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value)
    return pairs and all(_ids(ids, size) and _number(bias) for ids, bias in value)


_COUNT: Kind = ("a whole number of at least 1", lambda x, _: _whole(x) and x >= 1)
_LENGTH: Kind = ("a whole number of at least 0", lambda x, _: _whole(x) and x >= 0)
_NUMBER: Kind = ("a number", lambda x, _: _number(x))
_POSITIVE: Kind = ("a number above 0", lambda x, _: _number(x) and x > 0)
_FLAG: Kind = ("true or false", lambda x, _: isinstance(x, bool))
_TOKEN: Kind = ("the id of a token the model has", _id)
_TOKENS: Kind = ("ids of tokens the model has", lambda x, size: _id(x, size) or _ids(x, size))
_ANY_TOKENS: Kind = ("token ids", lambda x, _: _ids(x, 2**63))
_WORDS: Kind = (
    "lists of ids of tokens the model has",
    lambda x, size: isinstance(x, list) and all(_ids(word, size) and word for word in x),
)

KEPT: dict[str, Kind] = {
    # length; a search replaces the longest by the data's own
    "max_length": _COUNT,
    "max_new_tokens": _COUNT,
    "min_length": _LENGTH,
    "min_new_tokens": _LENGTH,
    # beams
    "num_beams": _COUNT,
    "early_stopping": ("true, false or 'never'", lambda x, _: isinstance(x, bool) or x == "never"),
    "length_penalty": _NUMBER,
    # scores of tokens
    "repetition_penalty": _POSITIVE,
    "encoder_repetition_penalty": _POSITIVE,
    "no_repeat_ngram_size": _LENGTH,
    "encoder_no_repeat_ngram_size": _LENGTH,
    "bad_words_ids": _WORDS,
    "renormalize_logits": _FLAG,
    "remove_invalid_values": _FLAG,
    "exponential_decay_length_penalty": (
        "a start and a factor",
        lambda x, _: isinstance(x, list) and len(x) == 2 and _whole(x[0]) and _number(x[1]),
    ),
    "suppress_tokens": _ANY_TOKENS,
    "begin_suppress_tokens": _ANY_TOKENS,
    "sequence_bias": ("pairs of token ids and a number", _biases),
    # tokens by their role
    "forced_bos_token_id": _TOKEN,
    "forced_eos_token_id": _TOKENS,
    "pad_token_id": _TOKEN,
    "bos_token_id": ("a token id", lambda x, _: _id(x, 2**63)),
    "eos_token_id": _TOKENS,
    "decoder_start_token_id": _TOKEN,
}

SET: dict[str, tuple[Any, ...]] = {
    # sampling: greedy or beam search writes the same text each time
    "do_sample": (False, None),
    "temperature": (None, 1.0),
    "top_k": (None, 50),
    "top_p": (None, 1.0),
    "min_p": (None,),
    "top_h": (None,),
    "typical_p": (None, 1.0),
    "epsilon_cutoff": (None, 0.0),
    "eta_cutoff": (None, 0.0),
    # one text per input, as token ids; the first of several beams is the best
    "num_return_sequences": (1, None),
    "return_dict_in_generate": (False, None),
    "output_attentions": (None, False),
    "output_hidden_states": (None, False),
    "output_scores": (None, False),
    "output_logits": (None, False),
    # an output that a clock cut short would differ from run to run
    "max_time": (None,),
    # cache and compiler: the workload's, no matter of text
    "use_cache": (True, None),
    "cache_implementation": (None,),
    "cache_config": (None,),
    "max_cache_len": (None,),
    "prefill_chunk_size": (None,),
    "low_memory": (None, False),
    "compile_config": (None,),
    "disable_compile": (None, False, True),
    "continuous_batching_config": (None,),
    # assisted generation: another model's speed, the same text
    "is_assistant": (None, False),
    "num_assistant_tokens": (None, 20),
    "num_assistant_tokens_schedule": (None, "constant", "heuristic"),
    "assistant_confidence_threshold": (None, 0.4),
    "assistant_early_exit": (None,),
    "assistant_lookbehind": (None, 10),
    "assistant_ensemble_weight": (None,),
    "target_lookbehind": (None, 10),
    "prompt_lookup_num_tokens": (None,),
    "max_matching_ngram_size": (None,),
    "speculation_type": (None,),
    "use_mtp": (None, False),
    # without groups of beams it has no effect
    "diversity_penalty": (None, 0.0),
}
"""By setting, the values that count as "not set"; any other value is replaced by the first of them."""

_MOVED = "transformers 5 cannot do it"
_NEEDS_TEXT = "generate would need the tokenizer for it"
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "num_beam_groups": ((None, 1), _MOVED),
    "penalty_alpha": ((None, 0.0), _MOVED),
    "dola_layers": ((None,), _MOVED),
    "constraints": ((None,), _MOVED),
    "force_words_ids": ((None,), _MOVED),
    "stop_strings": ((None,), _NEEDS_TEXT),
    "token_healing": ((None, False), _NEEDS_TEXT),
    "guidance_scale": ((None, 1.0), "no encoder-decoder has it"),
    "watermarking_config": ((None,), "a watermark is no part of a model's quality"),
    **dict.fromkeys(
        ("logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "synced_gpus", "assistant_model",
         "streamer", "negative_prompt_ids", "negative_prompt_attention_mask"),
        ((None,), "it is an argument of generate"),
    ),
}  # fmt: skip
"""By setting, the values that count as "not set", and the reason why any other value is refused."""


@dataclass(frozen=True, kw_only=True)
class ResolvedSettings:
    """Generation settings that do not contradict one another, under the names of transformers."""

    settings: dict[str, Any]
    changed: tuple[str, ...] = ()
    """`do_sample true -> false`, for everything that is not as it was stored."""

    def for_transformers(self) -> Any:
        """A `GenerationConfig`, to be handed to `from_pretrained`, which otherwise reads the folder's own."""
        from transformers import GenerationConfig

        return GenerationConfig.from_dict(dict(self.settings))

    def name_start(self, config: Any) -> None:
        """Let teacher forcing begin outputs as generation does, where the model's config leaves that open."""
        start = self.settings.get("decoder_start_token_id")
        if start is not None and getattr(config, "decoder_start_token_id", None) is None:
            config.decoder_start_token_id = start


def of_folder(folder: Path) -> ResolvedSettings:
    """A model folder's settings.

    Raises:
        InvalidInput: a file that is no JSON object, or a setting that is refused.
    """
    file = folder / FILE
    return resolve(
        read_object(folder / "config.json"), read_object(file) if file.exists() else None, shown_path(folder)
    )


def resolve(config: Mapping[str, Any], stored: Mapping[str, Any] | None, where: str = "") -> ResolvedSettings:
    """Settings as a search uses them.

    Args:
        config: the model's config.json.
        stored: its generation_config.json; None: an older folder, whose settings stand in config.json.
        where: the folder, for errors.

    Raises:
        InvalidInput: a setting is refused, is no value of its kind, or the model does not say how outputs begin.
    """
    file = FILE if stored is not None else "config.json"
    if stored is None:
        stored = {name: config[name] for name in (*KEPT, *SET, *REFUSED) if config.get(name) is not None}
    found = {name: value for name, value in stored.items() if name not in REFUSED or value is not None}
    _refuse(found, config, file, where)
    changes: dict[str, Any] = {}
    for name, neutral in SET.items():
        if name in found and found[name] not in neutral:
            changes[name] = neutral[0]
    if found.get("num_beams") in (None, 1):  # without beams they have no effect, and transformers saves neither
        for name, neutral in (("early_stopping", (None, False)), ("length_penalty", (None, 1.0))):
            if found.get(name) not in neutral:
                changes[name] = None
    if found.get("eos_token_id") is None and config.get("eos_token_id") is not None:
        changes["eos_token_id"] = config["eos_token_id"]  # without an end every output is as long as it may be
    if found.get("decoder_start_token_id") is None:
        changes["decoder_start_token_id"] = _start(config, found, file, where)
    said = tuple(f"{name} {_plain(found.get(name))} -> {_plain(value)}" for name, value in changes.items())
    return ResolvedSettings(settings=found | changes, changed=said)


def prompt_of(settings: Mapping[str, Any], language: str | None, task: str | None) -> tuple[int, ...]:
    """Token ids that a speech model writes behind, as `generate` puts them together: start, language, task, no times.

    Args:
        settings: the model's.
        language: code, e.g. `en`; None: the model has one language only.
        task: `transcribe` or `translate`; None where the language is.
    """
    found = [settings.get("decoder_start_token_id")]
    found += [] if language is None else [settings["lang_to_id"][f"<|{language}|>"]]
    found += [settings["task_to_id"][task]] if language is not None and settings.get("task_to_id") else []
    found += [settings.get("no_timestamps_token_id")]
    return tuple(int(token) for token in found if token is not None)


def _refuse(found: Mapping[str, Any], config: Mapping[str, Any], file: str, where: str) -> None:
    for name, (neutral, why) in REFUSED.items():
        if name in found and found[name] not in neutral:
            what = f"{name} in {file} must be left out ({why}), but got {shown(found[name])}"
            raise InvalidInput(what, where=where, fix="remove it there")
    sizes = [config[name] for name in ("vocab_size", "decoder_vocab_size") if _whole(config.get(name))]
    size = max(sizes, default=2**63)
    for name, (words, fits) in KEPT.items():
        value = found.get(name)
        if value is not None and not fits(value, size):
            raise InvalidInput(f"{name} in {file} must be {words}, but got {shown(value)}", where=where)
    suppressed = set(found.get("suppress_tokens") or ())
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        forced = found.get(name)
        forced = set(forced) if isinstance(forced, list) else {forced} - {None}
        if forced and forced <= suppressed:
            what = f"{name} in {file} must not be one of suppress_tokens, but got {shown(found[name])}"
            raise InvalidInput(what, where=where, fix="remove it from one of the two")


def _start(config: Mapping[str, Any], found: Mapping[str, Any], file: str, where: str) -> int:
    """The decoder's first token where the settings leave it open."""
    family = find_family(str(config.get("model_type")))
    begins_with = family.outputs_begin_with if family is not None else "named"
    start = config.get("decoder_start_token_id")
    if start is None and begins_with == "padding":
        start = config.get("pad_token_id", 0)
        start = found.get("pad_token_id") or 0 if start is None else start
    if start is None and begins_with in ("beginning", "last_label"):
        start = found.get("bos_token_id")
    if start is None and begins_with == "beginning":
        start = config.get("bos_token_id")
    if start is None or not _whole(start):
        what = f"{file} must name decoder_start_token_id (what outputs begin with), but got {shown(start)}"
        raise InvalidInput(what, where=where, fix="add it to config.json and generation_config.json")
    return int(start)


def _plain(value: Any) -> str:
    return "none" if value is None else shown(json.dumps(value), 42).strip("'")
