"""The search: probe, study, trials, certified answer (see `run`); imported lazily, free of torch and ray."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nash_search.search.listener import Listener, StudyState
    from nash_search.search.run import SearchResult, search
    from nash_search.search.signals import Interrupted

__all__ = ["Interrupted", "Listener", "SearchResult", "StudyState", "search"]

_HOMES = {
    "Interrupted": "signals",
    "Listener": "listener",
    "SearchResult": "run",
    "StudyState": "listener",
    "search": "run",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Room(ModuleType):
    """The package's public function `nash_search.search` and this room share a name: the room answers the call."""

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        return __getattr__("search")(*arguments, **settings)


sys.modules[__name__].__class__ = _Room
