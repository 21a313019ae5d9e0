"""A latency budget: the upper bound that a user names, in milliseconds or as a share of the dense model's latency."""

from __future__ import annotations

import math
import re

from nash_search.recipes import Frozen

_BUDGET = re.compile(r"^\s*(?P<number>[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(?P<unit>%|ms)?\s*$")


class LatencyBudget(Frozen):
    """An upper bound on latency: milliseconds, or a share of the dense model's latency."""

    asked: str
    """As the user typed it."""
    ms: float | None = None
    share: float | None = None
    """Fraction of the dense median; judged on the paired ratio, never as milliseconds."""

    @classmethod
    def parse(cls, asked: str | float) -> LatencyBudget:
        """`40`, `40ms` or `50%`.

        Raises:
            ValueError: in the user's words, when it is none of these.
        """
        text = str(asked).strip()
        match = _BUDGET.match(text)
        if match is None:
            raise ValueError(f"budget must be milliseconds (40) or a share of dense latency (50%), but got {text!r}")
        number = float(match["number"])
        if not math.isfinite(number) or number <= 0:
            raise ValueError(f"budget must be greater than 0, but got {text!r}")
        if match["unit"] == "%":
            if number > 100:
                raise ValueError(f"budget must be at most 100% of the dense latency, but got {text!r}")
            return cls(asked=text, share=number / 100)
        return cls(asked=text, ms=number)

    @property
    def folder(self) -> str:
        """Its name below `best/`: `50pct` or `40ms`."""
        return f"{self.ms:g}ms" if self.share is None else f"{round(self.share * 100, 6):g}pct"

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
