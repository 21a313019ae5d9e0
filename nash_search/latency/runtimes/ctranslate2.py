"""CTranslate2 as the serving runtime: converted, compared with eager, loaded, timed through `Translator`.

    PyTorch model -> specification -> float32 on the CPU, token for token eager's?  no: refused, the input named
                                   -> the workload's precision -> Translator

No conversion leaves this module uncompared, since a wrong spelling converts without an error and writes
something else. Its words are the tokenizer's where the folder holds one (`ctranslate2_words`). Greedy search writes
eager's tokens. Its beam search ends when as many outputs are finished as there are beams (times `patience`), where
Hugging Face's goes on while a better one may come; where their outputs differ, PyTorch's score decides
(`parity`). It does not offer its encoder alone, so a session has none to time. Layers are said in
`ctranslate2_spec`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ctranslate2

from nash_search.config import Workload
from nash_search.errors import InvalidInput
from nash_search.latency.runtimes import artefact, ctranslate2_words, parity
from nash_search.latency.runtimes.conversion import Converting, EngineSession, Settings, not_followed, settings_of
from nash_search.latency.runtimes.ctranslate2_spec import sizes_of, spec_of
from nash_search.latency.runtimes.ctranslate2_words import Words
from nash_search.latency.runtimes.eager import RUNTIME as EAGER
from nash_search.latency.workload import Inputs
from nash_search.records import Artefact

NAME = "ctranslate2"
PATIENCE = {True: 1.0, False: 2.0, "never": 2.0}
"""By Hugging Face's `early_stopping`: at how many finished outputs, in multiples of the beams, the engine stops."""


class Decoding(Settings):
    """The model's settings, and those that this engine alone has."""

    suppressed: tuple[tuple[int, ...], ...] = ()
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    patience: float = 1.0

    def options(self, words: Words) -> dict[str, Any]:
        """The engine's words for what does not change from call to call."""
        return {
            "length_penalty": self.length_penalty,
            "patience": self.patience,
            "repetition_penalty": self.repetition_penalty,
            "no_repeat_ngram_size": self.no_repeat_ngram_size,
            "suppress_sequences": [words.written(ids) for ids in self.suppressed] or None,
            "end_token": words.written(self.ends),
            "max_input_length": 0,
            "return_end_token": True,
        }


def decoding_of(model: Any) -> Decoding:
    """The model's generation settings, as far as the engine has them.

    Raises:
        InvalidInput: a setting that changes tokens and that the engine does not have.
    """
    own = model.generation_config
    for name in not_followed(model):
        raise InvalidInput(f"{name} must be left out for runtime {NAME}, but got {getattr(own, name)}")
    settings = settings_of(model)
    bad = [ids for ids in own.bad_words_ids or [] if list(ids) not in [[end] for end in settings["ends"]]]
    return Decoding(
        **settings,
        suppressed=tuple(tuple(ids) for ids in [*bad, *([token] for token in own.suppress_tokens or [])]),
        repetition_penalty=own.repetition_penalty or 1.0,
        no_repeat_ngram_size=own.no_repeat_ngram_size or 0,
        patience=PATIENCE[own.early_stopping or False],
    )


class Engine:
    """A loaded model and its generation settings."""

    def __init__(self, folder: Path, decoding: Decoding, workload: Workload, told: dict[str, Any]) -> None:
        self.settings, self.told, self.words = decoding, told, ctranslate2_words.stored(folder)
        self._options = decoding.options(self.words)
        self.weight_bytes = (folder / "model.bin").stat().st_size
        self.warnings: list[str] = []
        wanted = compute_type(workload)
        device, _, index = workload.device.partition(":")
        try:
            self.translator = ctranslate2.Translator(
                str(folder),
                device=device,
                device_index=int(index or 0),
                compute_type=wanted,
                inter_threads=1,
                intra_threads=workload.threads,
            )
        except (RuntimeError, ValueError) as error:
            raise InvalidInput(f"{NAME} must be able to load {folder.name}, but got: {error}") from error
        if self.translator.compute_type != wanted:
            raise InvalidInput(f"compute type must be {wanted}, but {NAME} took {self.translator.compute_type}")

    def generated(
        self, rows: Sequence[Sequence[str]], beams: int, longest: int, shortest: int | None = None
    ) -> list[list[str]]:
        """New tokens of each row, the end token with them, exactly as the engine returns them."""
        forced = self.settings.first
        first = None if forced is None else [self.words.written([forced])] * len(rows)
        found = self.translator.translate_batch(
            list(rows),
            first,
            beam_size=beams,
            max_decoding_length=longest,
            min_decoding_length=self.settings.shortest if shortest is None else shortest,
            **self._options,
        )
        return [result.hypotheses[0] for result in found]

    def write(self, rows: Sequence[Sequence[int]], *, beams: int, max_new_tokens: int) -> list[list[int]]:
        """Generated freely, laid out as eager's: start token first, padded behind the end."""
        own = self.settings
        longest = max_new_tokens - (own.last is not None)  # eager forces the last one, at no cost in score
        read = [self.words.read(row) for row in rows]
        found = [self.words.ids(row) for row in self.generated(read, beams, longest)]
        if own.last is not None:
            found = [row if row and row[-1] in own.ends else [*row, own.last] for row in found]
        width = max(len(row) for row in found)
        return [[own.start, *row, *[own.pad] * (width - len(row))] for row in found]


class Translation(EngineSession):
    """One engine on one workload. The timed call takes ids as the engine's own strings and returns such."""

    encode = None

    def __init__(self, engine: Engine, workload: Workload, inputs: Inputs) -> None:
        super().__init__(engine, workload, inputs)
        pairs = zip(inputs.ids_BL.tolist(), inputs.mask_BL.tolist(), strict=True)
        self.rows = [engine.words.read(i for i, real in zip(ids, mask, strict=True) if real) for ids, mask in pairs]

    def generate(self) -> list[list[str]]:
        """Tokens to the engine, encoder, exactly N steps, tokens back."""
        exactly = self.workload.output_tokens
        return self.engine.generated(self.rows, self.workload.beams, exactly, exactly)

    def generated_tokens(self, output: list[list[str]]) -> int:
        """Steps of every row; where rows differ, one that is not the workload's."""
        lengths = {len(row) for row in output}
        return min(lengths - {self.workload.output_tokens} or lengths)

    def natural(self) -> int:
        """Generate until the model ends by itself (at most its own limit)."""
        return max(len(row) for row in self.engine.generated(self.rows, self.workload.beams, self.natural_limit))

    def facts(self) -> dict[str, Any]:
        """Beside what every engine says, the arithmetic that really runs."""
        return {**super().facts(), "compute_type": self.engine.translator.compute_type}


class Specified:
    """A model that has been compared: `converting.Conversion`."""

    def __init__(self, model: Any, decoding: Decoding, words: Words, compared: dict[str, Any]) -> None:
        self._model, self._decoding, self._words, self._compared = model, decoding, words, compared

    def save(self, folder: str, workload: Workload) -> None:
        """`folder / ctranslate2`: model.bin, config.json, shared_vocabulary.json, artefact.json."""
        decoding, words = self._decoding, self._words
        record = Artefact(
            runtime=NAME,
            version=ctranslate2.__version__,
            dtype=workload.dtype,
            quantize=workload.quantize,
            loading=_loading(decoding, words, self._model.generation_config.num_beams or 1, workload),
            settings={"decoding": decoding.model_dump(mode="json"), "compared": self._compared},
        )
        with artefact.written(folder, record) as place:
            _save(spec_of(self._model), decoding, words, place, compute_type(workload))


class CTranslate2(Converting):
    """OpenNMT's inference engine, on CPUs and NVIDIA GPUs."""

    artefact = NAME
    engine, session = Engine, Translation

    def precisions(self, device: str) -> tuple[tuple[str, str], ...]:
        """What this build computes in on the device."""
        try:
            supported = ctranslate2.get_supported_compute_types(device.partition(":")[0])
        except (RuntimeError, ValueError):  # built without that device
            return ()
        pairs = [(dtype, quantize) for dtype in ("float32", "bfloat16", "float16") for quantize in ("none", "int8")]
        return tuple((d, q) for d, q in pairs if (d if q == "none" else f"{q}_{d}") in supported)

    def load(self, folder: str, workload: Workload) -> Engine:
        """The folder's artefact where it has one of this precision, else its checkpoint, converted and compared."""
        there = artefact.found(folder, NAME, workload)
        if there is None:
            plain = workload.model_copy(update={"device": "cpu", "dtype": "float32", "quantize": "none"})
            return self.converted(EAGER.load(folder, plain), workload)
        place, record = there
        told = record.settings.get("compared", {})
        return Engine(place, Decoding.model_validate(record.settings["decoding"]), workload, {"compared": told})

    @contextmanager
    def conversion(
        self, model: Any, folder: str, workload: Workload, rows: Sequence[Sequence[int]] | None = None
    ) -> Iterator[Specified]:
        """Its specification, which in float32 writes what eager writes."""
        decoding = decoding_of(model)
        words = ctranslate2_words.words_for(folder, *sizes_of(spec_of(model)), decoding.pad)
        yield Specified(model, decoding, words, _compared(model, decoding, words, workload, rows))

    def fingerprint(self, workload: Workload) -> dict[str, Any]:
        """Version, arithmetic, and the environment's switches for both."""
        switches = {k: v for k, v in sorted(os.environ.items()) if k.startswith("CT2_")}
        return {"ctranslate2": ctranslate2.__version__, "compute_type": compute_type(workload), "switches": switches}


RUNTIME = CTranslate2()


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


def _loading(decoding: Decoding, words: Words, beams: int, workload: Workload) -> tuple[str, ...]:
    """How to translate one input with the engine alone, under the model's own settings."""
    plain = Decoding(vocabulary=0, start=0, pad=0, ends=decoding.ends, special=()).options(words)
    own = {name: value for name, value in decoding.options(words).items() if value != plain[name]}
    own |= {"beam_size": beams, "min_decoding_length": decoding.shortest, "max_input_length": 0}
    if beams > 1:  # the end counts in an output's length, by which scores are divided
        own["return_end_token"] = True
    if decoding.longest is not None:
        own["max_decoding_length"] = decoding.longest
    if decoding.first is not None:
        own["target_prefix"] = [words.written([decoding.first])]
    device, _, index = workload.device.partition(":")
    place = "" if device == "cpu" else f", {device!r}, device_index={int(index or 0)}"
    apart = words.source != words.target  # the tokenizer's own lookup knows one side only
    vocabularies = (
        f'words = [json.load(open(f"{{folder}}/{NAME}/{{side}}_vocabulary.json")) for side in ("source", "target")]',
    )
    row = 'tokenizer("an input").input_ids'
    return (
        f"import {'json, ' if apart else ''}ctranslate2, transformers",
        f'engine = ctranslate2.Translator(f"{{folder}}/{NAME}"{place}, intra_threads={workload.threads})',
        "tokenizer = transformers.AutoTokenizer.from_pretrained(folder)",
        *(vocabularies if apart else ()),
        f"options = dict({', '.join(f'{name}={value!r}' for name, value in own.items())})",
        f"row = [words[0][token] for token in {row}]" if apart else f"row = tokenizer.convert_ids_to_tokens({row})",
        "found = engine.translate_batch([row], **options)[0].hypotheses[0]",
        "ids = [words[1].index(word) for word in found]" if apart else "ids = tokenizer.convert_tokens_to_ids(found)",
        "print(tokenizer.decode(ids, skip_special_tokens=True))",
    )


def _save(spec: Any, decoding: Decoding, words: Words, folder: Path, precision: str) -> None:
    """The engine's folder; the specification is quantised in place."""
    spec.register_source_vocabulary(list(words.source))
    spec.register_target_vocabulary(list(words.target))
    [start], [end] = words.written([decoding.start]), words.written(decoding.ends[:1])
    spec.config.decoder_start_token, spec.config.bos_token = start, start
    spec.config.eos_token, spec.config.unk_token = end, words.unknown
    spec.validate()
    spec.optimize(quantization=precision)
    spec.save(str(folder))


def _compared(
    model: Any, decoding: Decoding, words: Words, workload: Workload, rows: Sequence[Sequence[int]] | None
) -> dict[str, Any]:
    """The same specification in float32 on the CPU, against eager; a quantised one is scored, not compared."""
    plain = workload.model_copy(update={"device": "cpu", "dtype": "float32", "quantize": "none"})
    with tempfile.TemporaryDirectory(prefix="nash-search-ctranslate2-") as folder:
        _save(spec_of(model), decoding, words, Path(folder), "float32")
        engine = Engine(Path(folder), decoding, plain, {})
    return parity.agreed(model, engine.write, workload, rows, exact_beams=False)
