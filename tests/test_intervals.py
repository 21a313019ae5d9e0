"""Closed forms, coverage under the stopping rule, and the winner's curse of the naive rule."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from nash_search import intervals

ROUNDS, MORE_ROUNDS, PAIRS = 5, 10, 40
TRUTH = 10.0


def iid(rng, rounds, pairs):
    return TRUTH * np.exp(0.05 * rng.standard_normal((rounds, pairs)))


def round_effect(rng, rounds, pairs):
    return iid(rng, rounds, pairs) * np.exp(0.02 * rng.standard_normal((rounds, 1)))


def autocorrelated(rng, rounds, pairs, rho=0.5):
    noise = np.empty((rounds, pairs))
    noise[:, 0] = rng.standard_normal(rounds)
    for i in range(1, pairs):
        noise[:, i] = rho * noise[:, i - 1] + math.sqrt(1 - rho**2) * rng.standard_normal(rounds)
    return TRUTH * np.exp(0.05 * noise)


def certified_bounds(samples, budget, effect=None):
    """The rule of `latency.fresh`: look at 5 rounds, and where ambiguous once more at 10."""
    bounds = intervals.median_bounds(samples[:ROUNDS], scale=intervals.PEEKING_SCALE, effect=effect)
    if intervals.verdict(bounds, budget) == "ambiguous":
        bounds = intervals.median_bounds(samples, scale=intervals.PEEKING_SCALE, effect=effect)
    return bounds


def one_round_bootstrap(samples, budget, draws=200):
    """The mutant: one long round, its calls resampled as if they were independent."""
    runs = samples[:1].ravel()
    picks = np.random.default_rng(0).integers(0, runs.size, (draws, runs.size))
    return tuple(np.quantile(np.median(runs[picks], axis=1), [0.025, 0.975]))


def coverage(make, rule, budget, simulations=2000, pairs=PAIRS):
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(simulations):
        lower, upper = rule(make(rng, MORE_ROUNDS, pairs), budget)
        hits += lower <= TRUTH <= upper
    return hits / simulations


@pytest.mark.parametrize("make", [iid, round_effect, autocorrelated])
@pytest.mark.parametrize("budget", [TRUTH, TRUTH * 1.01, TRUTH * 2])
def test_nominal_95_percent_interval_covers_with_the_stopping_rule(make, budget):
    assert 0.93 <= coverage(make, certified_bounds, budget) <= 0.985


@pytest.mark.parametrize("make", [round_effect, autocorrelated])
def test_a_one_round_bootstrap_does_not_pass_for_a_95_percent_interval(make):
    assert coverage(make, one_round_bootstrap, TRUTH, simulations=400, pairs=200) < 0.90


@pytest.mark.parametrize("make", [iid, round_effect, autocorrelated])
def test_without_peeking_five_rounds_cover_unwidened(make):
    def five(samples, _budget):
        return intervals.median_bounds(samples[:ROUNDS])

    assert 0.93 <= coverage(make, five, TRUTH) <= 0.97


def test_one_round_in_process_is_honest_about_the_round_effect():
    def one(samples, _budget):
        return intervals.median_bounds(samples[:1])

    assert 0.93 <= coverage(round_effect, one, TRUTH) <= 0.995
    assert 0.93 <= coverage(autocorrelated, one, TRUTH)  # over-covers: there is no round effect here


def test_searches_by_the_bound_end_over_budget_rarely_and_by_the_bare_number_often():
    """40 candidates, 2 % noise; more latency is more quality, so the search presses on the budget."""
    rng = np.random.default_rng(3)
    searches, over_naive, over_bound = 1000, 0, 0
    for _ in range(searches):
        truth = rng.uniform(0.4, 0.8, 40)
        rounds = truth * np.exp(0.02 * rng.standard_normal((ROUNDS, 40)))
        logs = np.log(rounds)
        half = stats.t.ppf(0.975, ROUNDS - 1) * logs.std(0, ddof=1) / math.sqrt(ROUNDS)
        upper = np.exp(logs.mean(0) + half)
        lower, first_upper = intervals.median_bounds([[x] for x in rounds[:, 0]])
        assert math.isclose(first_upper, upper[0]) and lower < first_upper  # the vectorised form is the rule itself
        order = np.argsort(-truth)  # best quality first
        naive = next(i for i in order if rounds[0, i] <= 0.6)
        bound = next(i for i in order if intervals.verdict((0.0, upper[i]), 0.6) == "met")
        over_naive += truth[naive] > 0.6
        over_bound += truth[bound] > 0.6
    assert over_bound / searches <= 0.05
    assert over_naive / searches > 0.25


def test_bounds_of_rounds_are_the_t_interval_of_log_medians():
    rounds = [[9.0, 10.0, 11.0], [12.0], [8.0, 10.0]]
    logs = np.log([10.0, 12.0, 9.0])
    expected = stats.t.interval(0.95, 2, logs.mean(), stats.sem(logs))
    assert np.allclose(intervals.median_bounds(rounds), np.exp(expected))


def test_ratio_bounds_pair_sample_by_sample():
    rounds = [([1.0, 4.0], [2.0, 8.0]), ([5.0], [10.0])]
    assert intervals.pair_ratios(*rounds[0]).tolist() == [0.5, 0.5]
    assert np.allclose(intervals.ratio_bounds(rounds), (0.5, 0.5))


def test_widening_scales_the_log_half_width():
    rounds = [[1.0], [1.1], [1.2]]
    narrow, wide = intervals.median_bounds(rounds), intervals.median_bounds(rounds, scale=1.15)
    assert math.isclose(math.log(wide[1] / wide[0]), 1.15 * math.log(narrow[1] / narrow[0]))


@pytest.mark.parametrize("rounds", [[], [[]], [[1.0]], [[0.0, 0.0], [0.0]], [[1.0, -1.0], [1.0]], [[math.nan], [1.0]]])
def test_what_is_not_known_is_ambiguous_for_every_budget(rounds):
    bounds = intervals.median_bounds(rounds)
    assert bounds == intervals.UNKNOWN
    assert intervals.verdict(bounds, 1e9) == "ambiguous"


def test_verdicts_at_the_edges():
    assert intervals.verdict((1.0, 2.0), 2.0) == "met"
    assert intervals.verdict((2.0, 3.0), 2.0) == "ambiguous"
    assert intervals.verdict((2.1, 3.0), 2.0) == "missed"


def test_pairs_must_match_and_zero_dense_times_say_nothing():
    with pytest.raises(ValueError, match="every run must have a dense partner, but got 1 and 2"):
        intervals.pair_ratios([1.0], [1.0, 2.0])
    assert intervals.ratio_bounds([([1.0, 1.0], [0.0, 0.0])]) == intervals.UNKNOWN


def test_no_other_module_has_a_quantile():
    """Every half-width, bound and multiple of a standard error in the package is a function of `intervals`."""
    package = Path(intervals.__file__).parent
    owned = re.compile(
        r"import scipy|from scipy|1\.96|1\.645|2\.576|NormalDist|2 ?\*\* ?0\.5"  # a quantile, or one of a difference
        r"|\* (np\.|math\.)?(hypot\(|(\w+\.)*(standard_)?error\b)|(standard_)?error \*(?!\*)"  # so many standard errors
    )
    found = {
        f"{path.relative_to(package)}: {line.strip()}"
        for path in package.rglob("*.py")
        if path.name != "intervals.py"
        for line in path.read_text().splitlines()
        if owned.search(line)
    }
    assert not found


def test_half_widths_and_chance_differences_are_the_normal_ones():
    assert intervals.half_width(1) == pytest.approx(stats.norm.ppf(0.975), abs=1e-4)
    assert intervals.normal_bounds(10, 2) == pytest.approx((10 - 3.92, 10 + 3.92))
    assert intervals.chance_difference(3, 4) == 10
    assert intervals.propagated((2, 1.5), (-1, 4)) == 5  # of 2 a - b, whose errors are 1.5 and 4
