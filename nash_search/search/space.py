"""Which architectures may be proposed, and which come first.

The search space is a grid; the probe's latency table cuts a *staircase* out of it (per decoder depth,
everything at least as narrow as some width). Anchors are the corners of the staircases, one staircase
per latency budget: per depth, the densest encoder that fits. They cost the search nothing to find and
contain, if quality only ever grows with size, the best point of each budget.
This module refuses to know Optuna and how anything is trained.
"""

from __future__ import annotations

from collections.abc import Sequence

from nash_search.config import Architecture, LatencyBudget, SearchSpace
from nash_search.errors import InvalidInput
from nash_search.search.probe import LatencyTable, floor

MARGIN = 0.02
"""How far below a budget an anchor stays, as a fraction of its latency: a certificate's half-width."""


def notes(filled: SearchSpace, trials: int) -> tuple[str, ...]:
    """What to know of a space before so many trials are asked of it."""
    count = len(filled.architectures())
    if count >= trials:
        return ()
    return (f"the search space holds {count} architecture{'s' if count > 1 else ''}, but trials is {trials}",)


def filled(space: SearchSpace, decoder_layers: int) -> SearchSpace:
    """The space with its depths filled in from the model.

    Raises:
        InvalidInput: when a depth is asked for that the model does not have.
    """
    if not space.decoder_layers:
        return space.model_copy(update={"decoder_layers": tuple(range(1, decoder_layers + 1))})
    if max(space.decoder_layers) > decoder_layers:
        raise InvalidInput(
            f"decoder_layers must be between 1 and {decoder_layers} (the model's), but got {max(space.decoder_layers)}"
        )
    return space


def baseline(space: SearchSpace, decoder_layers: int) -> Architecture:
    """The dense model as a point of the grid's coordinates (it may lie outside the space)."""
    return Architecture(
        encoder_sparsity_pct=0, decoder_layers=decoder_layers, decoder_selection=space.decoder_selection[0]
    )


def densest_that_fit(space: SearchSpace, table: LatencyTable, share: float) -> list[Architecture]:
    """Per decoder depth, the densest encoder under this share of the dense latency; densest encoders first.

    A little below the budget (`MARGIN`), because certification judges the interval's upper end.
    """
    corners = []
    selection = space.decoder_selection[0]
    for layers in space.decoder_layers:
        for sparsity in space.sparsities_pct:
            found = Architecture(encoder_sparsity_pct=sparsity, decoder_layers=layers, decoder_selection=selection)
            if table.share(found) * (1 + MARGIN) <= share:
                corners.append(found)
                break
    return sorted(corners, key=lambda a: (a.encoder_sparsity_pct, -a.decoder_layers))


def anchors(space: SearchSpace, table: LatencyTable, budgets: Sequence[LatencyBudget]) -> list[Architecture]:
    """Corners of every budget's staircase, taken in turn from each budget (loosest first), then the fastest.

    Densest encoders lead because low encoder sparsity helps quality (NASH, finding 2).
    """
    shares = sorted({b.share_of(table.dense_ms) for b in budgets}, reverse=True)
    queues = [densest_that_fit(space, table, share) for share in shares]
    found: list[Architecture] = []
    for position in range(max((len(q) for q in queues), default=0)):
        found += [q[position] for q in queues if position < len(q)]
    fastest, share = floor(table, space.architectures())
    if share <= shares[0]:
        found.append(fastest)
    return list(dict.fromkeys(found))


def admits(space: SearchSpace, table: LatencyTable, budget: LatencyBudget) -> dict[int, int]:
    """Per decoder depth that fits the budget at all, the lowest encoder sparsity (percent) that does."""
    corners = densest_that_fit(space, table, budget.share_of(table.dense_ms))
    return {a.decoder_layers: a.encoder_sparsity_pct for a in sorted(corners, key=lambda a: a.decoder_layers)}
