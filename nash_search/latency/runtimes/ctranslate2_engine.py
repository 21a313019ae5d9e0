"""A model as CTranslate2 loads it, and its timed call: `Translator` for text, `Whisper` for speech."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ctranslate2

from nash_search.config import Workload
from nash_search.encoder_rows import Batch, Given, rows_of
from nash_search.errors import InvalidInput
from nash_search.latency.runtimes import ctranslate2_words
from nash_search.latency.runtimes.conversion import EngineSession
from nash_search.latency.runtimes.ctranslate2_settings import NAME, Decoding, compute_type
from nash_search.latency.workload import Inputs


class Engine:
    """A loaded model and its generation settings."""

    kind: Callable[..., Any]
    """The engine's own class."""

    def __init__(self, folder: Path, decoding: Decoding, workload: Workload, told: dict[str, Any]) -> None:
        self.settings, self.told, self.words = decoding, told, ctranslate2_words.stored(folder)
        self._options = decoding.options(self.words)
        self.weight_bytes = (folder / "model.bin").stat().st_size
        self.warnings: list[str] = []
        wanted = compute_type(workload)
        device, _, index = workload.device.partition(":")
        try:
            self.model = self.kind(
                str(folder),
                device=device,
                device_index=int(index or 0),
                compute_type=wanted,
                inter_threads=1,
                intra_threads=workload.threads,
            )
        except (RuntimeError, ValueError) as error:
            raise InvalidInput(f"{NAME} must be able to load {folder.name}, but got: {error}") from error
        if self.model.compute_type != wanted:
            raise InvalidInput(f"compute type must be {wanted}, but {NAME} took {self.model.compute_type}")

    def write(self, rows: Given, *, beams: int, max_new_tokens: int) -> list[list[int]]:
        """Generated freely, laid out as eager's."""
        raise NotImplementedError


class Translator(Engine):
    """A model that reads text."""

    kind = ctranslate2.Translator

    def generated(
        self, rows: Sequence[Sequence[str]], beams: int, longest: int, shortest: int | None = None
    ) -> list[list[str]]:
        """New tokens of each row, the end token with them, exactly as the engine returns them."""
        forced = self.settings.first
        first = None if forced is None else [self.words.written([forced])] * len(rows)
        found = self.model.translate_batch(
            list(rows),
            first,
            beam_size=beams,
            max_decoding_length=longest,
            min_decoding_length=self.settings.shortest if shortest is None else shortest,
            **self._options,
        )
        return [result.hypotheses[0] for result in found]

    def write(self, rows: Given, *, beams: int, max_new_tokens: int) -> list[list[int]]:
        """Generated freely, laid out as eager's: start token first, padded behind the end."""
        own = self.settings
        longest = max_new_tokens - (own.last is not None)  # eager forces the last one, at no cost in score
        read = [self.words.read(row) for row in rows_of(rows)]
        found = [self.words.ids(row) for row in self.generated(read, beams, longest)]
        if own.last is not None:
            found = [row if row and row[-1] in own.ends else [*row, own.last] for row in found]
        width = max(len(row) for row in found)
        return [[own.start, *row, *[own.pad] * (width - len(row))] for row in found]


class Transcriber(Engine):
    """A model that hears, its window cut or whole."""

    kind = ctranslate2.models.Whisper

    def features(self, batch: Batch) -> Any:
        """A batch, (rows, bins, frames), as the engine takes it."""
        return ctranslate2.StorageView.from_array(batch["input_features"].numpy())

    def generated(self, features: Any, beams: int, longest: int, *, ends: bool = True) -> list[list[int]]:
        """New tokens of each row, as the engine returns them: prompt and end are not among them.

        Args:
            features: of the rows.
            beams: 1 for greedy search.
            longest: new tokens at most.
            ends: False: no row ends before, for the end is suppressed.
        """
        own, options = self.settings, dict(self._options)
        options["suppress_tokens"] = [*options["suppress_tokens"], *([] if ends else own.ends)]
        prompts, limit = [list(own.prompt)] * features.shape[0], own.max_length(longest)
        found = self.model.generate(features, prompts, beam_size=beams, max_length=limit, **options)
        return [result.sequences_ids[0] for result in found]

    def write(self, rows: Given, *, beams: int, max_new_tokens: int) -> list[list[int]]:
        """Generated freely, laid out as eager's: padded behind the last token, the end not among them."""
        features = self.features(rows_of(rows).batch(self.settings.pad))
        found = self.generated(features, beams, max_new_tokens)
        width = max(len(row) for row in found)
        return [[*row, *[self.settings.pad] * (width - len(row))] for row in found]


class _Session(EngineSession):
    """What both models' calls have in common."""

    def generated_tokens(self, output: Sequence[Sequence[object]]) -> int:
        """Steps of every row; where rows differ, one that is not the workload's."""
        lengths = {len(row) for row in output}
        return min(lengths - {self.workload.output_tokens} or lengths)

    def facts(self) -> dict[str, Any]:
        """Beside what every engine says, the arithmetic that really runs."""
        return {**super().facts(), "compute_type": self.engine.model.compute_type}


class Translation(_Session):
    """One engine on one workload. The timed call takes ids as the engine's own strings and returns such."""

    encode = None

    def __init__(self, engine: Translator, workload: Workload, inputs: Inputs) -> None:
        super().__init__(engine, workload, inputs)
        pairs = zip(inputs.ids_BL.tolist(), inputs.mask_BL.tolist(), strict=True)
        self.rows = [engine.words.read(i for i, real in zip(ids, mask, strict=True) if real) for ids, mask in pairs]

    def generate(self) -> list[list[str]]:
        """Tokens to the engine, encoder, exactly N steps, tokens back."""
        exactly = self.workload.output_tokens
        return self.engine.generated(self.rows, self.workload.beams, exactly, exactly)

    def natural(self) -> int:
        """Generate until the model ends by itself (at most its own limit)."""
        return max(len(row) for row in self.engine.generated(self.rows, self.workload.beams, self.natural_limit))


class Transcription(_Session):
    """One engine that hears, on one workload. The timed call takes features on the host and returns token ids."""

    def __init__(self, engine: Transcriber, workload: Workload, inputs: Inputs) -> None:
        super().__init__(engine, workload, inputs)
        self.batch = inputs.batch

    def generate(self) -> list[list[int]]:
        """Features to the engine, encoder, exactly N steps, tokens back."""
        features = self.engine.features(self.batch)
        found: list[list[int]] = self.engine.generated(
            features, self.workload.beams, self.workload.output_tokens, ends=False
        )
        return found

    def encode(self) -> object:
        """The encoder alone, from features on the host."""
        return self.engine.model.encode(self.engine.features(self.batch), to_cpu=True)

    def natural(self) -> int:
        """Generate until the model ends by itself (at most its own limit)."""
        longest = self.natural_limit
        found = self.engine.generated(self.engine.features(self.batch), self.workload.beams, longest)
        return min(longest, 1 + max(len(row) for row in found))  # the end is written too


def engine_of(folder: Path, decoding: Decoding, workload: Workload, told: dict[str, Any]) -> Engine:
    """What an artefact's folder holds, loaded."""
    return (Transcriber if decoding.is_speech else Translator)(folder, decoding, workload, told)


def session_of(engine: Engine, workload: Workload, inputs: Inputs) -> EngineSession:
    """The engine on a workload."""
    if isinstance(engine, Transcriber):
        return Transcription(engine, workload, inputs)
    assert isinstance(engine, Translator)
    return Translation(engine, workload, inputs)
