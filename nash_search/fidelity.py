"""How much of its quality a model keeps as an engine serves it, compared with the same weights in float32.

Tokens cannot decide it where the arithmetic differs, so quality does, on the same examples.
"""

from __future__ import annotations

import math

from nash_search import pareto
from nash_search.config import Frozen
from nash_search.intervals import chance_difference
from nash_search.records import Quality

KEPT_SHARE = 0.97
"""Least share of its float twin's quality that a served model must keep."""


class Fidelity(Frozen):
    """A served model against its float twin: the same weights in PyTorch's float32, on the same examples."""

    served: Quality
    """What the serving engine writes, in its own precision and with its own search."""
    twin: Quality
    """What PyTorch writes in float32."""

    @property
    def n(self) -> int:
        """Examples that both were scored on."""
        return self.served.n

    @property
    def share(self) -> float:
        """Part of the twin's quality that is kept; 1 loses nothing, also where lower values are better."""
        direction = self.twin.direction
        worse = pareto.loss(self.served.value, direction) - pareto.loss(self.twin.value, direction)
        if self.twin.value == 0:
            return 1.0 if worse <= 0 else -math.inf
        return 1 - worse / abs(self.twin.value)

    @property
    def holds(self) -> bool:
        """Whether enough is kept for the served model to pass for its twin."""
        return self.share >= KEPT_SHARE

    @property
    def by_chance(self) -> bool:
        """Whether the examples alone may explain the loss: at most two standard errors of the difference."""
        lost = abs(self.twin.value - self.served.value)
        return lost <= chance_difference(self.twin.standard_error, self.served.standard_error)

    @property
    def words(self) -> str:
        """`rougeL 3.15 of float32's 34.95 (9.0 %) on 512 examples`."""
        share = f"{self.share:.1%}" if math.isfinite(self.share) else "none"
        values = f"{self.served.value:.4g} of float32's {self.twin.value:.4g}"
        return f"{self.twin.metric} {values} ({share}) on {self.n} examples"
