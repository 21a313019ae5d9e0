"""CTranslate2 as the serving runtime: converted, compared with eager, loaded, timed.

    PyTorch model -> specification -> float32 on the CPU, token for token eager's?  no: refused, the input named
                                   -> the workload's precision -> Translator, or Whisper

No conversion leaves this module uncompared, since a wrong spelling converts without an error and writes
something else. Its words are the tokenizer's where the folder holds one (`ctranslate2_words`). Greedy search writes
eager's tokens. Its beam search ends when as many outputs are finished as there are beams (times `patience`), where
Hugging Face's goes on while a better one may come; where their outputs differ, PyTorch's score decides
(`parity`). Layers are said in `ctranslate2_spec`, settings in `ctranslate2_settings`, loaded models and their timed
calls are `ctranslate2_engine`'s.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ctranslate2

from nash_search.config import Workload
from nash_search.encoder_rows import Given
from nash_search.latency.runtimes import artefact, ctranslate2_words, parity
from nash_search.latency.runtimes.conversion import Converting
from nash_search.latency.runtimes.ctranslate2_engine import Engine, engine_of, session_of
from nash_search.latency.runtimes.ctranslate2_loading import loading
from nash_search.latency.runtimes.ctranslate2_settings import NAME, Decoding, compute_type, decoding_of
from nash_search.latency.runtimes.ctranslate2_spec import sizes_of, spec_of
from nash_search.latency.runtimes.ctranslate2_words import Words
from nash_search.latency.runtimes.eager import RUNTIME as EAGER
from nash_search.records import Artefact

BESIDE = ("tokenizer.json", "preprocessor_config.json")
"""Files of a checkpoint that faster-whisper looks for beside a model's."""


class Specified:
    """A PyTorch model whose CTranslate2 conversion agreed with eager; implements `conversion.Conversion`."""

    def __init__(self, model: Any, folder: str, decoding: Decoding, words: Words, compared: dict[str, Any]) -> None:
        """`folder` is the checkpoint's, `compared` what `_compared` found."""
        self._model, self._folder = model, Path(folder)
        self._decoding, self._words, self._compared = decoding, words, compared

    def save(self, folder: str, workload: Workload) -> None:
        """`folder / ctranslate2`: model.bin, config.json, vocabulary, artefact.json; what else faster-whisper reads."""
        decoding, words = self._decoding, self._words
        record = Artefact(
            runtime=NAME,
            version=ctranslate2.__version__,
            dtype=workload.dtype,
            quantize=workload.quantize,
            loading=loading(decoding, words, self._model.generation_config.num_beams or 1, workload),
            settings={"decoding": decoding.model_dump(mode="json"), "compared": self._compared},
        )
        with artefact.written(folder, record) as place:
            _save(spec_of(self._model), decoding, words, place, compute_type(workload))
            for name in BESIDE if decoding.is_speech else ():
                if (self._folder / name).is_file():
                    shutil.copyfile(self._folder / name, place / name)


class CTranslate2(Converting):
    """OpenNMT's inference engine, on CPUs and NVIDIA GPUs."""

    artefact = NAME
    engine = Engine
    session = staticmethod(session_of)

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
            return self.converted(EAGER.load(folder, workload.in_pytorch(device="cpu")), workload)
        place, record = there
        told = record.settings.get("compared", {})
        return engine_of(place, Decoding.model_validate(record.settings["decoding"]), workload, {"compared": told})

    @contextmanager
    def conversion(self, model: Any, folder: str, workload: Workload, rows: Given | None = None) -> Iterator[Specified]:
        """Its specification, which in float32 writes what eager writes."""
        sizes = sizes_of(spec_of(model))  # first: it refuses a family that the engine cannot say
        decoding = decoding_of(model)
        words = ctranslate2_words.words_for(folder, *sizes, decoding.pad)
        words = ctranslate2_words.with_roles(words, decoding.roles) if decoding.is_speech else words
        yield Specified(model, folder, decoding, words, _compared(model, decoding, words, workload, rows))

    def fingerprint(self, workload: Workload) -> dict[str, Any]:
        """Version, arithmetic, and the environment's switches for both."""
        switches = {k: v for k, v in sorted(os.environ.items()) if k.startswith("CT2_")}
        return {"ctranslate2": ctranslate2.__version__, "compute_type": compute_type(workload), "switches": switches}


RUNTIME = CTranslate2()


def _save(spec: Any, decoding: Decoding, words: Words, folder: Path, precision: str) -> None:
    """The engine's folder; the specification is quantised in place."""
    if decoding.is_speech:
        spec.register_vocabulary(list(words.target))
        spec.config.suppress_ids = [token for ids in decoding.suppressed for token in ids]
        spec.config.suppress_ids_begin = list(decoding.begins_without)
        spec.config.lang_ids = list(decoding.languages)
        spec.config.alignment_heads = [list(pair) for pair in decoding.alignment_heads]
    else:
        spec.register_source_vocabulary(list(words.source))
        spec.register_target_vocabulary(list(words.target))
        [start], [end] = words.written([decoding.start]), words.written(decoding.ends[:1])
        spec.config.decoder_start_token, spec.config.bos_token = start, start
        spec.config.eos_token, spec.config.unk_token = end, words.unknown
    spec.validate()
    spec.optimize(quantization=precision)
    spec.save(str(folder))


def _compared(model: Any, decoding: Decoding, words: Words, workload: Workload, rows: Given | None) -> dict[str, Any]:
    """The same specification in float32 on the CPU, against eager; a quantised one is scored, not compared."""
    plain = workload.model_copy(update={"device": "cpu", "dtype": "float32", "quantize": "none"})
    with tempfile.TemporaryDirectory(prefix="nash-search-ctranslate2-") as folder:
        _save(spec_of(model), decoding, words, Path(folder), "float32")
        engine = engine_of(Path(folder), decoding, plain, {})
    return parity.agreed(model, engine.write, workload, rows, exact_beams=False)
