"""What may serve a model: one row per runtime, said without importing any of them.

A new one is its row here and its module in `nash_search.latency.runtimes`; an engine of its own package is an extra of
`pyproject.toml` too. It is taken to serve every family whose row in `nash_search.families` names no engines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Runtime = Literal["eager", "compile", "ctranslate2", "onnxruntime"]


@dataclass(frozen=True, kw_only=True)
class Served:
    """A runtime as everybody but its own module knows it."""

    words: str
    """Its name for people."""
    module: str
    """Holds its `RUNTIME`."""
    needs: tuple[str, ...] = ()
    """What the extra of its name installs; nothing: it comes with PyTorch."""


_ROOM = "nash_search.latency.runtimes"
RUNTIMES: dict[str, Served] = {
    "eager": Served(words="PyTorch", module=f"{_ROOM}.eager"),
    "compile": Served(words="torch.compile", module=f"{_ROOM}.compiled"),
    "ctranslate2": Served(words="CTranslate2", module=f"{_ROOM}.ctranslate2", needs=("ctranslate2",)),
    "onnxruntime": Served(words="ONNX Runtime", module=f"{_ROOM}.onnxruntime", needs=("onnxruntime", "onnx")),
}
ENGINES = tuple(name for name, row in RUNTIMES.items() if row.needs)
"""Runtimes outside PyTorch."""
