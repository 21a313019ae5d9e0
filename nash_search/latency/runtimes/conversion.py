"""What engines outside PyTorch have in common: settings read from the model, convert, compare, load, serve.

    PyTorch model -> settings_of -> Conversion (compared once) -> saved in any precision -> Engine -> EngineSession

An engine's file adds how a model is converted, how it writes, and which settings it cannot follow.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from nash_search.config import Frozen, Workload
from nash_search.encoder_rows import Given
from nash_search.errors import InvalidInput
from nash_search.families import FRAMES_PER_POSITION
from nash_search.latency.runtimes import artefact
from nash_search.latency.runtimes.eager import NATURAL_LIMIT, not_cut
from nash_search.latency.runtimes.eager import RUNTIME as EAGER
from nash_search.latency.workload import Inputs, random_features, random_inputs, task_inputs

_INEXPRESSIBLE = (
    *("begin_suppress_tokens", "constraints", "diversity_penalty", "encoder_no_repeat_ngram_size"),
    *("encoder_repetition_penalty", "exponential_decay_length_penalty", "force_words_ids", "forced_decoder_ids"),
    *("guidance_scale", "penalty_alpha", "sequence_bias", "watermarking_config"),
)
"""Generation settings that change tokens and that no engine here has."""
_NEUTRAL: tuple[Any, ...] = (None, 0, 0.0, 1.0, False, [], {})


class Settings(Frozen):
    """What generation needs beside the weights, from the model's own settings; all tokens are ids."""

    vocabulary: int
    start: int
    pad: int
    ends: tuple[int, ...]
    special: tuple[int, ...]
    """Tokens that no ordinary input is made of."""
    first: int | None = None
    """Forced first token (a target language)."""
    last: int | None = None
    """Forced at the very last position (BART's `forced_eos_token_id`)."""
    shortest: int = 0
    """New tokens before the model may end."""
    longest: int | None = None
    """The model's own limit of new tokens."""
    length_penalty: float = 1.0
    positions: int | None = None
    """Longest input and output that the model has positions for (None: any)."""
    prompt: tuple[int, ...] = ()
    """What a model that hears writes behind, `start` with it (none: it reads text)."""
    window: tuple[int, int] | None = None
    """Bins and frames of the features that it hears."""


def settings_of(model: Any) -> dict[str, Any]:
    """The fields of `Settings`.

    Raises:
        InvalidInput: the model does not say where outputs begin or end.
    """
    config, own = model.config, model.generation_config
    start = own.decoder_start_token_id if own.decoder_start_token_id is not None else own.bos_token_id
    ends = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    if start is None or None in ends:
        raise InvalidInput(f"model must name decoder_start_token_id and eos_token_id, but got {start} and {ends}")
    last = own.forced_eos_token_id
    return {
        "vocabulary": config.vocab_size,
        "start": start,
        "pad": config.pad_token_id or 0,
        "ends": tuple(ends),
        "special": tuple(sorted(EAGER.special(config))),
        "first": own.forced_bos_token_id,
        "last": last[0] if isinstance(last, list) else last,
        "shortest": max(own.min_new_tokens or 0, (own.min_length or 0) - 1),
        "longest": own.max_new_tokens or own.max_length,
        "length_penalty": 1.0 if own.length_penalty is None else own.length_penalty,
        **_inputs_of(model),
    }


def _inputs_of(model: Any) -> dict[str, Any]:
    """The fields of `Settings` that say what may go in."""
    config, own = model.config, model.generation_config
    if not EAGER.is_speech(model):
        looked_up = hasattr(model.get_encoder(), "embed_positions")
        return {"positions": config.max_position_embeddings if looked_up else None}
    window = config.num_mel_bins, FRAMES_PER_POSITION * config.max_source_positions
    limits = [own.max_new_tokens or own.max_length, EAGER.longest(model)]
    longest = min(limit for limit in limits if limit is not None)
    return {"prompt": EAGER.prompt(model), "window": window, "longest": longest}


def not_followed(model: Any, *more: str, but: tuple[str, ...] = ()) -> list[str]:
    """Settings of the model that change tokens and that no engine has, nor this one (`more`; it has `but`); by name."""
    own, names = model.generation_config, {*_INEXPRESSIBLE, *more}.difference(but)
    return [name for name in sorted(names) if getattr(own, name, None) not in _NEUTRAL]


class EngineSession:
    """One engine on one workload: what does not depend on how it generates."""

    def __init__(self, engine: Any, workload: Workload, inputs: Inputs) -> None:
        self.engine, self.workload, self.kind = engine, workload, inputs.kind
        limit, longest = engine.settings.positions, max(workload.input_tokens, workload.output_tokens)
        if limit is not None and longest > limit:
            raise InvalidInput(f"input_tokens and output_tokens must be at most {limit}, but got {longest}")

    @property
    def natural_limit(self) -> int:
        """New tokens at which a model that does not end by itself is stopped."""
        own = self.engine.settings.longest or 2 * self.workload.output_tokens
        return max(1, min(own, NATURAL_LIMIT * self.workload.output_tokens))

    def weight_bytes(self) -> int:
        """The engine's files."""
        return int(self.engine.weight_bytes)

    def facts(self) -> dict[str, Any]:
        """Where the inputs come from, and what was compared with eager."""
        return {"inputs": self.kind, **self.engine.told}

    def warnings(self) -> list[str]:
        """Gates and masks that the converted model still had."""
        found: list[str] = self.engine.warnings
        return found

    def close(self) -> None:
        """Nothing: the engine was not changed."""


class Conversion(Protocol):
    """A model, converted in float32 and found to write what eager writes."""

    def save(self, folder: str, workload: Workload) -> None:
        """`folder / artefact`, in the workload's precision; the folder need not hold a checkpoint."""


class Converting(ABC):
    """A runtime that serves what it converted: the part of `runtimes.Runtime` that every engine shares."""

    artefact: str
    outside_torch = True
    engine: type[Any]
    """A loaded model: `settings`, `told` (what was compared with eager), `warnings`, `weight_bytes`, `write`."""
    session: Callable[..., EngineSession]

    @abstractmethod
    def load(self, folder: str, workload: Workload) -> Any:
        """The folder's artefact where it has one of this precision, else its checkpoint, converted and compared."""

    @abstractmethod
    def conversion(
        self, model: Any, folder: str, workload: Workload, rows: Given | None = None
    ) -> AbstractContextManager[Conversion]:
        """The costly part of every precision, done once: the model converted, and compared with eager.

        Args:
            model: a PyTorch model.
            folder: where its tokenizer lies, if anywhere.
            workload: beams and lengths to compare by.
            rows: real inputs to compare on (None: random ones).

        Raises:
            InvalidInput: the engine cannot say this model, or writes something else than eager.
        """

    def export(self, model: Any, folder: str, workload: Workload, rows: Given | None = None) -> None:
        """`folder / artefact`."""
        with self.conversion(model, folder, workload, rows) as found:
            found.save(folder, workload)

    @contextmanager
    def placed(self, folder: str, workload: Workload) -> Iterator[str]:
        """A folder that processes load without converting: `folder` if it holds the artefact, else a temporary one."""
        there = artefact.found(folder, self.artefact, workload) is not None
        model = None if there else EAGER.load(folder, workload.in_pytorch(device="cpu"))
        if there or not_cut(model):  # what was not cut warns of it wherever it is converted
            yield folder
            return
        with tempfile.TemporaryDirectory(prefix=f"nash-search-{self.artefact}-") as place:
            with self.conversion(model, folder, workload) as found:
                found.save(place, workload)
            del model
            yield place

    def build(self, model: Any, workload: Workload, inputs: Given | None) -> Any:
        """Of a loaded engine, or of a PyTorch model that is converted and compared first."""
        engine = model if isinstance(model, self.engine) else self.converted(model, workload)
        own = engine.settings
        if inputs is not None:
            return self.session(engine, workload, task_inputs(workload, inputs, pad=own.pad))
        if own.window is not None:
            return self.session(engine, workload, random_features(workload, *own.window))
        ordinary = {"vocabulary": own.vocabulary, "special": own.special}
        return self.session(engine, workload, random_inputs(workload, pad=own.pad, **ordinary))

    def tokens(self, model: Any, rows: Given, *, beams: int, max_new_tokens: int) -> list[list[int]]:
        """What a loaded engine generates, in one batch."""
        found: list[list[int]] = model.write(rows, beams=beams, max_new_tokens=max_new_tokens)
        return found

    def converted(self, model: Any, workload: Workload) -> Any:
        """An engine of a PyTorch model; its files are gone again."""
        with tempfile.TemporaryDirectory(prefix=f"nash-search-{self.artefact}-") as folder:
            self.export(model, folder, workload)
            engine = self.load(folder, workload)
        engine.warnings = not_cut(model)
        return engine
