"""Measure first, train second: what each shape costs, before a single training step.

Latency depends on shapes, not on weights, so random-weight models of every decoder depth and a few
encoder widths are timed next to the dense model. Between measured widths the share of the dense
latency is interpolated along the encoder (and made monotone: fewer weights are never slower):

    share ^ 6 blocks  x-----x-----x       what lies under the loosest budget is the feasible
          | 3 blocks  x-----x-----x       staircase; its lowest point is the floor
          +----------------------> encoder sparsity

The interpolation decides only what is *proposed*; every record carries its own measurement.
This module refuses to know how a millisecond is taken, and quality altogether.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from nash_search.config import Architecture, Frozen, LatencyBudget, SearchSpace, Workload, digest
from nash_search.records import Latency

PROTOCOL = 1
"""Raise when the way of probing changes: old tables are then measured again."""


class ProbeEntry(Frozen):
    """One timed shape."""

    architecture: Architecture
    latency: Latency


class LatencyTable(Frozen):
    """Every timed shape, with its raw samples paired with the dense model's."""

    entries: tuple[ProbeEntry, ...]
    key: str = ""
    """Digest of what the table depends on; see `table_key`."""

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

    @cached_property
    def _curves(self) -> dict[tuple[int, str], tuple[list[int], list[float], list[float]]]:
        """Per depth and selection: sparsities (percent), shares, upper shares; non-increasing along the encoder."""
        groups: dict[tuple[int, str], list[tuple[int, float, float]]] = {}
        for entry in self.entries:
            a = entry.architecture
            row = (a.encoder_sparsity_pct, entry.latency.ratio, entry.latency.ratio_bounds[1])
            groups.setdefault((a.decoder_layers, a.decoder_selection), []).append(row)
        curves = {}
        for depth, rows in groups.items():
            rows.sort()
            shares = np.minimum.accumulate([r[1] for r in rows])
            uppers = np.minimum.accumulate([r[2] for r in rows])
            curves[depth] = ([r[0] for r in rows], shares.tolist(), uppers.tolist())
        return curves

    def _curve(self, architecture: Architecture) -> tuple[list[int], list[float], list[float]]:
        found = self._curves.get((architecture.decoder_layers, architecture.decoder_selection))
        if found is None:  # which blocks are kept does not change the shapes
            for (layers, _), curve in self._curves.items():
                if layers == architecture.decoder_layers:
                    return curve
            raise KeyError(f"decoder depth {architecture.decoder_layers} was not probed")
        return found

    def share(self, architecture: Architecture) -> float:
        """Latency as a fraction of the dense model's."""
        sparsities, shares, _ = self._curve(architecture)
        return float(np.interp(architecture.encoder_sparsity_pct, sparsities, shares))

    def upper_share(self, architecture: Architecture) -> float:
        """Upper end of the interval of `share`: what an anchor should keep under a budget."""
        sparsities, shares, uppers = self._curve(architecture)
        upper = float(np.interp(architecture.encoder_sparsity_pct, sparsities, uppers))
        return max(upper, self.share(architecture)) if math.isfinite(upper) else self.share(architecture)


def widths_to_probe(space: SearchSpace, count: int = 4) -> list[int]:
    """A few sparsities (percent) that span the grid, both ends included."""
    grid = space.sparsities_pct
    picks = np.linspace(0, len(grid) - 1, min(count, len(grid)))
    return sorted({grid[round(i)] for i in picks})


def shapes_to_probe(space: SearchSpace, count: int = 4) -> list[Architecture]:
    """Every decoder depth x a few widths (depth filled in; one selection, for shapes do not depend on it)."""
    return [
        Architecture(encoder_sparsity_pct=s, decoder_layers=n, decoder_selection=space.decoder_selection[0])
        for n in space.decoder_layers
        for s in widths_to_probe(space, count)
    ]


def table_key(workload: Workload, fingerprint_hash: str, model: str, shapes: Sequence[Architecture]) -> str:
    """What a table depends on; a changed part makes an old table useless."""
    return digest(
        {
            "protocol": PROTOCOL,
            "workload": workload.model_dump(mode="json"),
            "fingerprint": fingerprint_hash,
            "model": model,
            "shapes": sorted(a.slug for a in shapes),
        }
    )


def feasible(
    table: LatencyTable, architectures: Iterable[Architecture], budget: LatencyBudget
) -> tuple[Architecture, ...]:
    """The architectures whose probed latency lies within the budget."""
    limit = budget.share_of(table.dense_ms)
    return tuple(a for a in architectures if table.share(a) <= limit)


def loosest(budgets: Sequence[LatencyBudget], dense_ms: float) -> LatencyBudget:
    """The budget that admits most."""
    return max(budgets, key=lambda b: b.share_of(dense_ms))


def floor(table: LatencyTable, architectures: Iterable[Architecture]) -> tuple[Architecture, float]:
    """The fastest architecture and its share of the dense latency."""
    fastest = min(architectures, key=lambda a: (table.share(a), a.decoder_layers, -a.encoder_sparsity_pct))
    return fastest, table.share(fastest)


def nearest_feasible(
    table: LatencyTable, architectures: Iterable[Architecture], budget: LatencyBudget
) -> LatencyBudget:
    """The tightest budget, in the unit the user spoke, that the fastest architecture should meet."""
    fastest, _ = floor(table, architectures)
    share = table.upper_share(fastest)
    if budget.share is not None:
        return LatencyBudget.parse(f"{min(100, math.ceil(share * 100))}%")
    step = 10 ** (math.floor(math.log10(share * table.dense_ms)) - 1)  # two significant digits
    return LatencyBudget.parse(f"{round(math.ceil(share * table.dense_ms / step) * step, 9):g}")
