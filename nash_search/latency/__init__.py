"""What a millisecond means: workload, paired timing, fresh processes, cache, runtimes.

    measure, measure_many    models already loaded, in this process: the search's own number
    measure_fresh            folders, each round a fresh process: the number that may be signed

Times any model that generates or any folder that loads; refuses to know pruning, tasks and searches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nash_search.latency.fresh import fresh_tokens, measure_fresh
    from nash_search.latency.identity import identities
    from nash_search.latency.timing import measure, measure_many

__all__ = ["fresh_tokens", "identities", "measure", "measure_fresh", "measure_many"]

_HOMES = {
    "fresh_tokens": "fresh",
    "identities": "identity",
    "measure": "timing",
    "measure_fresh": "fresh",
    "measure_many": "timing",
}


def __getattr__(name: str) -> Any:
    """Public names, loaded on use: torch stays out of `--help`."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
