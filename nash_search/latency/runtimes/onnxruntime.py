"""ONNX Runtime as the serving runtime on CPUs: exported, compared with eager, decoded with cached keys and values.

    PyTorch model -> two graphs -> float32, token for token eager's?  no: refused, the input named
                               -> int8 weights where asked for -> encoder once, decoder per token

The loop around the graphs is `decoding`'s; keys and values stay in the runtime's own memory from step to step.
The graphs are made in `onnxruntime_graphs`; the folder they lie in is one that optimum and transformers.js load.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from nash_search.config import Workload
from nash_search.encoder_rows import Given, rows_of
from nash_search.errors import InvalidInput
from nash_search.families import find_family
from nash_search.latency.runtimes import artefact, decoding, onnxruntime_folder, onnxruntime_graphs, parity
from nash_search.latency.runtimes.conversion import Converting, EngineSession
from nash_search.latency.runtimes.eager import RUNTIME as EAGER
from nash_search.latency.runtimes.onnxruntime_folder import GRAPHS, INT8
from nash_search.latency.runtimes.onnxruntime_graphs import (
    BRANCH,
    CROSS,
    DECODER,
    ENCODER,
    MASK,
    OWN,
    STATES,
    names_of,
)
from nash_search.latency.workload import Inputs
from nash_search.records import Artefact

NAME = "onnxruntime"


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
        present = [found for found in self.decoder.get_outputs() if found.name.startswith("present.")]
        self.blocks, self.shapes = len(present) // 4, [(found.shape[1], found.shape[3]) for found in present]
        """Heads and width of each of the decoder's keys and values."""

    def encode(self, ids_BS: Any, mask_BS: Any, beams: int) -> Batch:
        """One pass of the encoder, each input as often as there are beams."""
        names = {"input_ids": ids_BS, "attention_mask": mask_BS}
        feed = {found.name: names[found.name] for found in self.encoder.get_inputs()}
        [states_BSE] = self.encoder.run(None, feed)
        return Batch(self, states_BSE, mask_BS, beams)

    def write(self, rows: Given, *, beams: int, max_new_tokens: int) -> list[list[int]]:
        """Generated freely, laid out as eager's: start token first, padded behind the end."""
        ids_BS, mask_BS = decoding.padded(rows_of(rows), self.settings.pad)
        found = decoding.search(self.encode(ids_BS, mask_BS, beams), self.settings, len(rows), beams, max_new_tokens)
        return [[int(token) for token in row] for row in found]


class Batch:
    """An encoded batch on its way through the decoder."""

    def __init__(self, engine: Engine, states_BSE: Any, mask_BS: Any, beams: int) -> None:
        rows, self._decoder = len(mask_BS) * beams, engine.decoder
        repeated = [np.repeat(found, beams, 0) if beams > 1 else found for found in (mask_BS, states_BSE)]
        self._fixed = dict(zip((MASK, STATES), map(_value, repeated), strict=True))
        self._own, self._cross = (
            list(
                zip(*(names_of(kind, engine.blocks, (whose,)) for kind in ("present", "past_key_values")), strict=True)
            )
            for whose in (OWN, CROSS)
        )
        names = names_of("past_key_values", engine.blocks)
        empty = [np.zeros((rows, heads, 0, width), np.float32) for heads, width in engine.shapes]
        self._past = {name: _value(array) for name, array in zip(names, empty, strict=True)}
        self._begun = False

    def step(self, tokens_R: Any) -> Any:
        """Logits after each row's next token."""
        feed = {"input_ids": _value(np.ascontiguousarray(tokens_R[:, None])), BRANCH: _value(np.array([self._begun]))}
        said = self._own if self._begun else self._own + self._cross  # the encoder's keys and values are said once
        logits, *found = self._decoder.run_with_ort_values(
            ["logits", *(present for present, _ in said)], feed | self._fixed | self._past
        )
        self._past |= {past: value for (_, past), value in zip(said, found, strict=True)}
        self._begun = True
        return logits.numpy()[:, -1]

    def reorder(self, rows_R: Any) -> None:
        """Row i goes on from what row `rows_R[i]` has been; beams of one input look at the same encoder's states."""
        self._past |= {past: _value(self._past[past].numpy()[rows_R]) for _, past in self._own}


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
        """The encoder alone."""
        return self.engine.encode(self.ids_BS, self.mask_BS, 1)

    def natural(self) -> int:
        """Generate until the model ends by itself (at most its own limit)."""
        return self.generated_tokens(self._run(self.natural_limit, None))

    def _run(self, longest: int, shortest: int | None) -> Any:
        beams, rules = self.workload.beams, self.engine.settings
        batch = self.engine.encode(self.ids_BS, self.mask_BS, beams)
        return decoding.search(batch, rules, len(self.ids_BS), beams, longest, shortest)


class Graphs:
    """A model's float32 ONNX graphs, which agreed with eager; implements `conversion.Conversion`."""

    def __init__(self, model: Any, graphs: Path, folder: str, rules: decoding.Rules, compared: dict[str, Any]) -> None:
        self._model, self._graphs, self._folder = model, graphs, Path(folder)
        self._rules, self._compared = rules, compared

    def save(self, folder: str, workload: Workload) -> None:
        """`folder / onnxruntime`: onnx/, the configurations and tokenizer that loaders ask for, artefact.json."""
        record = Artefact(
            runtime=NAME,
            version=onnxruntime.__version__,
            dtype=workload.dtype,
            quantize=workload.quantize,
            loading=_loading(self._rules, workload.threads),
            settings={"decoding": self._rules.model_dump(mode="json"), "compared": self._compared},
        )
        with artefact.written(folder, record) as place:
            onnxruntime_folder.write(self._model, self._graphs, self._folder, place, quantize=workload.quantize)


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
            return self.converted(EAGER.load(folder, workload.in_pytorch()), workload)
        place, record = there
        rules = decoding.Rules.model_validate(record.settings["decoding"])
        if not (place / GRAPHS / DECODER).is_file():
            what = f"artefact must hold {GRAPHS}/{DECODER}, but {place} is of before and holds other graphs"
            raise InvalidInput(what, fix="export it again")
        return Engine(place / GRAPHS, rules, workload.threads, {"compared": record.settings["compared"]})

    @contextmanager
    def conversion(self, model: Any, folder: str, workload: Workload, rows: Given | None = None) -> Iterator[Graphs]:
        """Its graphs in float32, which write what eager writes."""
        _check(workload)
        family = find_family(model.config.model_type)
        if family is not None:
            family.check_engine(NAME)
        rules, model = decoding.rules_of(model, NAME), EAGER.placed(model, workload.in_pytorch())
        with tempfile.TemporaryDirectory(prefix="nash-search-onnxruntime-") as name:
            graphs = Path(name)
            onnxruntime_graphs.export(model, graphs)
            whole = Engine(graphs, rules, workload.threads, {})
            yield Graphs(model, graphs, folder, rules, parity.agreed(model, whole.write, workload, rows))

    def fingerprint(self, workload: Workload) -> dict[str, Any]:
        """The engine's version, how the decoder's graph is made, and how it quantises."""
        return {
            NAME: onnxruntime.__version__,
            "decoder": "merged",
            **({"int8": INT8} if workload.quantize == "int8" else {}),
        }


RUNTIME = OnnxRuntime()


def _check(workload: Workload) -> None:
    if workload.device != "cpu":
        raise InvalidInput(f"device must be cpu for runtime {NAME}, but got {workload.device}")
    if workload.dtype != "float32":
        raise InvalidInput(f"dtype must be float32 for runtime {NAME}, but got {workload.dtype}")


def _value(array: Any) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _loading(rules: decoding.Rules, threads: int) -> tuple[str, ...]:
    """How to write greedily for one input with the engine alone."""
    first = f"[{rules.start}]" if rules.first is None else f"[{rules.start}, {rules.first}]"
    return (
        "import numpy, onnxruntime, transformers",
        "options = onnxruntime.SessionOptions()",
        f"options.intra_op_num_threads = {threads}",
        f'files = [f"{{folder}}/{NAME}/{GRAPHS}/{{name}}" for name in ("{ENCODER}", "{DECODER}")]',
        "encoder, decoder = (onnxruntime.InferenceSession(file, options) for file in files)",
        "tokenizer = transformers.AutoTokenizer.from_pretrained(folder)",
        'ids = numpy.array([tokenizer("an input").input_ids])',
        "mask = numpy.ones_like(ids)",
        'states = encoder.run(None, {"input_ids": ids, "attention_mask": mask})[0]',
        "names = [i.name for i in decoder.get_inputs() if i.name.startswith('past')]",
        "shapes = [o.shape for o in decoder.get_outputs()[1:]]",
        'past = {n: numpy.zeros((1, s[1], 0, s[3]), "float32") for n, s in zip(names, shapes)}',
        f"found, read = {first}, 0",
        f"while found[-1] not in {list(rules.ends)} and len(found) <= {rules.longest or 64} or read < len(found) - 1:",
        f'    given = {{"{MASK}": mask, "{STATES}": states, "{BRANCH}": numpy.array([read > 0])}}',
        '    logits, *said = decoder.run(None, {"input_ids": numpy.array([[found[read]]]), **given, **past})',
        "    past |= {n: v for n, v in zip(past, said) if len(v)}",
        "    read += 1",
        "    found += [int(logits[0, -1].argmax())] if read == len(found) else []",
        "print(tokenizer.decode(found, skip_special_tokens=True))",
    )
