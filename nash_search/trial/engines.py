"""The dense model, nothing pruned, on every engine that is installed: what was found, and what meets a budget.

How it is tried stands in `dense_engines`.
"""

from __future__ import annotations

from typing import Literal

from nash_search import intervals
from nash_search.config import Frozen, Workload
from nash_search.fidelity import KEPT_SHARE
from nash_search.latency_record import Latency
from nash_search.records import Quality


class DenseOnEngine(Frozen):
    """The dense model on one runtime in one precision."""

    workload: Workload
    """The asked call, on this runtime."""
    latency: Latency | None = None
    """Paired with the dense model on the asked runtime; None: see `reason`."""
    quality: Quality | None = None
    """Of what it writes on the first validation examples; None where that would have taken too long."""
    kept: float | None = None
    """That quality, of the float dense model's on the same examples (1: all of it)."""
    reason: str = ""
    """Why it has no latency."""
    refused: bool = False
    """It cannot serve this model at all; otherwise another try may tell more."""

    def verdict(self, share: float, margin: float = 0.0) -> Literal["met", "missed", "ambiguous"]:
        """Would a certificate say that it meets this share of the dense latency?

        An estimate: one process timed it, so this is no certificate.

        Args:
            share: of the dense latency on the asked runtime.
            margin: how far below it (fraction) a certificate wants the median; between the two it is ambiguous.
        """
        if self.latency is None or not self.latency.ratio <= share:
            return "missed"
        clear = self.latency.ratio <= share * (1 - margin)
        return "met" if clear and intervals.verdict(self.latency.ratio_bounds, share) == "met" else "ambiguous"


class Engines(Frozen):
    """The dense model on every runtime installed here but the one that was asked for."""

    tried: tuple[DenseOnEngine, ...] = ()
    absent: tuple[str, ...] = ()
    """Extras that would bring more."""
    reference: Quality | None = None
    """The float dense model on the same examples."""
    seconds: float = 0.0
    remembered: bool = False
    """Taken from a probe or search of before."""

    def at(self, percentile: float) -> Engines:
        """The same timings, of which another percentile over the requests is the number."""
        tried = [
            e if e.latency is None else e.model_copy(update={"latency": e.latency.at(percentile)}) for e in self.tried
        ]
        return self.model_copy(update={"tried": tuple(tried)})

    @property
    def whole(self) -> bool:
        """Nothing was left out for want of time, so that it need not be tried again."""
        return self.reference is not None and all(e.refused or e.quality is not None for e in self.tried)

    def answer(self, share: float, margin: float = 0.0, max_drop_pct: float | None = None) -> DenseOnEngine | None:
        """What meets a share of the dense latency with nothing pruned, else what may: most quality, then fastest.

        Args:
            share: of the dense latency on the asked runtime.
            margin: as of `DenseOnEngine.verdict`.
            max_drop_pct: largest drop of quality that was allowed.
        """
        least = max(KEPT_SHARE, 1 - (max_drop_pct if max_drop_pct is not None else 100) / 100)
        whole = [e for e in self.tried if e.kept is not None and e.kept >= least]
        able = [e for e in whole if e.verdict(share, margin) != "missed"]
        return min(able, key=lambda e: (e.verdict(share, margin) != "met", *_worse(e)), default=None)


def _worse(engine: DenseOnEngine) -> tuple[float, float]:
    """Sort key: the share of quality kept, rounded to 0.1 % (the examples tell no more) and at most 1; then latency."""
    assert engine.latency is not None and engine.kept is not None
    return -min(1.0, round(engine.kept, 3)), engine.latency.ratio
