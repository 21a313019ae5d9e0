"""What each timed shape costs, and by interpolation what every other shape of the space costs.

A table holds raw samples, each shape's paired with the dense model's. The share of the dense latency is interpolated
along the encoder's sparsity, per decoder depth, and made monotone: fewer weights are never slower. The whole encoder
stands apart: it may be faster than one that is narrowed a little, because a narrowed T5 block computes its own
position bias.

Of a traffic every shape answered the same few requests, so that one table says every percentile (`at`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np
from pydantic import ConfigDict

from nash_search import intervals, percentiles
from nash_search.budget import MEDIAN
from nash_search.config import Architecture, Frozen, LatencyBudget, Workload
from nash_search.intervals import OccasionEffect
from nash_search.latency_record import Latency


class ProbeEntry(Frozen):
    """One timed shape."""

    architecture: Architecture
    latency: Latency


class Yardstick(Frozen):
    """What budgets of one percentile are judged against: dense latency and fastest shape in the study's first probe."""

    dense_ms: float
    """The dense model's percentile, milliseconds."""
    floor_share: float
    """Latency of the search space's fastest shape, fraction of `dense_ms`."""


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

    @property
    def percentile(self) -> float:
        """The percentile over requests that the table's latencies are; 50 where one call is timed."""
        return self.entries[0].latency.percentile

    @cached_property
    def _others(self) -> dict[float, LatencyTable]:
        return {self.percentile: self}

    def at(self, percentile: float) -> LatencyTable:
        """The same samples, of which another percentile is the number.

        Raises:
            ValueError: they are of one call.
        """
        if percentile not in self._others:
            entries = tuple(e.model_copy(update={"latency": e.latency.at(percentile)}) for e in self.entries)
            self._others[percentile] = LatencyTable(entries=entries)
        return self._others[percentile]

    @cached_property
    def dense_ms(self) -> float:
        """Median, or the percentile, of all dense samples of the probe, milliseconds: the study's yardstick."""
        samples = [x for e in self.entries for r in e.latency.rounds for x in r.dense_runs_ms]
        return float(np.percentile(samples, self.percentile))

    @property
    def call_ms(self) -> float:
        """Median latency of a dense call, milliseconds: the unit of cost estimates, whatever the table's percentile."""
        return self.at(MEDIAN).dense_ms

    def dense_bounds_ms(self, effect: OccasionEffect | None = None) -> tuple[float, float]:
        """95 % bounds of `dense_ms`: one process is one round, and shapes that shared a dense call count it once."""
        groups = dict.fromkeys(r.dense_runs_ms for entry in self.entries for r in entry.latency.rounds)
        sweeps = [[x for x in sweep if x is not None] for sweep in zip_longest(*groups)]
        if self.workload.traffic is not None:  # a request that several groups answered is one request
            requests = tuple(float(np.mean(sweep)) for sweep in sweeps)
            return percentiles.bounds((requests,), self.percentile, effect=effect)
        return intervals.median_bounds([[x for sweep in sweeps for x in sweep]], effect=effect)

    @cached_property
    def _curves(self) -> dict[int, tuple[list[int], list[float], list[float]]]:
        """Per depth: sparsities (percent), shares, upper shares; non-increasing along the narrowed encoders."""
        groups: dict[int, dict[int, tuple[float, float]]] = {}
        for entry in self.entries:  # which blocks are kept does not change the shapes
            a = entry.architecture
            found = entry.latency.ratio, _upper(entry.latency)
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
            e.architecture.decoder_layers: (e.latency.ratio, _upper(e.latency))
            for e in self.entries
            if e.architecture.encoder_sparsity_pct == 0
        }

    @cached_property
    def width_worth(self) -> float | None:
        """Largest saving by a narrower encoder, as a fraction of the latency at the same depth with the encoder whole.

        It is a maximum over timed shapes, so noise inflates it. None: whole or narrowed encoders were not timed.
        """
        found = [
            1 - e.latency.ratio / self._whole[e.architecture.decoder_layers][0]
            for e in self.entries
            if e.architecture.encoder_sparsity_pct and e.architecture.decoder_layers in self._whole
        ]
        return max(0.0, *found) if found else None

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

    def part_of(self, architecture: Architecture, budget: LatencyBudget) -> float:
        """Interpolated latency as a fraction of a budget, at the budget's percentile; up to 1 lies within it."""
        table = self.at(budget.percentile)
        return table.share(architecture) / budget.share_of(table.dense_ms)

    def upper_share(self, architecture: Architecture) -> float:
        """Upper end of the interval of `share`."""
        share, upper = self._shares(architecture)
        return max(share, upper) if math.isfinite(upper) else share


def _upper(latency: Latency) -> float:
    """Upper bound of the share; where requests are too few to bound a percentile, as far above as the median's."""
    upper = latency.ratio_bounds[1]
    if math.isfinite(upper) or latency.workload.traffic is None:
        return upper
    middle = latency.at(MEDIAN)
    return latency.ratio * middle.ratio_bounds[1] / middle.ratio


def table_of(taken: Mapping[Architecture, Latency], percentile: float = MEDIAN) -> LatencyTable:
    """What an evaluator's probe found, as a table of a percentile."""
    entries = [ProbeEntry(architecture=a, latency=found.at(percentile)) for a, found in taken.items()]
    return LatencyTable(entries=tuple(entries))
