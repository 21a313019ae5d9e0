"""Short trainings in order: the metric decides, the loss between equals, what has no quality is left out."""

import pytest

from nash_search.calibration_record import Calibration, Setting, ShortTraining, best_first, flat
from nash_search.config import Architecture
from nash_search.recipes import PruningRecipe
from nash_search.records import TrialRecord

HALF = Architecture(encoder_sparsity_pct=30, decoder_layers=3)


def training(rate, quality, loss=1.0, steps=10):
    setting = Setting(learning_rate=rate, tune_learning_rate=rate, labels="data")
    return ShortTraining(setting=setting, steps=steps, quality=quality, loss=loss, seconds=1.0)


def test_the_metric_decides_whichever_way_it_points_and_the_loss_between_equals():
    some = [training(1, 5.0, 2.0), training(2, 7.0, 9.0), training(3, 7.0, 3.0), training(4, None)]
    assert [t.setting.learning_rate for t in best_first(some, "maximize")] == [3, 2, 1]
    assert [t.setting.learning_rate for t in best_first(some, "minimize")] == [1, 3, 2]
    assert not flat(some) and flat([some[1], some[2]]) and not flat(some[:1]) and not flat(some[3:])


def test_a_setting_is_part_of_a_recipe():
    recipe = PruningRecipe(learning_rate=1e-4, tune_learning_rate=2e-4, labels="teacher")
    found = Setting.of(recipe)
    assert found.within(PruningRecipe(batch_size=7)) == recipe.model_copy(update={"batch_size": 7})


def test_a_training_is_read_from_a_record_that_has_its_recipe():
    recipe = PruningRecipe(narrow_steps=4, tune_steps=6)
    record = TrialRecord(number=0, architecture=HALF, failure="nan", message="no", recipe=recipe)
    assert ShortTraining.of(record) == ShortTraining(setting=Setting.of(recipe), steps=10, failure="nan", message="no")
    with pytest.raises(ValueError, match="must have its recipe"):
        ShortTraining.of(record.model_copy(update={"recipe": None}))


def test_the_best_is_the_chosen_settings_longest():
    short, long = training(1e-3, 5.0), training(1e-3, 6.0, steps=30)
    found = Calibration(
        architecture=HALF, metric="x", direction="maximize", examples=4, trainings=(short, training(2e-3, 9.0), long),
        chosen=short.setting, limit_s=9,
    )  # fmt: skip
    assert found.best == long and found.seconds == 3.0
