"""torch.compile with a static cache: on CUDA as CUDA graphs, on a CPU through inductor.

On CUDA `generate` itself compiles its decoding step when the cache is static (mode `reduce-overhead`, that is CUDA
graphs); on a CPU it does not, so the model's forward is wrapped. Compilation belongs to building a session, never to
a timed call. It takes minutes per model: for a final report, not for a search.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.utils import counters
from transformers import CompileConfig

from nash_search.config import Workload
from nash_search.encoder_rows import Given
from nash_search.errors import InvalidInput
from nash_search.families import find_family
from nash_search.latency.runtimes.eager import Eager, EagerSession
from nash_search.latency.workload import Inputs

COMPILING_CALLS = 3
"""Calls after which the graph of every step exists and is replayed."""
SETTINGS: dict[str, Any] = {"backend": "inductor", "fullgraph": True}
"""A full graph or an error: else what the compiler gives up would run in eager mode, unsaid."""


class CompiledSession(EagerSession):
    """An eager session whose decoding steps are compiled before it is handed out."""

    def __init__(self, model: Any, workload: Workload, inputs: Inputs, given: Any = None) -> None:
        family = find_family(model.config.model_type)
        if family is not None and not family.static_cache:
            what = f"runtime must be one without a static cache for {family.model_type}, but got compile"
            raise InvalidInput(what, fix="with one, transformers reads what is not written yet; --runtime eager")
        super().__init__(model, workload, inputs, given)
        self.forced.update(cache_implementation="static")
        self.free.update(cache_implementation="static", max_new_tokens=workload.output_tokens)  # the compiled length
        self._ready = False
        own = _with_own_code(type(model).forward, model)
        if workload.device.startswith("cuda"):
            compiled = torch.compile(own, **(CompileConfig().to_dict() | SETTINGS))
            self._set, call = "get_compiled_call", lambda _config: compiled  # where `generate` asks for it
        else:
            self._set, call = "forward", torch.compile(own, dynamic=False, **SETTINGS)
        setattr(model, self._set, call)
        before = _graphs()
        try:
            for _ in range(COMPILING_CALLS):
                self.generate()
        except Exception as error:
            self.close()
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InvalidInput(
                f"runtime compile must be able to compile {type(model).__name__}, but got: {first}"
            ) from error
        if _graphs() == before:
            self.close()
            raise InvalidInput(f"runtime compile must compile {type(model).__name__}, but got no graph of it")
        self._ready = True

    def generate(self) -> torch.Tensor:
        """The timed call; refused where anything was compiled in it."""
        before = _graphs()
        output = super().generate()
        if self._ready and _graphs() != before:
            raise InvalidInput("runtime compile must time what is compiled already, but got a recompilation")
        return output

    def close(self) -> None:
        """Take the compiled call off again."""
        vars(self.model).pop(self._set, None)
        super().close()


def _with_own_code(function: Callable[..., Any], model: Any) -> Callable[..., Any]:
    """A method of the model whose code object no other model has.

    The compiler keeps its graphs by code object, at most 8, and runs what comes after in eager mode without an error.
    All models share transformers' code, so the fifth model of a process would be timed uncompiled.
    """
    own = types.FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    own.__kwdefaults__ = function.__kwdefaults__
    return types.MethodType(own, model)


def _graphs() -> int:
    """Graphs that this process has compiled so far."""
    return int(counters["stats"]["unique_graphs"])


class Compiled(Eager):
    """PyTorch with a compiler."""

    def precisions(self, device: str) -> tuple[tuple[str, str], ...]:
        """None to try beside others: each takes minutes."""
        return ()

    def build(self, model: Any, workload: Workload, inputs: Given | None) -> CompiledSession:
        """Compiled for exactly this workload's shapes."""
        placed = self.placed(model, workload)
        return CompiledSession(placed, workload, self.inputs(placed, workload, inputs), given=model)

    def fingerprint(self, workload: Workload) -> dict[str, Any]:
        """How it is compiled."""
        mode = "reduce-overhead (CUDA graphs)" if workload.device.startswith("cuda") else "default"
        return {"compile_mode": mode, "cache": "static", "graphs": "of each model"}


RUNTIME = Compiled()
