"""Confidence intervals and verdicts: what a set of timings allows one to say.

The unit of independent evidence is the *round* (one process, one warm-up), not the single call:
calls within a process share its memory layout, its neighbours and its clock, so an interval over
200 calls of one process covers the truth in 58-80 % of the cases instead of 95 %. Hence

    log m_r = log of round r's median,  r = 1..R        (ratios: median of the per-pair ratios)
    bounds  = exp( mean(log m) -/+ scale * t_{R-1} * sd(log m) / sqrt(R) )

The logarithm keeps bounds positive and makes "twice as fast" and "twice as slow" symmetric.
With a single round there is no spread between rounds to look at: blocks of consecutive calls stand
in for rounds and a round effect of 2 % is assumed on top. That is enough for a search to steer by,
never for a certificate. Pure numpy/scipy: this module refuses to know what was timed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import special  # `scipy.stats` says the same and takes a second to import

CONFIDENCE = 0.95
PEEKING_SCALE = 1.15
"""Widening of an interval that is looked at more than once before stopping."""
ROUND_EFFECT = 0.02
"""Assumed standard deviation between processes, as a fraction, where only one was timed."""
BLOCKS = 5
"""Blocks of consecutive calls that stand in for rounds when there is one round."""
P95_SAMPLES = 130
"""Fewest samples for which a 95th percentile is reported."""

Bounds = tuple[float, float]
UNKNOWN: Bounds = (0.0, math.inf)
"""The bounds of something nothing is known about."""


def median_bounds(rounds: Sequence[Sequence[float]], *, scale: float = 1.0) -> Bounds:
    """Two-sided 95 % bounds of the median of positive samples, in their own unit.

    Args:
        rounds: samples of each round; empty rounds are left out.
        scale: widening of the half-width (`PEEKING_SCALE` under a stopping rule).
    """
    kept = [np.asarray(r, dtype=float) for r in rounds if len(r)]
    if not kept or any((r <= 0).any() or not np.isfinite(r).all() for r in kept):
        return UNKNOWN
    if len(kept) == 1:
        return _one_round(kept[0], scale)
    return _t_bounds(np.log([np.median(r) for r in kept]), scale)


def pair_ratios(runs: Sequence[float], dense_runs: Sequence[float]) -> np.ndarray:
    """Candidate over dense, pair by pair.

    Raises:
        ValueError: when there are not as many of one as of the other.
    """
    if len(runs) != len(dense_runs):
        raise ValueError(f"every run must have a dense partner, but got {len(runs)} and {len(dense_runs)}")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(runs, dtype=float) / np.asarray(dense_runs, dtype=float)


def ratio_bounds(rounds: Sequence[tuple[Sequence[float], Sequence[float]]], *, scale: float = 1.0) -> Bounds:
    """Two-sided 95 % bounds of the paired ratio; each round is (runs, dense runs)."""
    return median_bounds([pair_ratios(runs, dense).tolist() for runs, dense in rounds], scale=scale)


def mean_bounds(values: Sequence[float]) -> Bounds:
    """Two-sided 95 % t-bounds of the mean of independent values (seeds), in their own unit."""
    found = np.asarray(values, dtype=float)
    if found.size < 2:
        return -math.inf, math.inf
    half = _t_quantile(found.size - 1) * float(found.std(ddof=1)) / math.sqrt(found.size)
    return float(found.mean()) - half, float(found.mean()) + half


def p95(runs: Sequence[float]) -> float | None:
    """95th percentile, or None below 130 samples: too few to say."""
    return float(np.quantile(np.asarray(runs, dtype=float), 0.95)) if len(runs) >= P95_SAMPLES else None


def verdict(bounds: Bounds, budget: float) -> Literal["met", "missed", "ambiguous"]:
    """`met` when the upper bound is within the budget, `missed` when the lower one is beyond it."""
    lower, upper = bounds
    if upper <= budget:
        return "met"
    return "missed" if lower > budget else "ambiguous"


def _t_bounds(logs: np.ndarray, scale: float) -> Bounds:
    """t-interval of independent values, on the log scale."""
    half = scale * _t_quantile(logs.size - 1) * float(logs.std(ddof=1)) / math.sqrt(logs.size)
    centre = float(logs.mean())
    return _exp(centre - half), _exp(centre + half)


def _one_round(runs: np.ndarray, scale: float) -> Bounds:
    """Blocks as rounds (calls next to each other are alike), plus the round effect one cannot see."""
    if runs.size < 2:
        return UNKNOWN
    blocks = np.array_split(runs, min(BLOCKS, runs.size))
    logs = np.log([np.median(b) for b in blocks])
    within = _t_quantile(logs.size - 1) * float(logs.std(ddof=1)) / math.sqrt(logs.size)
    half = scale * math.hypot(within, float(special.ndtri(0.5 + CONFIDENCE / 2)) * ROUND_EFFECT)
    centre = float(np.log(np.median(runs)))
    return _exp(centre - half), _exp(centre + half)


def _t_quantile(degrees: int) -> float:
    return float(special.stdtrit(degrees, 0.5 + CONFIDENCE / 2))


def _exp(value: float) -> float:
    """exp without overflow: beyond float range a bound is infinite."""
    return math.exp(value) if value < 700 else math.inf
