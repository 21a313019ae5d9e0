"""A finished synthetic study as Optuna has it."""

from __future__ import annotations

import optuna


def study_of(result):
    """The study `s` that a search left."""
    return optuna.load_study(study_name="s", storage=f"sqlite:///{result.folder}/study.db")
