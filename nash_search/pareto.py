"""Which points are worth having: dominance, the Pareto front, hypervolume, best under a budget.

Latency is to be small, quality to be large or small as its `direction` says. Only this module knows what a direction
means: `loss` flips the sign, and from there everything is a *loss*, lower is better; `losses` makes an (n, 2) array:

    quality ^   x                 a dominates b  <=>  a <= b everywhere and a < b somewhere
            |  .  o               (equal points dominate neither one another nor themselves,
            | x   .                so ties stay on the front together)
            +----------> latency

Numbers in, numbers out: it needs numpy and knows no trials and no studies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Direction = Literal["maximize", "minimize"]


def higher_is_better(direction: Direction) -> bool:
    """Which way a quality's axis points."""
    return direction == "maximize"


def loss(quality: float, direction: Direction) -> float:
    """A quality as a loss: lower is better."""
    return -quality if higher_is_better(direction) else quality


def dropped(quality: float, percent: float, direction: Direction) -> float:
    """A quality made worse by so many percent of itself."""
    change = abs(quality) * percent / 100
    return quality - change if higher_is_better(direction) else quality + change


def losses(latencies: Sequence[float], qualities: Sequence[float], direction: Direction = "maximize") -> Array:
    """Latency and quality as an (n, 2) array in which lower is better.

    Raises:
        ValueError: when lengths differ or a value is not finite (it would poison every comparison).
    """
    if len(latencies) != len(qualities):
        raise ValueError(f"latencies and qualities must be as many, but got {len(latencies)} and {len(qualities)}")
    found = [loss(float(quality), direction) for quality in qualities]
    points = np.column_stack([np.asarray(latencies, float), np.asarray(found, float)]).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise ValueError("latencies and qualities must be finite, but got NaN or infinity")
    return points


def front_mask(points: Array) -> npt.NDArray[np.bool_]:
    """Mark the points (n, 2) of losses that no other point dominates; equal points are kept together."""
    order = np.lexsort((points[:, 1], points[:, 0]))
    kept = np.zeros(len(points), bool)
    best, at = np.inf, np.nan  # lowest second loss so far, and the first loss where it was reached
    for index in order:
        x, y = points[index]
        if y < best:
            best, at = y, x
            kept[index] = True
        elif y == best and x == at:
            kept[index] = True
    return kept


def front_order(points: Array) -> list[int]:
    """Indices of the front, fastest first (ties in the order given)."""
    kept = np.flatnonzero(front_mask(points))
    return [int(i) for i in kept[np.lexsort((kept, points[kept, 1], points[kept, 0]))]]


def hypervolume(points: Array, reference: Sequence[float]) -> float:
    """Area between the losses (n, 2) and a fixed reference loss; points beyond the reference add nothing."""
    corner = np.asarray(reference, float)
    inside = points[(points < corner).all(axis=1)] if len(points) else points
    area, ceiling = 0.0, float(corner[1])
    for x, y in inside[np.lexsort((inside[:, 1], inside[:, 0]))] if len(inside) else []:
        if y < ceiling:
            area += (float(corner[0]) - float(x)) * (ceiling - float(y))
            ceiling = float(y)
    return area


def best_under(points: Array, budget: float) -> int | None:
    """Index of the best quality whose latency is at most `budget` (ties: the faster, then the first)."""
    allowed = np.flatnonzero(points[:, 0] <= budget) if len(points) else np.array([], int)
    if not len(allowed):
        return None
    return int(allowed[np.lexsort((allowed, points[allowed, 0], points[allowed, 1]))[0]])
