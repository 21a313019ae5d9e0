"""What each timed shape costs, and by interpolation what every other shape of the space costs.

A table holds raw samples, each shape's paired with the dense model's. The share of the dense latency is interpolated
along the encoder's sparsity, per decoder depth, and made monotone: fewer weights are never slower. The whole encoder
stands apart: it may be faster than one that is narrowed a little, because a narrowed T5 block computes its own
position bias.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np
from pydantic import ConfigDict

from nash_search import intervals
from nash_search.config import Architecture, Frozen, Workload
from nash_search.intervals import OccasionEffect
from nash_search.latency_record import Latency


class ProbeEntry(Frozen):
    """One timed shape."""

    architecture: Architecture
    latency: Latency


class LatencyTable(Frozen):
    """Every timed shape, with its raw samples paired with the dense model's."""

    model_config = ConfigDict(extra="ignore")  # tables of before carried a key

    entries: tuple[ProbeEntry, ...]

    @property
    def workload(self) -> Workload:
        """The call that was timed."""
        return self.entries[0].latency.workload

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What it was timed on."""
        return self.entries[0].latency.fingerprint

    @cached_property
    def dense_ms(self) -> float:
        """Median of all dense samples of the probe, milliseconds: the study's yardstick."""
        return float(np.median([x for e in self.entries for r in e.latency.rounds for x in r.dense_runs_ms]))

    def dense_bounds_ms(self, effect: OccasionEffect | None = None) -> tuple[float, float]:
        """95 % bounds of `dense_ms`: one process is one round, and shapes that shared a dense call count it once."""
        groups = dict.fromkeys(r.dense_runs_ms for entry in self.entries for r in entry.latency.rounds)
        in_time_order = [x for sweep in zip_longest(*groups) for x in sweep if x is not None]
        return intervals.median_bounds([in_time_order], effect=effect)

    @cached_property
    def _curves(self) -> dict[int, tuple[list[int], list[float], list[float]]]:
        """Per depth: sparsities (percent), shares, upper shares; non-increasing along the narrowed encoders."""
        groups: dict[int, dict[int, tuple[float, float]]] = {}
        for entry in self.entries:  # which blocks are kept does not change the shapes
            a = entry.architecture
            found = entry.latency.ratio, entry.latency.ratio_bounds[1]
            groups.setdefault(a.decoder_layers, {})[a.encoder_sparsity_pct] = found
        curves = {}
        for depth, rows in groups.items():
            narrowed = sorted(rows.keys() - {0}) or [0]
            shares = np.minimum.accumulate([rows[s][0] for s in narrowed])
            uppers = np.minimum.accumulate([rows[s][1] for s in narrowed])
            curves[depth] = narrowed, shares.tolist(), uppers.tolist()
        return curves

    @cached_property
    def _whole(self) -> dict[int, tuple[float, float]]:
        """Per depth: share and upper share with the encoder whole."""
        return {
            e.architecture.decoder_layers: (e.latency.ratio, e.latency.ratio_bounds[1])
            for e in self.entries
            if e.architecture.encoder_sparsity_pct == 0
        }

    def _shares(self, architecture: Architecture) -> tuple[float, float]:
        depth, sparsity = architecture.decoder_layers, architecture.encoder_sparsity_pct
        if depth not in self._curves:
            raise KeyError(f"decoder depth {depth} was not probed")
        if sparsity == 0 and depth in self._whole:
            return self._whole[depth]
        sparsities, shares, uppers = self._curves[depth]
        return float(np.interp(sparsity, sparsities, shares)), float(np.interp(sparsity, sparsities, uppers))

    def share(self, architecture: Architecture) -> float:
        """Latency as a fraction of the dense model's."""
        return self._shares(architecture)[0]

    def upper_share(self, architecture: Architecture) -> float:
        """Upper end of the interval of `share`."""
        share, upper = self._shares(architecture)
        return max(share, upper) if math.isfinite(upper) else share


def table_of(taken: Mapping[Architecture, Latency]) -> LatencyTable:
    """What an evaluator's probe found, as a table."""
    return LatencyTable(entries=tuple(ProbeEntry(architecture=a, latency=found) for a, found in taken.items()))
