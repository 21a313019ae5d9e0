"""What is trained short: lengths and numbers from the trials, settings from anchors and a Gaussian process."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from nash_search.calibration_record import HIGHEST, LOWEST, Setting, ShortTraining
from nash_search.recipes import PruningRecipe
from nash_search.search.short_trainings import FEWEST, GRID, MOST, SHARE, STARTING_RATES, Rungs, next_setting, shortened


def setting(rate, tune=None):
    return Setting(learning_rate=rate, tune_learning_rate=tune or rate, labels="data")


def trained(rates, best=1e-3, direction=1):
    quality = [80 - 5 * math.log10(rate / best) ** 2 for rate in rates]
    return [
        ShortTraining(setting=setting(r), steps=50, quality=direction * q) for r, q in zip(rates, quality, strict=True)
    ]


@given(narrow=some.integers(0, 5000), tune=some.integers(1, 5000), trials=some.integers(1, 200))
def test_the_rungs_fit_into_a_quarter_of_the_trials_steps(narrow, tune, trials):
    recipe = PruningRecipe(narrow_steps=narrow, tune_steps=tune)
    rungs = Rungs.of(recipe, trials)
    if rungs is None:
        return
    assert FEWEST <= rungs.shorts <= MOST and rungs.short_steps <= rungs.long_steps <= recipe.trial_steps
    least = rungs.shorts * rungs.short_steps + rungs.long_steps  # labels and second best as far as they fit
    assert least <= SHARE * trials * recipe.trial_steps


def test_eight_trials_are_enough_and_one_is_not():
    recipe = PruningRecipe(narrow_steps=250, tune_steps=350)
    assert Rungs.of(recipe, 8) == Rungs(short_steps=67, long_steps=201, shorts=5)
    assert Rungs.of(recipe, 1) is None


@pytest.mark.parametrize(("narrow", "tune"), [(250, 350), (0, 100), (1500, 1500)])
def test_a_shortened_recipe_keeps_its_shape(narrow, tune):
    recipe = PruningRecipe(narrow_steps=narrow, tune_steps=tune, learning_rate=3e-3)
    short = shortened(recipe, 60)
    assert short.narrow_steps + short.tune_steps == 60 and short.rungs == 1 and short.learning_rate == 3e-3
    assert short.narrow_steps == pytest.approx(60 * narrow / (narrow + tune), abs=1)


@pytest.mark.parametrize("best", [2e-5, 1e-4, 7e-4, 3e-3, 2e-2])
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_few_proposals_come_within_a_factor_of_two_of_the_best_rate(best, direction):
    sign = 1 if direction == "maximize" else -1
    found = trained(STARTING_RATES, best, sign)
    for seed in range(5):
        new = next_setting(found, [], seed, direction)
        assert new not in [t.setting for t in found] and new in GRID
        off = sum(math.log10(rate / best) ** 2 for rate in (new.learning_rate, new.tune_learning_rate)) / 2
        found.append(ShortTraining(setting=new, steps=50, quality=sign * (80 - 5 * off)))
    nearest = max(found, key=lambda t: sign * t.quality).setting
    assert abs(math.log(nearest.learning_rate / best)) <= math.log(2.01)


def test_a_proposal_keeps_clear_of_what_runs_and_is_the_same_for_the_same_seed():
    found = trained(STARTING_RATES)
    first = next_setting(found, [], 0, "maximize")
    assert next_setting(found, [], 0, "maximize") == first
    assert next_setting(found, [first], 0, "maximize") != first


def test_rates_that_diverge_push_proposals_down():
    failed = [ShortTraining(setting=setting(rate), steps=50, failure="nan") for rate in (1e-3, 1e-2)]
    new = next_setting([*failed, *trained([1e-4], best=1e-4)], [], 0, "maximize")
    assert new.learning_rate < 1e-3
    assert next_setting(failed, [], 0, "maximize").learning_rate < 1e-2, "where none has a quality, near the lowest"


def test_the_grid_spans_three_and_a_half_decades_in_both_stages():
    for name in ("learning_rate", "tune_learning_rate"):
        rates = [getattr(s, name) for s in GRID]
        assert (min(rates), max(rates)) == (LOWEST, HIGHEST) and math.log10(HIGHEST / LOWEST) > 3
