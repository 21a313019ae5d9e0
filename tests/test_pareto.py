"""The front against brute force, on small integer grids so that ties abound."""

import itertools

import numpy as np
import pytest

from nash_search import pareto


def clouds():
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 5, 8, 13, 30):
        for high in (2, 4, 12):
            yield rng.integers(0, high, size=(n, 2)).astype(float)


CLOUDS = list(clouds())


def slow_dominates(a, b):
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("points", CLOUDS)
def test_the_front_is_what_nothing_dominates(points):
    expected = [not any(slow_dominates(other, p) for other in points) for p in points]
    assert pareto.front_mask(points).tolist() == expected
    order = pareto.front_order(points)
    assert sorted(order) == [i for i, keep in enumerate(expected) if keep]
    assert [tuple(points[i]) for i in order] == sorted(tuple(points[i]) for i in order)


@pytest.mark.parametrize("points", CLOUDS)
def test_hypervolume_counts_the_unit_cells_that_a_point_covers(points):
    reference = (10, 9)
    cells = sum(
        any(p[0] <= x and p[1] <= y for p in points)
        for x, y in itertools.product(range(reference[0]), range(reference[1]))
    )
    assert pareto.hypervolume(points, reference) == pytest.approx(cells)


@pytest.mark.parametrize("points", CLOUDS)
@pytest.mark.parametrize("budget", [-1, 0, 1, 3, 20])
def test_best_under_is_the_best_quality_then_the_fastest_then_the_first(points, budget):
    allowed = [(p[1], p[0], i) for i, p in enumerate(points) if p[0] <= budget]
    assert pareto.best_under(points, budget) == (min(allowed)[2] if allowed else None)


def test_empty_sets_have_an_empty_front_and_no_volume():
    nothing = pareto.losses([], [])
    assert pareto.front_order(nothing) == [] and pareto.hypervolume(nothing, (1, 1)) == 0
    assert pareto.best_under(nothing, 1) is None


def test_direction_is_flipped_once_and_nan_is_refused():
    assert pareto.losses([1], [5]).tolist() == [[1, -5]]
    assert pareto.losses([1], [5], "minimize").tolist() == [[1, 5]]
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite"):
            pareto.losses([1.0], [bad])
    with pytest.raises(ValueError, match="as many"):
        pareto.losses([1.0], [])
