"""What `measure` is asked of requests as they come: which traffic, and which percentile of it.

--percentile 95, --budget-ms 40@p95    a percentile needs a traffic: --traffic data, unless another is named
--traffic data                         lengths of the inputs and references that --data names
--traffic FILE                         of a server's log, or of texts (`tasks.traffic`)
--traffic fixed                        none: one call of the workload's lengths, as without any of these
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nash_search.budget import MEDIAN, as_percentile
from nash_search.config import Frozen, LatencyBudget, SearchConfig
from nash_search.errors import InvalidInput
from nash_search.tasks import models
from nash_search.tasks.traffic import of_file
from nash_search.traffic import DATA, FIXED, Traffic

REQUESTS = 88
"""Requests of a round, unless others are asked for: five rounds have the 437 that p99 needs."""
PAIRS = 40
"""Pairs of a round of one call."""


class Asked(Frozen):
    """One number of a checkpoint."""

    budget: LatencyBudget | None = None
    percentile: float = MEDIAN
    traffic: str = FIXED
    """`data`, `fixed` or a file."""

    @property
    def of_data(self) -> bool:
        """Requests are those of the user's data."""
        return self.traffic == DATA

    @property
    def pairs(self) -> int:
        """Of a round, where nothing else is asked."""
        return PAIRS if self.traffic == FIXED else REQUESTS


def asked_of(budgets: Sequence[str], percentile: str | None, traffic: str | None) -> Asked:
    """What the flags say together.

    Args:
        budgets: as typed, each with a percentile of its own or not.
        percentile: of a budget that has none.
        traffic: as typed.

    Raises:
        InvalidInput: in the flags' own names.
    """
    if len(budgets) > 1:
        raise InvalidInput(f"budget must be given at most once, but got {len(budgets)}", where="--budget-ms")
    wanted, budget = MEDIAN if percentile is None else _percentile(percentile), None
    for text in budgets:
        named = text if percentile is None or "@" in text else f"{text}@p{wanted:g}"
        try:
            budget = LatencyBudget.parse(named)
        except ValueError as error:
            raise InvalidInput(str(error), where="--budget-ms") from None
        wanted = budget.percentile
    of_requests = percentile is not None or (budget is not None and "@" in budget.asked)
    kind = traffic or (DATA if of_requests else FIXED)
    if kind == FIXED and wanted != MEDIAN:
        what = f"traffic must be data or a file where p{wanted:g} is asked, but got fixed"
        raise InvalidInput(what, where="--traffic", fix="one call of fixed lengths has its median alone")
    return Asked(budget=budget, percentile=wanted, traffic=kind)


def _percentile(asked: str) -> float:
    try:
        return as_percentile(asked)
    except ValueError as error:
        raise InvalidInput(str(error), where="--percentile") from None


def traffic_of(asked: Asked, config: SearchConfig, timed: Mapping[Path, Mapping[str, Any]]) -> Traffic | None:
    """The requests of a file; None where they are of the data, which are not loaded yet, or where there are none.

    Args:
        asked: which traffic.
        config: columns and prefix of texts.
        timed: what is timed on it, each with its config.json: the first one's tokenizer counts texts.

    Raises:
        InvalidInput: the file is none, or holds what a model cannot take.
    """
    if asked.traffic == FIXED:
        return None
    for name in ("input_tokens", "output_tokens"):
        given = getattr(config.workload, name)
        if given is not None:
            what = f"{name} must be left out where requests have their own lengths, but got {given}"
            raise InvalidInput(what, where=f"--{name.replace('_', '-')}", fix="or give --traffic fixed")
    if asked.of_data:
        return None
    limits = [limit for each in timed.values() if (limit := models.positions(each)) is not None]
    first = next(iter(timed))

    def tokenizer() -> Any:
        return models.load_tokenizer(models.vet(first))

    return of_file(Path(asked.traffic), config.task, tokenizer, min(limits, default=None))
