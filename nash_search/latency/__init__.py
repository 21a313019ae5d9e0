"""What a millisecond means: workload, paired timing, fresh processes, cache, runtimes.

    measure, measure_many    models already loaded, in this process: the search's own number
    measure_fresh            folders, each round a fresh process: the number that may be signed

Times any model that generates or any folder that loads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nash_search.lazy import names_of

if TYPE_CHECKING:
    from nash_search.latency.fresh import fresh_tokens, measure_fresh
    from nash_search.latency.timing import measure, measure_many

__all__ = ["fresh_tokens", "measure", "measure_fresh", "measure_many"]

_HOMES = {
    "fresh_tokens": "fresh",
    "measure": "timing",
    "measure_fresh": "fresh",
    "measure_many": "timing",
}


__getattr__ = names_of(__name__, _HOMES)
