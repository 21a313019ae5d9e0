"""torch.compile with a static cache: on CUDA as CUDA graphs, on a CPU through inductor.

On CUDA `generate` itself compiles its decoding step when the cache is static (mode
`reduce-overhead`, that is CUDA graphs); on a CPU it does not, so the model's forward is wrapped.
Compilation belongs to building a session, never to a timed call. Takes minutes per shape: for a
final report, not for a search. This module refuses to know clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nash_search.config import Workload
from nash_search.errors import InvalidInput
from nash_search.latency.eager import Eager, EagerSession
from nash_search.latency.workload import Inputs

COMPILING_CALLS = 3
"""Calls after which the graph of every step exists and is replayed."""


class CompiledSession(EagerSession):
    """An eager session whose decoding steps are compiled before it is handed out."""

    def __init__(self, model: Any, workload: Workload, inputs: Inputs) -> None:
        super().__init__(model, workload, inputs)
        self.forced.update(cache_implementation="static")
        self.free.update(cache_implementation="static", max_new_tokens=workload.output_tokens)  # the compiled length
        self._wrapped = not workload.device.startswith("cuda")
        if self._wrapped:
            model.forward = torch.compile(model.forward, dynamic=False)
        try:
            for _ in range(COMPILING_CALLS):
                self.generate()
        except Exception as error:
            self.close()
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InvalidInput(
                f"runtime compile must be able to compile {type(model).__name__}, but got: {first}"
            ) from error

    def close(self) -> None:
        """Take the compiled forward off again."""
        if self._wrapped and "forward" in vars(self.model):
            del self.model.forward
        super().close()


class Compiled(Eager):
    """PyTorch with a compiler."""

    def build(self, model: Any, workload: Workload, inputs: Sequence[Sequence[int]] | None) -> CompiledSession:
        """Compiled for exactly this workload's shapes."""
        model = self.placed(model, workload)
        return CompiledSession(model, workload, self.inputs(model, workload, inputs))

    def fingerprint(self, workload: Workload) -> dict[str, Any]:
        """How it is compiled."""
        mode = "reduce-overhead (CUDA graphs)" if workload.device.startswith("cuda") else "default"
        return {"compile_mode": mode, "cache": "static"}


RUNTIME = Compiled()
