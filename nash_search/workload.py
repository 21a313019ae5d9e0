"""What is timed: the whole `generate` call, or the requests of a traffic; resolved, and as the user asked for it."""

from __future__ import annotations

import re
from statistics import mean
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from nash_search.budget import as_percentile
from nash_search.recipes import Frozen, Knobs
from nash_search.runtimes import ENGINES, Runtime
from nash_search.traffic import MOST, Request, Traffic

_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?")


class Workload(Frozen):
    """The `generate` call whose wall time is the latency: always the same one, or the requests of a traffic."""

    device: str = "cpu"
    """`cpu` or `cuda:N`, resolved."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    threads: int = Field(default=1, ge=1)
    """CPU threads of the timed process."""
    batch_size: int = Field(default=1, ge=1)
    input_tokens: int = Field(ge=1)
    """Encoder input length after padding; the median request's where there is a traffic."""
    output_tokens: int = Field(ge=1)
    """Decoder steps, forced exactly; the median request's where there is a traffic."""
    beams: int = Field(default=1, ge=1)
    attention: str = "sdpa"
    runtime: Runtime = "eager"
    quantize: Literal["none", "int8"] = "none"
    traffic: Traffic | None = None
    """The requests whose percentile is the latency, each with its own lengths; None: one call of these lengths."""
    row_tokens: tuple[int, ...] = ()
    """Encoder input length of each row of a padded batch (empty: all have `input_tokens`)."""

    @model_serializer(mode="wrap")
    def _said_where_there_are_any(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave `traffic` and `row_tokens` out of the JSON where unset, so that older workloads keep their digests."""
        found: dict[str, Any] = plain(self)
        left_out = {"traffic": self.traffic is None, "row_tokens": not self.row_tokens}
        return {k: v for k, v in found.items() if not left_out.get(k)}

    @property
    def units(self) -> Literal["pairs", "requests", "batches"]:
        """What a measurement counts: pairs of the same call, requests, or batches of them."""
        if self.traffic is None:
            return "pairs"
        return "requests" if self.batch_size == 1 else "batches"

    @property
    def longer(self) -> float:
        """How many times the call of median lengths a request, or a batch of them, decodes on average."""
        if self.traffic is None:
            return 1.0
        return mean(call.output_tokens for call in self.calls(MOST, 0)) / self.output_tokens

    def calls(self, count: int, turn: int) -> tuple[Workload, ...]:
        """The fixed calls that one round times in turn: this one, or the requests that it draws of the traffic.

        A batch of requests is padded as a server pads it: inputs to the longest, and all rows are decoded until the
        longest output has ended.

        Args:
            count: requests of a round, or batches of them.
            turn: which round.
        """
        if self.traffic is None:
            return (self,)
        return tuple(map(self._padded, self.traffic.batches(count, turn, self.batch_size)))

    def _padded(self, requests: tuple[Request, ...]) -> Workload:
        read, written = zip(*requests, strict=True)
        lengths = {"input_tokens": max(read), "output_tokens": max(written)}
        return self.model_copy(update={"traffic": None, **lengths, "row_tokens": read if len(set(read)) > 1 else ()})

    def in_pytorch(self, dtype: str = "float32", device: str | None = None) -> Workload:
        """The same call by PyTorch in eager mode, nothing quantised.

        Args:
            dtype: of the weights.
            device: where (None: the call's own).
        """
        plain = {"runtime": "eager", "quantize": "none", "dtype": dtype, "device": device or self.device}
        return self.model_copy(update=plain)

    @property
    def weights_dtype(self) -> Literal["float32", "bfloat16", "float16"]:
        """Precision of the exported weights: what PyTorch times; float32 beside an engine's own files."""
        return "float32" if self.runtime in ENGINES else self.dtype


def _as_percentile(asked: Any) -> Any:
    return as_percentile(asked) if isinstance(asked, str | int | float) and not isinstance(asked, bool) else asked


class WorkloadRequest(Knobs):
    """What the user fixed of the workload; None means "from the task's data and the teacher"."""

    device: str = "auto"
    """Device to train and time on."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Precision of the timed model."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """CPU threads of the timed process."""
    batch_size: int | None = Field(default=None, ge=1, le=8192)
    """Sequences per generate call."""
    input_tokens: int | None = Field(default=None, ge=1, le=65_536)
    """Encoder tokens after padding (default: the data's median)."""
    output_tokens: int | None = Field(default=None, ge=1, le=16_384)
    """Decoder steps, forced exactly (default: the references' median)."""
    beams: int | None = Field(default=None, ge=1, le=64)
    """Beams (default: the teacher's generation config)."""
    runtime: Runtime = "eager"
    """What runs the model; ctranslate2 and onnxruntime come with nash-search[ctranslate2,onnxruntime]."""
    quantize: Literal["none", "int8"] = "none"
    """Quantisation, where the runtime has it."""
    traffic: str | None = None
    """Requests: data (your data's lengths; the default of a percentile), fixed (one call), or a JSONL log."""
    percentile: Annotated[float | None, BeforeValidator(_as_percentile)] = None
    """Percentile over requests of a budget that names none (40@p95 does)."""

    @field_validator("device")
    @classmethod
    def _check_device(cls, value: str) -> str:
        if not _DEVICE.fullmatch(value):
            raise ValueError(f"device must be auto, cpu, cuda or cuda:N, but got {value!r}")
        return value
