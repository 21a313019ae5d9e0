"""A latency budget: the upper bound that a user names, in milliseconds or as a share of the dense model's latency.

40         the median of the call is at most 40 ms
50%        ... at most half of the dense model's
40@p95     the 95th percentile over the traffic's requests is at most 40 ms
50%@p99    ... at most half of the dense model's 99th percentile
"""

from __future__ import annotations

import math
import re

from nash_search.recipes import Frozen

MEDIAN, HIGHEST = 50.0, 99.5
"""Percentiles that can be asked for lie between them: p99.5 needs 875 requests."""

_BUDGET = re.compile(
    r"^\s*(?P<number>[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(?P<unit>%|ms)?\s*(?:@\s*[pP](?P<percentile>[0-9.]+))?\s*$"
)


class LatencyBudget(Frozen):
    """An upper bound on latency: milliseconds, or a share of the dense model's latency."""

    asked: str
    """As the user typed it."""
    ms: float | None = None
    share: float | None = None
    """Fraction of the dense model's; judged on the ratio, never as milliseconds."""
    percentile: float = MEDIAN
    """Of the latency over the traffic's requests, candidate and dense model alike; 50 also where one call is timed."""

    @classmethod
    def parse(cls, asked: str | float, percentile: float | None = None) -> LatencyBudget:
        """`40`, `40ms` or `50%`, each with `@p95` behind it.

        Args:
            asked: what the user typed.
            percentile: of a budget that names none (None: the median).

        Raises:
            ValueError: in the user's words, when it is none of these.
        """
        text = str(asked).strip()
        if percentile is not None and "@" not in text:
            text = f"{text}@p{percentile:g}"
        match = _BUDGET.match(text)
        if match is None:
            raise ValueError(f"budget must be milliseconds (40) or a share of dense latency (50%), but got {text!r}")
        number = float(match["number"])
        if not math.isfinite(number) or number <= 0:
            raise ValueError(f"budget must be greater than 0, but got {text!r}")
        at = MEDIAN if match["percentile"] is None else as_percentile(match["percentile"])
        if match["unit"] == "%":
            if number > 100:
                raise ValueError(f"budget must be at most 100% of the dense latency, but got {text!r}")
            return cls(asked=text, share=number / 100, percentile=at)
        return cls(asked=text, ms=number, percentile=at)

    @property
    def bound(self) -> tuple[float | None, float | None, float]:
        """What it is, however it was typed: `50%` and `50.0%` are one."""
        return self.ms, self.share, self.percentile

    def alike(self, bound: str) -> LatencyBudget:
        """Another bound (`45%`, `12`) of the same percentile."""
        _, at, percentile = self.asked.partition("@")
        return LatencyBudget.parse(f"{bound}{at}{percentile.strip()}")

    @property
    def folder(self) -> str:
        """Its name below `best/`: `50pct`, `40ms` or `40ms-p95`."""
        bound = f"{self.ms:g}ms" if self.share is None else f"{round(self.share * 100, 6):g}pct"
        return bound if self.percentile == MEDIAN else f"{bound}-p{self.percentile:g}"

    def share_of(self, dense_ms: float) -> float:
        """The budget as a fraction of a dense latency (milliseconds)."""
        if self.share is not None:
            return self.share
        assert self.ms is not None
        return self.ms / dense_ms

    def ms_at(self, dense_ms: float) -> float:
        """The budget in milliseconds, given the dense latency (milliseconds)."""
        if self.ms is not None:
            return self.ms
        assert self.share is not None
        return self.share * dense_ms


def as_percentile(asked: str | float) -> float:
    """A percentile as users name it: `95`, `p95` or `99.5`.

    Raises:
        ValueError: in the user's words.
    """
    text = str(asked).strip()
    try:
        found = float(text.removeprefix("p").removeprefix("P"))
    except ValueError:
        found = math.nan
    if not MEDIAN <= found <= HIGHEST:
        raise ValueError(f"percentile must be from {MEDIAN:g} to {HIGHEST:g}, but got {text!r}")
    return found
