"""ONNX Runtime as the serving runtime on CPUs: exported, compared with eager, decoded with cached keys and values.

    PyTorch model -> two graphs -> float32, token for token eager's?  no: refused, the input named
                               -> int8 weights where asked for -> encoder once, decoder per token

The loop around the graphs is `decoding`'s; keys and values stay in the runtime's own memory from step to step.
The graphs are made in `onnxruntime_graphs`.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from nash_search.config import Workload
from nash_search.errors import InvalidInput
from nash_search.families import LAYOUTS, find_family
from nash_search.latency.runtimes import artefact, decoding, onnxruntime_graphs, parity
from nash_search.latency.runtimes.conversion import Converting, EngineSession
from nash_search.latency.runtimes.eager import RUNTIME as EAGER
from nash_search.latency.runtimes.onnxruntime_graphs import DECODER, ENCODER
from nash_search.latency.workload import Inputs
from nash_search.records import Artefact

NAME = "onnxruntime"
INT8 = "per channel, 7 bits, encoder's second feed-forward matrices in float32"
"""How weights are quantised; part of the fingerprint, since times and qualities of another way do not compare."""


class Engine:
    """Both graphs loaded, and the model's generation settings."""

    def __init__(self, folder: Path, rules: decoding.Rules, threads: int, told: dict[str, Any]) -> None:
        self.settings, self.told = rules, told
        self.warnings: list[str] = []
        self.weight_bytes = sum((folder / name).stat().st_size for name in (ENCODER, DECODER))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.encoder, self.decoder = (
            onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
            for name in (ENCODER, DECODER)
        )
        self.inputs = [found.name for found in self.decoder.get_inputs()]
        self.outputs = [found.name for found in self.decoder.get_outputs()]

    def encode(self, ids_BS: Any, mask_BS: Any, beams: int) -> Batch:
        """One pass of the encoder, each input as often as there are beams."""
        names = {"input_ids": ids_BS, "attention_mask": mask_BS}
        feed = {found.name: names[found.name] for found in self.encoder.get_inputs()}
        return Batch(self, self.encoder.run(None, feed), mask_BS, beams)

    def write(self, rows: Sequence[Sequence[int]], *, beams: int, max_new_tokens: int) -> list[list[int]]:
        """Generated freely, laid out as eager's: start token first, padded behind the end."""
        ids_BS, mask_BS = decoding.padded(rows, self.settings.pad)
        found = decoding.search(self.encode(ids_BS, mask_BS, beams), self.settings, len(rows), beams, max_new_tokens)
        return [[int(token) for token in row] for row in found]


class Batch:
    """An encoded batch on its way through the decoder."""

    def __init__(self, engine: Engine, cross: list[Any], mask_BS: Any, beams: int) -> None:
        self.engine, rows = engine, len(mask_BS) * beams
        repeated = [np.repeat(found, beams, 0) for found in (mask_BS, *cross)] if beams > 1 else [mask_BS, *cross]
        fixed = dict(zip(("attention_mask", *_numbered("cross", cross)), repeated, strict=True))
        self._fixed = {name: _value(array) for name, array in fixed.items() if name in engine.inputs}
        empty = [np.zeros((rows, found.shape[1], 0, found.shape[3]), np.float32) for found in cross]
        self._names = _numbered("past", cross)
        self._past = [_value(array) for array in empty]

    def step(self, tokens_R: Any) -> Any:
        """Logits after each row's next token."""
        feed = {"ids": _value(np.ascontiguousarray(tokens_R[:, None])), **self._fixed}
        feed |= zip(self._names, self._past, strict=True)
        logits, *self._past = self.engine.decoder.run_with_ort_values(self.engine.outputs, feed)
        return logits.numpy()

    def reorder(self, rows_R: Any) -> None:
        """Row i goes on from what row `rows_R[i]` has been."""
        self._past = [_value(found.numpy()[rows_R]) for found in self._past]


class GraphSession(EngineSession):
    """One engine on one workload."""

    def __init__(self, engine: Engine, workload: Workload, inputs: Inputs) -> None:
        super().__init__(engine, workload, inputs)
        self.ids_BS, self.mask_BS = inputs.ids_BL.numpy(), inputs.mask_BL.numpy()

    def generate(self) -> Any:
        """Encoder, exactly N steps; ids in and out are the host's."""
        exactly = self.workload.output_tokens
        return self._run(exactly, exactly)

    def generated_tokens(self, output: Any) -> int:
        """Columns after the decoder's start token."""
        return int(output.shape[1]) - 1

    def encode(self) -> object:
        """The encoder alone, with the keys and values that decoding asks it for."""
        return self.engine.encode(self.ids_BS, self.mask_BS, 1)

    def natural(self) -> int:
        """Generate until the model ends by itself (at most its own limit)."""
        return self.generated_tokens(self._run(self.natural_limit, None))

    def _run(self, longest: int, shortest: int | None) -> Any:
        beams, rules = self.workload.beams, self.engine.settings
        batch = self.engine.encode(self.ids_BS, self.mask_BS, beams)
        return decoding.search(batch, rules, len(self.ids_BS), beams, longest, shortest)


class Graphs:
    """A model's graphs in float32, which have been compared: `converting.Conversion`."""

    def __init__(self, graphs: Path, rules: decoding.Rules, compared: dict[str, Any]) -> None:
        self._graphs, self._rules, self._compared = graphs, rules, compared

    def save(self, folder: str, workload: Workload) -> None:
        """`folder / onnxruntime`: encoder.onnx, decoder.onnx, artefact.json."""
        record = Artefact(
            runtime=NAME,
            version=onnxruntime.__version__,
            dtype=workload.dtype,
            quantize=workload.quantize,
            loading=_loading(self._rules, workload.threads),
            settings={"decoding": self._rules.model_dump(mode="json"), "compared": self._compared},
        )
        with artefact.written(folder, record) as place:
            for file in (ENCODER, DECODER):
                _take_over(self._graphs / file, place / file, workload.quantize)


class OnnxRuntime(Converting):
    """ONNX Runtime on CPUs, float32 or with int8 weights."""

    artefact = NAME
    engine, session = Engine, GraphSession

    def precisions(self, device: str) -> tuple[tuple[str, str], ...]:
        """float32 and int8 weights, on a CPU."""
        return (("float32", "none"), ("float32", "int8")) if device == "cpu" else ()

    def load(self, folder: str, workload: Workload) -> Engine:
        """The folder's artefact where it has one of this precision, else its checkpoint, exported and compared."""
        _check(workload)
        there = artefact.found(folder, NAME, workload)
        if there is None:
            return self.converted(EAGER.load(folder, _plain(workload)), workload)
        place, record = there
        rules = decoding.Rules.model_validate(record.settings["decoding"])
        return Engine(place, rules, workload.threads, {"compared": record.settings["compared"]})

    @contextmanager
    def conversion(
        self, model: Any, folder: str, workload: Workload, rows: Sequence[Sequence[int]] | None = None
    ) -> Iterator[Graphs]:
        """Its graphs in float32, which write what eager writes."""
        _check(workload)
        family = find_family(model.config.model_type)
        if family is not None:
            family.check_engine(NAME)
        rules, model = decoding.rules_of(model, NAME), EAGER.placed(model, _plain(workload))
        with tempfile.TemporaryDirectory(prefix="nash-search-onnxruntime-") as name:
            graphs = Path(name)
            onnxruntime_graphs.export(model, graphs)
            whole = Engine(graphs, rules, workload.threads, {})
            yield Graphs(graphs, rules, parity.agreed(model, whole.write, workload, rows))

    def fingerprint(self, workload: Workload) -> dict[str, Any]:
        """The engine's version, and how it quantises."""
        return {NAME: onnxruntime.__version__, **({"int8": INT8} if workload.quantize == "int8" else {})}


RUNTIME = OnnxRuntime()


def _check(workload: Workload) -> None:
    if workload.device != "cpu":
        raise InvalidInput(f"device must be cpu for runtime {NAME}, but got {workload.device}")
    if workload.dtype != "float32":
        raise InvalidInput(f"dtype must be float32 for runtime {NAME}, but got {workload.dtype}")


def _plain(workload: Workload) -> Workload:
    """What a model is exported from."""
    return workload.model_copy(update={"dtype": "float32", "quantize": "none", "runtime": "eager"})


def _take_over(source: Path, target: Path, quantize: str) -> None:
    """One graph as it is, or with its matrices of weights in int8.

    One scale per output channel, in 7 of the 8 bits: without VNNI a CPU adds two products of 8 bits each in 16, which
    saturates. The encoder's second feed-forward matrices stay in float32: what they
    read has a few values hundreds of times larger than the rest, and one scale holds them all. On Flan-T5-small this
    keeps the quality where all matrices in int8 keep two thirds of it (results/LOG.md, 2026-11-27).
    """
    if quantize == "none":
        try:
            os.link(source, target)
        except OSError:  # on another disk, or one without links
            shutil.copyfile(source, target)
        return
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    names = [node.name for node in onnx.load(source).graph.node if node.op_type == "MatMul"]
    wide = [name for name in names if any(f"/{layout.ffn_out}/" in name for layout in LAYOUTS)]
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)  # it advises a preprocessing that changes nothing here, on the root logger
    try:
        quantize_dynamic(
            source,
            target,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=wide if source.name == ENCODER else [],
        )
    finally:
        logger.setLevel(before)


def _value(array: Any) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _numbered(name: str, items: Sequence[Any]) -> list[str]:
    return [f"{name}_{i}" for i in range(len(items))]


def _loading(rules: decoding.Rules, threads: int) -> tuple[str, ...]:
    """How to write greedily for one input with the engine alone."""
    first = f"[{rules.start}]" if rules.first is None else f"[{rules.start}, {rules.first}]"
    return (
        "import numpy, onnxruntime, transformers",
        "options = onnxruntime.SessionOptions()",
        f"options.intra_op_num_threads = {threads}",
        f'files = [f"{{folder}}/{NAME}/{{name}}" for name in ("{ENCODER}", "{DECODER}")]',
        "encoder, decoder = (onnxruntime.InferenceSession(file, options) for file in files)",
        "tokenizer = transformers.AutoTokenizer.from_pretrained(folder)",
        'ids = numpy.array([tokenizer("an input").input_ids])',
        "mask = numpy.ones_like(ids)",
        'cross = encoder.run(None, {"input_ids": ids, "attention_mask": mask})',
        'past = [numpy.zeros((1, k.shape[1], 0, k.shape[3]), "float32") for k in cross]',
        "names = [i.name for i in decoder.get_inputs()]",
        f"found, read = {first}, 0",
        f"while found[-1] not in {list(rules.ends)} and len(found) <= {rules.longest or 64} or read < len(found) - 1:",
        "    values = [numpy.array([[found[read]]]), mask, *past, *cross]",
        "    logits, *past = decoder.run(None, dict(zip(names, values)))",
        "    read += 1",
        "    found += [int(logits[0].argmax())] if read == len(found) else []",
        "print(tokenizer.decode(found, skip_special_tokens=True))",
    )
