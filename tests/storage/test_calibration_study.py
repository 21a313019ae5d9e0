"""A calibration's rows for the dashboard: every start draws them anew and leaves other studies alone."""

import optuna

from nash_search.calibration_record import Setting, ShortTraining
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
