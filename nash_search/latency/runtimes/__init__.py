"""What a serving runtime must offer to be timed: load a folder, build a session, generate, count.

One file per runtime, each with one object called `RUNTIME`; adding a runtime is adding a file and
its row in `nash_search.runtimes`. A session is one model made ready for one workload. Its `generate` is the thing
whose wall time *is* the latency: ids to the device, encoder, exactly N decoder steps, ids back.

A runtime that serves PyTorch models as they are has no artefact (`artefact` is None). An engine does:

    export(torch model, folder) -> folder/<artefact>/   what the engine alone loads
    load(folder)                -> the engine's model   from there, else converted from the checkpoint
    build(either)               -> a session            a PyTorch model is converted first

and every conversion is compared with eager before it is handed out. What is exported is then what is
timed, scored and certified.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol

from nash_search.config import Workload, digest
from nash_search.device import Device
from nash_search.encoder_rows import Given
from nash_search.errors import InvalidInput, NashSearchError
from nash_search.latency.workload import PROTOCOL
from nash_search.runtimes import RUNTIMES

_DEVICE_FIELDS = {"device", "batch_size", "input_tokens", "output_tokens", "beams", "traffic", "row_tokens"}


class WrongOutputLength(NashSearchError):
    """A model generated another number of tokens than the workload says; its time means nothing."""


class Session(Protocol):
    """One model, ready to be timed on one workload."""

    def generate(self) -> Any:
        """The timed call; its output is on the host when it returns."""

    def generated_tokens(self, output: Any) -> int:
        """Decoder steps that an output took."""

    encode: Callable[[], object] | None
    """Runs the encoder alone; None where the engine cannot (its time is then left out, never guessed)."""

    def natural(self) -> int:
        """Generate until the model ends by itself; the longest output's tokens."""

    def weight_bytes(self) -> int:
        """Memory of the weights."""

    def facts(self) -> dict[str, Any]:
        """What a reader may ask about it: `inputs` (random or task), `attention` as it really is."""

    def warnings(self) -> list[str]:
        """What a reader of the number should know about this model."""

    def close(self) -> None:
        """Give the model back as it was."""


class Runtime(Protocol):
    """How models are served; `model` is a PyTorch model or what `load` returned."""

    artefact: str | None
    """Folder, inside a checkpoint's, of what the engine loads by itself (None: it serves the checkpoint)."""
    outside_torch: bool
    """It computes and allocates outside PyTorch: the calling thread's CPU time and PyTorch's allocator miss it."""

    def precisions(self, device: str) -> tuple[tuple[str, str], ...]:
        """(dtype, quantize) pairs it can serve in on a device, for whoever wants to try them all.

        `compile` names none: each takes minutes.
        """

    def load(self, folder: str, workload: Workload) -> Any:
        """A model from a checkpoint folder, on the workload's device, in its precision.

        Where `export` left an artefact of this precision in the folder, that is what is loaded.
        """

    def export(self, model: Any, folder: str, workload: Workload, rows: Given | None = None) -> None:
        """Write `folder / artefact`, with its `records.Artefact` (see `artefact.py`), from a PyTorch model.

        Does nothing where `artefact` is None. The folder need not hold a checkpoint. `rows` are real
        inputs to compare the engine with eager on (None: random ones).

        Raises:
            InvalidInput: the engine cannot say this model, or writes something else than eager.
        """

    def build(self, model: Any, workload: Workload, inputs: Given | None) -> Session:
        """A session; `inputs` are real ones (None: random ones)."""

    def tokens(self, model: Any, rows: Given, *, beams: int, max_new_tokens: int) -> list[list[int]]:
        """What the model generates, token for token, one list per row.

        Laid out as eager's: the decoder's start token first, where the model's `generate` gives it, padded to the
        longest row after the end token.
        """

    def fingerprint(self, workload: Workload) -> dict[str, Any]:
        """Versions and modes that change speed."""


def runtime_of(workload: Workload) -> Runtime:
    """The runtime a workload names.

    Raises:
        InvalidInput: when it is not installed or this version does not have it.
    """
    name, module = workload.runtime, RUNTIMES[workload.runtime].module
    try:
        runtime: Runtime = importlib.import_module(module).RUNTIME
    except ModuleNotFoundError as error:
        known = error.name == module
        absent = f"needs {error.name}, which is not installed: pip install nash-search[{name}]"
        reason = "not in this version" if known else absent
        raise InvalidInput(f"runtime must be one that runs here, but got {name} ({reason})") from None
    return runtime


def fingerprint(device: Device, workload: Workload) -> dict[str, Any]:
    """What a latency was measured on, readable, with a `hash`; equal hashes compare."""
    found = device.fingerprint()
    found |= workload.model_dump(mode="json", exclude=_DEVICE_FIELDS)
    found |= runtime_of(workload).fingerprint(workload)
    found["protocol"] = PROTOCOL
    return found | {"hash": digest(found)[:16]}
