"""A calibration's trainings as an Optuna study of their own, beside the search's in the same storage.

It is a picture for the dashboard: what is true lies in the study's folder, and every start draws it anew.
"""

from __future__ import annotations

import warnings
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial

from nash_search.calibration_record import HIGHEST, LOWEST, ShortTraining
from nash_search.pareto import Direction

SUFFIX = "-calibration"
LABELS: dict[str, BaseDistribution] = {"labels": CategoricalDistribution(("data", "teacher", "mixed"))}


class CalibrationStudy:
    """Rows of one calibration."""

    def __init__(self, storage: RDBStorage, name: str, metric: str, direction: Direction) -> None:
        """Begin it anew: nobody else writes here, for the search's lock is held."""
        known = {summary.study_name for summary in optuna.get_all_study_summaries(storage, include_best_trial=False)}
        self.name = name + SUFFIX
        if self.name in known:
            optuna.delete_study(study_name=self.name, storage=storage)
        self._study = optuna.create_study(storage=storage, study_name=self.name, direction=direction)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.set_metric_names([metric])

    def add(self, training: ShortTraining) -> None:
        """One training, a row; one without a quality is a failed row."""
        params = training.setting.model_dump()
        rates: dict[str, BaseDistribution] = {  # the recipe's own rate, where it begins, may lie anywhere
            name: FloatDistribution(min(LOWEST, params[name]), max(HIGHEST, params[name]), log=True)
            for name in ("learning_rate", "tune_learning_rate")
        }
        told: dict[str, Any] = {"steps": training.steps, "seconds": training.seconds, "validation_loss": training.loss}
        told |= {"failure": training.failure, "message": training.message} if training.failure else {}
        self._study.add_trial(
            create_trial(
                state=TrialState.FAIL if training.quality is None else TrialState.COMPLETE,
                value=training.quality,
                params=params,
                distributions=rates | LABELS,
                user_attrs=told,
            )
        )
