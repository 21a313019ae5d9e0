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
from nash_search.percentiles import requests_needed
from nash_search.tasks import models
from nash_search.tasks.traffic import of_file
from nash_search.traffic import DATA, FIXED, Traffic

REQUESTS = 70
"""Requests of a round, unless a percentile needs more: they take about twice the time of `PAIRS`."""
PAIRS = 40
"""Pairs of a round of one call."""


class Asked(Frozen):
    """Which number of a checkpoint is shown, and what it is judged by."""

    budgets: tuple[LatencyBudget, ...] = ()
    """Each is judged at its own percentile, by the same samples."""
    percentile: float = MEDIAN
    """That is shown first: the first budget's."""
    traffic: str = FIXED
    """`data`, `fixed` or a file."""

    @property
    def highest(self) -> float:
        """Of all percentiles that are asked for the one that needs most requests."""
        return max([self.percentile, *(b.percentile for b in self.budgets)])

    @property
    def of_data(self) -> bool:
        """Requests are those of the user's data."""
        return self.traffic == DATA

    def pairs(self, rounds: int) -> int:
        """Of each of so many rounds, where nothing else is asked."""
        return PAIRS if self.traffic == FIXED else max(REQUESTS, -(-requests_needed(self.highest) // rounds))


def asked_of(budgets: Sequence[str], percentile: str | None, traffic: str | None) -> Asked:
    """What the flags say together.

    Args:
        budgets: as typed, each with a percentile of its own or not.
        percentile: of a budget that has none.
        traffic: as typed.

    Raises:
        InvalidInput: in the flags' own names.
    """
    default = None if percentile is None else _percentile(percentile)
    parsed: list[LatencyBudget] = []
    for text in dict.fromkeys(budgets):
        try:
            parsed.append(LatencyBudget.parse(text if default is None or "@" in text else f"{text}@p{default:g}"))
        except ValueError as error:
            raise InvalidInput(str(error), where="--budget-ms") from None
    wanted = parsed[0].percentile if parsed else MEDIAN if default is None else default
    found = Asked(budgets=tuple(parsed), percentile=wanted)
    of_requests = percentile is not None or any("@" in b.asked for b in parsed)
    kind = traffic or (DATA if of_requests else FIXED)
    if kind == FIXED and found.highest != MEDIAN:
        what = f"traffic must be data or a file where p{found.highest:g} is asked, but got fixed"
        raise InvalidInput(what, where="--traffic", fix="one call of fixed lengths has its median alone")
    return found.model_copy(update={"traffic": kind})


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
