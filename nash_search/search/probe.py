"""Measure first, train second: what each shape costs, before a single training step.

Latency depends on shapes, not on weights, so random-weight models of every decoder depth and a few
encoder widths are timed next to the dense model. Between measured widths the share of the dense
latency is interpolated along the encoder, and made monotone: fewer weights are never slower. The whole
encoder stands apart: it may be faster than one that is narrowed a little (a narrowed T5 block computes its
own position bias), so the least sparsity of the grid is always timed:

    share ^ 6 blocks  x x-----x-----x     what lies under the loosest budget is the feasible
          | 3 blocks  x x-----x-----x     set; its lowest point is the floor
          +----------------------> encoder sparsity

Latency grows with the decoder's depth. Where a table says otherwise, something else used the device while it was
taken: it is timed again there, and a table that stays impossible is refused.
The interpolation decides only what is *proposed*; every record carries its own measurement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from nash_search.config import Architecture, LatencyBudget, SearchSpace
from nash_search.errors import Unfinished
from nash_search.latency_record import Latency
from nash_search.latency_table import LatencyTable, ProbeEntry, table_of

BEND = 0.1
"""A deeper shape faster than a shallower one by more than this (fraction): something else ran during a timing."""
WIDTHS = 4
"""Encoder widths that are timed at each depth, at most; shares between them are interpolated."""
TIMED_AT_MOST = 3
"""Times that a shape is timed until the table must make sense."""


def bends(table: LatencyTable) -> list[tuple[ProbeEntry, ProbeEntry]]:
    """Pairs of equally wide shapes of which the deeper one was clearly faster: (deeper, shallower)."""
    found = []
    for deep in table.entries:
        for flat in table.entries:
            a, b = deep.architecture, flat.architecture
            same = a.encoder_sparsity_pct == b.encoder_sparsity_pct and a.decoder_selection == b.decoder_selection
            deeper = same and a.decoder_layers > b.decoder_layers
            if deeper and deep.latency.ratio < (1 - BEND) * flat.latency.ratio:
                found.append((deep, flat))
    return found


def straightened(
    table: LatencyTable, again: Callable[[list[Architecture]], Mapping[Architecture, Latency]]
) -> LatencyTable:
    """The table, after shapes that contradict "deeper is slower" were timed again, `TIMED_AT_MOST` times in all.

    Args:
        table: as it was timed.
        again: times these shapes once more, whatever is known of them.

    Raises:
        Unfinished: it bends however often it is timed.
    """
    for _ in range(TIMED_AT_MOST - 1):
        bent = {entry.architecture for pair in bends(table) for entry in pair}
        if not bent:
            return table
        taken = again([e.architecture for e in table.entries if e.architecture in bent])
        found = {e.architecture: taken.get(e.architecture, e.latency) for e in table.entries}
        table = table_of(found, table.percentile)
    if not (left := bends(table)):
        return table
    deep, flat = max(left, key=lambda pair: pair[1].latency.ratio / pair[0].latency.ratio)
    raise Unfinished(
        f"latency must grow with the decoder's depth, but {_said(deep)} and {_said(flat)} "
        f"with {deep.architecture.encoder_sparsity_pct}% of the encoder removed, timed {TIMED_AT_MOST} times",
        fix="something else uses the device: stop it, or wait until it is done, and run the same command again",
    )


def _said(entry: ProbeEntry) -> str:
    blocks = entry.architecture.decoder_layers
    return f"{blocks} block{'s' if blocks > 1 else ''} took {entry.latency.ratio:.0%} of the dense model's"


def widths_to_probe(space: SearchSpace) -> list[int]:
    """At most `WIDTHS` sparsities (percent) of the grid: none, the least, the most, and some between."""
    grid = space.sparsities_pct
    if len(grid) <= WIDTHS:
        return list(grid)
    between = np.linspace(1, len(grid) - 1, WIDTHS - 1)
    return sorted({grid[0], *(grid[round(i)] for i in between)})


def shapes_to_probe(space: SearchSpace) -> list[Architecture]:
    """Every decoder depth x a few widths (depth filled in; one selection, for shapes do not depend on it)."""
    return [
        Architecture(encoder_sparsity_pct=s, decoder_layers=n, decoder_selection=space.decoder_selection[0])
        for n in space.decoder_layers
        for s in widths_to_probe(space)
    ]


def limits(budgets: Sequence[LatencyBudget], table: LatencyTable) -> dict[float, float]:
    """By percentile, the budget that admits most, as a fraction of the dense model's same percentile."""
    found: dict[float, float] = {}
    for budget in budgets:
        share = budget.share_of(table.at(budget.percentile).dense_ms)
        found[budget.percentile] = max(share, found.get(budget.percentile, 0.0))
    return found


def floor(table: LatencyTable, architectures: Iterable[Architecture]) -> tuple[Architecture, float]:
    """The fastest architecture and its share of the dense latency."""
    fastest = min(architectures, key=lambda a: (table.share(a), a.decoder_layers, -a.encoder_sparsity_pct))
    return fastest, table.share(fastest)


def nearest_feasible(
    table: LatencyTable, architectures: Iterable[Architecture], budget: LatencyBudget, ms_margin: float = 0.0
) -> LatencyBudget:
    """The tightest budget, in the unit the user spoke, that the fastest architecture should meet.

    Args:
        table: what the shapes cost.
        architectures: of the space.
        budget: what was asked.
        ms_margin: how far (fraction) below a budget in milliseconds a model must lie to be found to meet it.
    """
    table = table.at(budget.percentile)
    fastest, _ = floor(table, architectures)
    share = table.upper_share(fastest)
    if budget.share is not None:
        return budget.alike(f"{min(100, math.ceil(share * 100))}%")
    return budget.alike(rounded_up(share * table.dense_ms / (1 - ms_margin)))


def rounded_up(ms: float) -> str:
    """Milliseconds as a budget is typed, rounded up to two significant digits."""
    step = 10 ** (math.floor(math.log10(ms)) - 1)
    return f"{round(math.ceil(ms / step) * step, 9):g}"
