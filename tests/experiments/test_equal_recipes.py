"""Each method by its own recipe: what is compared takes the same seconds and the same blocks."""

import pytest

from experiments.baselines import NASH, SFT
from experiments.equal_recipes import PAIRS, affordable, arms_of
from nash_search.calibration_record import Setting
from nash_search.config_loader import load_config


def test_the_others_steps_take_what_ours_take():
    for ours_s, theirs_s in ((0.2, 0.1), (0.13, 0.09), (0.1, 0.3)):
        steps = affordable(600, ours_s, theirs_s)
        assert steps * theirs_s == pytest.approx(600 * ours_s, abs=theirs_s / 2 + 1e-9)
    assert affordable(1, 0.1, 9.0) == 1


def test_every_pair_is_trained_by_its_own_recipe():
    config = load_config("g2p", {})
    rates = {
        NASH: Setting(learning_rate=1e-3, tune_learning_rate=2e-3, labels="mixed"),
        SFT: Setting(learning_rate=3e-4, tune_learning_rate=3e-4, labels="teacher"),
    }
    steps = {"alone": [700 + blocks for _, blocks in PAIRS.values()]}
    arms = arms_of(config, rates, steps)
    assert [arm.name for arm in arms] == [NASH] * 3 + [SFT] * 3
    recipes = [config.recipe.model_copy(update=arm.changes) for arm in arms]
    for recipe, (nash, _), arm in zip(recipes[:3], PAIRS.values(), arms[:3], strict=True):
        assert (recipe.learning_rate, recipe.tune_learning_rate, recipe.labels) == (1e-3, 2e-3, "mixed")
        assert recipe.kd_weight > 0 and recipe.trial_steps == config.recipe.trial_steps
        assert (arm.architecture.decoder_layers, arm.architecture.encoder_sparsity_pct) == nash
    for recipe, (_, blocks), arm in zip(recipes[3:], PAIRS.values(), arms[3:], strict=True):
        assert (recipe.kd_weight, recipe.hidden_weight, recipe.ce_weight) == (0, 0, 1)
        assert (recipe.tune_learning_rate, recipe.labels, recipe.trial_steps) == (3e-4, "teacher", 700 + blocks)
        assert (arm.architecture.decoder_layers, arm.architecture.encoder_sparsity_pct) == (blocks, 0)
