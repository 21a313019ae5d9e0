"""The search: probe, study, trials, certified answer (see `run`); imported lazily, free of torch and ray."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nash_search.lazy import names_of

if TYPE_CHECKING:
    from nash_search.search.callbacks import Listener, SearchResult, StudyState
    from nash_search.search.run import search
    from nash_search.search.signals import Interrupted

__all__ = ["Interrupted", "Listener", "SearchResult", "StudyState", "search"]

_HOMES = {
    "Interrupted": "signals",
    "Listener": "callbacks",
    "SearchResult": "callbacks",
    "StudyState": "callbacks",
    "search": "run",
}


__getattr__ = names_of(__name__, _HOMES)


class _Room(ModuleType):
    """The package's public function `nash_search.search` and this room share a name: the room answers the call."""

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        return __getattr__("search")(*arguments, **settings)


sys.modules[__name__].__class__ = _Room
