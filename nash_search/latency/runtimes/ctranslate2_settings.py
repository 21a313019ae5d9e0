"""The model's generation settings in CTranslate2's words, and the arithmetic that it is asked for."""

from __future__ import annotations

from typing import Any

import ctranslate2

from nash_search.config import Workload
from nash_search.errors import InvalidInput
from nash_search.latency.runtimes.conversion import Settings, not_followed, settings_of
from nash_search.latency.runtimes.ctranslate2_words import Words
from nash_search.latency.runtimes.eager import RUNTIME as EAGER

NAME = "ctranslate2"
PATIENCE = {True: 1.0, False: 2.0, "never": 2.0}
"""By Hugging Face's `early_stopping`: at how many finished outputs, in multiples of the beams, the engine stops."""
_HEARD = ("begin_suppress_tokens",)
"""What the engine has for speech only."""
_NOT_HEARD = ("forced_bos_token_id", "forced_eos_token_id", "min_new_tokens", "min_length", "repetition_penalty")
"""What it has for text only, or means otherwise there: PyTorch's penalty counts the prompt's tokens too."""


class Decoding(Settings):
    """The model's settings, and those that this engine alone has."""

    suppressed: tuple[tuple[int, ...], ...] = ()
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    patience: float = 1.0

    begins_without: tuple[int, ...] = ()
    """Tokens that come anywhere but first."""
    languages: tuple[int, ...] = ()
    """Tokens of the languages that a model hears."""
    alignment_heads: tuple[tuple[int, int], ...] = ()
    """Of its decoder: block and head that follow the sound, for whoever wants the words' times."""

    @property
    def is_speech(self) -> bool:
        """It is a model of speech."""
        return self.window is not None

    @property
    def roles(self) -> dict[str, int]:
        """Tokens that the engine's `Whisper` looks for by their published names."""
        named = {"<|startoftranscript|>": self.start, "<|endoftext|>": self.ends[0]}
        return named | {"<|notimestamps|>": self.prompt[-1]}

    def options(self, words: Words) -> dict[str, Any]:
        """The engine's words for what does not change from call to call."""
        both = {
            "length_penalty": self.length_penalty,
            "patience": self.patience,
            "repetition_penalty": self.repetition_penalty,
            "no_repeat_ngram_size": self.no_repeat_ngram_size,
        }
        if self.is_speech:
            return both | {"suppress_tokens": [token for ids in self.suppressed for token in ids]}
        return both | {
            "suppress_sequences": [words.written(ids) for ids in self.suppressed] or None,
            "end_token": words.written(self.ends),
            "max_input_length": 0,
            "return_end_token": True,
        }

    def max_length(self, new_tokens: int) -> int:
        """The engine's limit under which a model that hears writes at most so many new tokens.

        It stops after min(limit / 2, limit - prompt + 1) of them (tried, 4.8.5).
        """
        return max(2 * new_tokens, new_tokens + len(self.prompt) - 1)


def decoding_of(model: Any) -> Decoding:
    """The model's generation settings, as far as the engine has them.

    Raises:
        InvalidInput: a setting that changes tokens and that the engine does not have.
    """
    own, is_speech = model.generation_config, EAGER.is_speech(model)
    for name in not_followed(model, *(_NOT_HEARD if is_speech else ()), but=_HEARD if is_speech else ()):
        raise InvalidInput(f"{name} must be left out for runtime {NAME}, but got {getattr(own, name)}")
    if is_speech:
        _check_speech(own)
    settings, unwanted = settings_of(model), list(own.suppress_tokens or [])
    if is_speech:  # time stamps, as `writing` leaves them out
        unwanted += range(own.no_timestamps_token_id + 1, model.config.vocab_size)
    bad = [ids for ids in own.bad_words_ids or [] if list(ids) not in [[end] for end in settings["ends"]]]
    return Decoding(
        **settings,
        suppressed=tuple(tuple(ids) for ids in [*bad, *([token] for token in unwanted)]),
        repetition_penalty=own.repetition_penalty or 1.0,
        no_repeat_ngram_size=own.no_repeat_ngram_size or 0,
        patience=PATIENCE[own.early_stopping or False],
        **(_heard(own) if is_speech else {}),
    )


def _check_speech(own: Any) -> None:
    """Refuse settings of speech that the engine has not, or whose outputs nothing here is trained to write."""
    words = f"for speech on runtime {NAME}, but got"
    if getattr(own, "return_timestamps", None):
        raise InvalidInput(f"return_timestamps must be left out {words} {own.return_timestamps}")
    if getattr(own, "no_timestamps_token_id", None) is None:  # without it, the engine writes time stamps
        raise InvalidInput(f"no_timestamps_token_id must be named {words} none")
    if any(len(ids) > 1 for ids in own.bad_words_ids or []):
        raise InvalidInput(f"bad_words_ids must be single tokens {words} {own.bad_words_ids}")


def _heard(own: Any) -> dict[str, Any]:
    """What the settings of a model that hears say besides."""
    return {
        "begins_without": tuple(own.begin_suppress_tokens or ()),
        "languages": tuple(sorted((getattr(own, "lang_to_id", None) or {}).values())),
        "alignment_heads": tuple(map(tuple, getattr(own, "alignment_heads", None) or ())),
    }


def compute_type(workload: Workload) -> str:
    """The engine's name for the workload's arithmetic.

    Raises:
        InvalidInput: the device does not have it; the engine would quietly take another.
    """
    wanted = workload.dtype if workload.quantize == "none" else f"{workload.quantize}_{workload.dtype}"
    device = workload.device.partition(":")[0]
    try:
        supported = ctranslate2.get_supported_compute_types(device)
    except (RuntimeError, ValueError) as error:
        raise InvalidInput(f"device must be one that {NAME} was built for, but got {device}: {error}") from error
    if wanted not in supported:
        known = ", ".join(sorted(supported))
        raise InvalidInput(f"dtype and quantize must be what {NAME} has on {device} ({known}), but got {wanted}")
    return wanted
