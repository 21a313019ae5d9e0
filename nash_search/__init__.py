"""nash-search: the best version of your encoder-decoder model that measurably meets a latency budget.

    from nash_search import load_config, search
    result = search(load_config("g2p", {"budgets": ["50%"]}))
    model = load(result.folder / result.best_under("50%").checkpoint)

The public names, imported when first used: `import nash_search` loads neither torch nor Ray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nash_search.lazy import names_of

if TYPE_CHECKING:
    from nash_search.config import Architecture, LatencyBudget, PruningRecipe, SearchConfig, SearchSpace
    from nash_search.config_loader import load_config
    from nash_search.pruner import load, prune
    from nash_search.search import SearchResult, search

_HOMES = {
    "Architecture": "config",
    "LatencyBudget": "config",
    "PruningRecipe": "config",
    "SearchConfig": "config",
    "SearchResult": "search",
    "SearchSpace": "config",
    "load": "pruner",
    "load_config": "config_loader",
    "prune": "pruner",
    "search": "search",
}

__all__ = [
    "Architecture",
    "LatencyBudget",
    "PruningRecipe",
    "SearchConfig",
    "SearchResult",
    "SearchSpace",
    "load",
    "load_config",
    "prune",
    "search",
]


__getattr__ = names_of(__name__, _HOMES)
