"""The percentile of a distribution, its share of another, and bounds that say nothing where there are too few."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from nash_search import intervals, percentiles
from nash_search.errors import InvalidInput
from nash_search.traffic import Request, Traffic


def rounds(count=5, size=80, factor=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(tuple((factor * np.exp(0.4 * rng.standard_normal(size))).tolist()) for _ in range(count))


def test_the_number_is_the_percentile_over_the_requests_of_all_rounds():
    found = (tuple(float(x) for x in range(1, 51)), tuple(float(x) for x in range(51, 102)))
    assert percentiles.of_requests(found, 95) == pytest.approx(96.0)
    half = tuple(tuple(x / 2 for x in r) for r in found)
    assert percentiles.ratio(half, found, 95) == pytest.approx(0.5)
    assert math.isnan(percentiles.of_requests((), 95))


def test_requests_needed_are_those_whose_largest_bounds_the_percentile():
    assert [percentiles.requests_needed(p) for p in (50, 90, 95, 99)] == [6, 38, 77, 390]
    for p in (50, 95, 99):
        n = percentiles.requests_needed(p)
        assert stats.binom.cdf(n - 1, n, p / 100) >= 0.98 > stats.binom.cdf(n - 2, n - 1, p / 100)


def test_too_few_requests_or_no_times_bound_nothing():
    assert percentiles.bounds(rounds(5, 15), 95) == intervals.UNKNOWN
    assert percentiles.bounds(rounds(5, 16), 95)[1] < math.inf
    assert percentiles.bounds((*rounds(5, 16), (0.0,)), 95) == intervals.UNKNOWN
    assert percentiles.bounds((), 95) == intervals.UNKNOWN


def test_one_sample_of_requests_alone_is_bounded_as_by_order_statistics():
    (runs,) = found = rounds(1, 400)
    own = percentiles.bounds(found * 1, 95)
    low, high = (np.sort(runs)[int(stats.binom.ppf(q, 400, 0.95)) - 1] for q in (0.02, 0.98))
    assert own[0] <= low * 1.001 and own[1] >= high * 0.999, "and the round effect on top"


def test_looks_occasions_and_scale_widen_the_bounds():
    taken = rounds()

    def width(**settings):
        lower, upper = percentiles.bounds(taken, 95, **settings)
        return upper / lower

    assert width() < width(second_look=True) and percentiles.bounds(rounds(5, 80), 99, second_look=True)[1] == math.inf
    assert width() < width(scale=1.15) and width() < width(confidence=intervals.confidence_at(2))
    effect = intervals.DEFAULT_OCCASION
    assert width() < width(effect=effect, occasions=(0, 0, 0, 1, 1)) < width(effect=effect)


def test_a_share_hardly_feels_which_requests_were_drawn():
    dense = rounds(factor=10)
    half = tuple(tuple(x / 2 for x in r) for r in dense)
    lower, upper = percentiles.bounds(half, 95, dense=dense)
    assert lower == pytest.approx(0.5) == upper
    lower, upper = percentiles.bounds(half, 95)
    assert upper / lower > 1.05


def test_requests_take_at_most_twice_the_decoding_of_one_call_s_pairs_or_as_many_as_the_percentile_needs():
    assert [percentiles.pairs_of(p, 5) for p in (None, 50, 95, 99)] == [40, 70, 70, 78]
    assert [percentiles.pairs_of(95, 5, longer) for longer in (1.1, 1.6, 4.0, 9.0)] == [70, 50, 20, 16]
    assert percentiles.pairs_of(99, 5, 1.6) == 78 and percentiles.pairs_of(99, 10) == 70


def test_p95_of_one_call_needs_130_of_it():
    assert percentiles.p95_of_calls([1.0] * 129) is None
    assert percentiles.p95_of_calls(list(range(131))) == pytest.approx(123.5)


def test_too_few_requests_for_a_percentile_are_refused_with_the_number_needed():
    few, many = (Traffic.counted(Counter({Request(3, 4): n}), "log.jsonl") for n in (76, 5000))
    percentiles.check_enough(95, many, rounds=5, pairs=16)
    with pytest.raises(InvalidInput, match=r"^p95 needs at least 77 requests, but got 76 \(log.jsonl\)"):
        percentiles.check_enough(95, few, rounds=5, pairs=80)
    with pytest.raises(InvalidInput, match="^p99 needs at least 390 requests, but got 5 rounds of 40 .*--pairs 78"):
        percentiles.check_enough(99, many, rounds=5, pairs=40)
