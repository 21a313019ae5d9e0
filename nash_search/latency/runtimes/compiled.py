"""torch.compile with a static cache: on CUDA as CUDA graphs, on a CPU through inductor.

On CUDA `generate` itself compiles its decoding step when the cache is static (mode `reduce-overhead`, that is CUDA
graphs); on a CPU it does not, so the model's forward is wrapped. Compilation belongs to building a session, never to
a timed call. It takes minutes per model: for a final report, not for a search.

`generate` makes a new cache at each call, whose tensors lie elsewhere, so that graphs are recorded again. A session has
one cache, filled outside the compiler before anything is compiled (transformers#48199: one that is made inside a graph
is overwritten by the next), and a timed call in which a graph is recorded is refused.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._dynamo.callback import CallbackArgs, CallbackTrigger, callback_handler
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
        self.cache, self._call = HeldCache(model), "get_compiled_call"
        model._prepare_static_cache = self.cache  # where `generate` asks for one
        model.get_compiled_call = lambda _config: model  # where it asks, on CUDA, for what it may compile
        super().generate()
        del model.get_compiled_call
        own = _with_own_code(type(model).forward, model)
        if workload.device.startswith("cuda"):
            compiled = torch.compile(own, **(CompileConfig().to_dict() | SETTINGS))
            self._call, call = "get_compiled_call", lambda _config: compiled
        else:
            self._call, call = "forward", torch.compile(own, dynamic=False, **SETTINGS)
        setattr(model, self._call, call)
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
        with recordings() as recorded:
            output = super().generate()
        if self._ready and _graphs() != before:
            raise InvalidInput("runtime compile must time what is compiled already, but got a recompilation")
        if self._ready and recorded:
            what = f"runtime compile must replay recorded CUDA graphs of {type(self.model).__name__}"
            raise InvalidInput(f"{what}, but got {len(recorded)} recorded in a timed call", fix="use --runtime eager")
        return output

    def facts(self) -> dict[str, Any]:
        """And that no timed call recorded a graph: one that did was refused."""
        return super().facts() | {"recorded_in_calls": 0}

    def close(self) -> None:
        """Take the compiled call and the cache off again."""
        for name in ("_prepare_static_cache", self._call):
            vars(self.model).pop(name, None)
        super().close()


class HeldCache:
    """In the place of a model's `_prepare_static_cache`: one cache for all calls, emptied where it lies."""

    def __init__(self, model: Any) -> None:
        self._make = type(model)._prepare_static_cache.__get__(model)
        self._kept: Any = None
        self.layers: list[Any] = []
        """Layers of the self-attention cache, then of the cross-attention cache."""

    def __call__(self, *given: Any, **named: Any) -> Any:
        made = self._make(*given, **named)  # without tensors yet
        layers = [*made.self_attention_cache.layers, *made.cross_attention_cache.layers]
        if [layer.max_cache_len for layer in layers] == [layer.max_cache_len for layer in self.layers]:
            self._kept.reset()
            return self._kept
        for layer in layers:
            layer.reorder_cache = types.MethodType(_reorder_in_place, layer)
        self._kept, self.layers = made, layers
        return made


def _reorder_in_place(layer: Any, beam_idx: torch.Tensor) -> None:
    """Reorder a cache layer's beams inside its own tensors.

    transformers' own method replaces the tensors, and a recorded graph would go on with the old ones.
    """
    for tensor in (layer.keys, layer.values):
        tensor.copy_(tensor.index_select(0, beam_idx.to(tensor.device)))


@contextmanager
def recordings() -> Iterator[list[str]]:
    """CUDA graphs that are recorded inside, by the compiler's number of what they are of."""
    found: list[str] = []

    def told(begun: CallbackArgs) -> None:
        if begun.callback_trigger is CallbackTrigger.CUDAGRAPH_RECORDING:
            found.append(begun.compile_id)

    callback_handler.register_start_callback(told)
    try:
        yield found
    finally:
        callback_handler.remove_start_callback(told)


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
