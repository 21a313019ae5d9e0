"""Which architectures may be proposed, and which are trained first.

The search space is a grid. The probe's latency table says which of its points fit a budget: its feasible set, usually
every encoder from some width down at each decoder depth. Anchors, the points that are trained first, are per budget and
depth the densest encoder that fits. Finding them costs no training, and if quality only ever grows with size they
contain the best point of each budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nash_search.config import Architecture, LatencyBudget, SearchConfig, SearchSpace
from nash_search.latency_table import LatencyTable
from nash_search.search.probe import floor
from nash_search.storage.study import StudyFacts

MARGIN = 0.02
"""How far below a budget an anchor stays, as a fraction of its latency: a certificate's half-width."""


UNGUIDED = ("grid", "random")
"""Samplers that know nothing of latency or quality: they have no anchors, and leave nothing out."""
WIDTH_PAYS = 0.03
"""A narrower encoder that takes less than this off the latency is not trained: it costs quality, and a certificate
hardly tells the two apart."""
FEWEST, MOST = 2, 5
"""Anchors before the sampler; between the two, half of the trials. Replayed on a trained grid, that finds no less after
8 and 16 trials than five anchors always (results/LOG.md, 2026-11-27)."""


def notes(filled: SearchSpace, trials: int) -> tuple[str, ...]:
    """What to know of a space before so many trials are asked of it."""
    count = len(filled.architectures())
    if count >= trials:
        return ()
    return (f"the search space holds {count} architecture{'s' if count > 1 else ''}, but trials is {trials}",)


def baseline(space: SearchSpace, decoder_layers: int) -> Architecture:
    """The dense model as a point of the grid's coordinates (it may lie outside the space)."""
    return Architecture(
        encoder_sparsity_pct=0, decoder_layers=decoder_layers, decoder_selection=space.decoder_selection[0]
    )


def fits(facts: StudyFacts, table: LatencyTable, architecture: Architecture) -> bool:
    """May it be proposed: does the probe see it within one of the budgets that the study was begun with?"""
    if not facts.limits:
        return table.share(architecture) <= facts.loosest_share
    return facts.part(lambda percentile: table.at(percentile).share(architecture)) <= 1


def worth_training(space: SearchSpace, table: LatencyTable, config: SearchConfig) -> SearchSpace:
    """The space, or its whole encoders alone where width is worth nothing on this device and workload.

    A budget that narrowed encoders alone meet keeps them, and so does a sampler that takes the space as it is.
    """
    if table.width_worth is None or table.width_worth >= WIDTH_PAYS or config.sampler in UNGUIDED:
        return space
    found = space.model_copy(update={"encoder_sparsity_pct": (0, 0, space.encoder_sparsity_pct[2])})
    for budget in config.budgets:
        seen = table.at(budget.percentile)
        limit = budget.share_of(seen.dense_ms)
        if floor(seen, found.architectures())[1] > limit >= floor(seen, space.architectures())[1]:
            return space
    return found


def trainable(facts: StudyFacts, table: LatencyTable, config: SearchConfig) -> list[Architecture]:
    """What may be trained: all that fits and is worth it."""
    space = worth_training(facts.space, table, config)
    return [a for a in space.architectures() if fits(facts, table, a)]


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


def anchors(
    space: SearchSpace, table: LatencyTable, budgets: Sequence[LatencyBudget], trials: int
) -> list[Architecture]:
    """The points to train first: the densest encoders that fit, each budget in turn (loosest first), then the fastest.

    Densest encoders lead because low encoder sparsity helps quality (NASH, finding 2). Half as many as trials are
    given, from `FEWEST` to `MOST`, so that a study that is asked for more trials first trains those left out.
    """
    tables = {b.percentile: table.at(b.percentile) for b in budgets}
    limits = sorted({(b.share_of(tables[b.percentile].dense_ms), b.percentile) for b in budgets}, reverse=True)
    queues = [densest_that_fit(space, tables[percentile], share) for share, percentile in limits]
    found: list[Architecture] = []
    for position in range(max((len(q) for q in queues), default=0)):
        found += [q[position] for q in queues if position < len(q)]
    loosest, percentile = limits[0]
    fastest, share = floor(tables[percentile], space.architectures())
    if share <= loosest:
        found.append(fastest)
    return list(dict.fromkeys(found))[: min(MOST, max(FEWEST, trials // 2))]


def fitting_sparsities(space: SearchSpace, table: LatencyTable, budget: LatencyBudget) -> dict[str, Any]:
    """Which encoder sparsities fit a budget, per decoder depth, under the keys of the plan and the probe.

    Returns:
        A JSON document. admits: by decoder depth, the lowest encoder sparsity (percent) that fits. fits: by decoder
        depth, all that do, as runs [lowest, highest] of the grid. sparsities_pct: the grid's own [lowest, highest].
    """
    table = table.at(budget.percentile)
    limit, selection, grid = budget.share_of(table.dense_ms), space.decoder_selection[0], space.sparsities_pct
    fits: dict[str, list[list[int]]] = {}
    for layers in sorted(space.decoder_layers):
        runs: list[list[int]] = []  # more than one where a whole encoder is faster than a slightly narrowed one
        before = False
        for sparsity in grid:
            asked = Architecture(encoder_sparsity_pct=sparsity, decoder_layers=layers, decoder_selection=selection)
            now = table.share(asked) <= limit
            if now and before:
                runs[-1][1] = sparsity
            elif now:
                runs.append([sparsity, sparsity])
            before = now
        if runs:
            fits[str(layers)] = runs
    lowest = {layers: runs[0][0] for layers, runs in fits.items()}
    return {"admits": lowest, "fits": fits, "sparsities_pct": [grid[0], grid[-1]]}
