"""A calibration's rows for the dashboard: every start draws them anew and leaves other studies alone."""

import optuna
import pytest

from nash_search.calibration_record import HIGHEST, LOWEST, Setting, ShortTraining
from nash_search.files import sqlite_url
from nash_search.storage.calibration_study import CalibrationStudy
from nash_search.storage.study import open_storage

SETTING = Setting(learning_rate=1e-3, tune_learning_rate=2e-3, labels="mixed")


def test_rows_are_drawn_anew_beside_other_studies(tmp_path):
    storage = open_storage(sqlite_url(tmp_path / "study.db"))
    optuna.create_study(storage=storage, study_name="s")
    for _ in range(2):
        rows = CalibrationStudy(storage, "s", "bleu", "maximize")
        rows.add(ShortTraining(setting=SETTING, steps=9, quality=30.0, loss=1.5, seconds=2.0))
        rows.add(ShortTraining(setting=SETTING, steps=27, failure="nan", message="loss"))
    study = optuna.load_study(study_name="s-calibration", storage=storage)
    assert [(t.state.name, t.value) for t in study.trials] == [("COMPLETE", 30.0), ("FAIL", None)]
    assert study.trials[0].params == SETTING.model_dump() and study.trials[1].user_attrs["failure"] == "nan"
    assert optuna.load_study(study_name="s", storage=storage).trials == []


@pytest.mark.parametrize("rate", [1e-7, LOWEST, HIGHEST, 0.2])
def test_a_recipe_may_begin_at_any_rate(tmp_path, rate):
    rows = CalibrationStudy(open_storage(sqlite_url(tmp_path / "study.db")), "s", "bleu", "maximize")
    far = Setting(learning_rate=1e-3, tune_learning_rate=rate, labels="data")
    for setting in (SETTING, far, SETTING):
        rows.add(ShortTraining(setting=setting, steps=9, quality=30.0))
    study = optuna.load_study(study_name="s-calibration", storage=sqlite_url(tmp_path / "study.db"))
    assert [t.params["tune_learning_rate"] for t in study.trials] == [2e-3, rate, 2e-3]
