"""Keeps the pictures of a running study current, and writes the rest when it is done.

After each trial the front and the hypervolume are saved into the Optuna study, so that the dashboard shows
ours; at the end every export gets its card, and the study's folder its pictures. This module refuses to
know how a picture is drawn and how a study is searched: it hands one to the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nash_search.config import SearchConfig
from nash_search.report import exports, folder, page
from nash_search.report.in_optuna import StudyPlots

if TYPE_CHECKING:
    from nash_search.report.view import StudyView


def study_plots(config: SearchConfig, results: Path) -> StudyPlots:
    """The listener that keeps the dashboard's plots and notes of this study up to date."""

    def opened() -> Any:
        import optuna

        url = config.storage or f"sqlite:///{(results / config.study_name / 'study.db').resolve()}"
        return optuna.load_study(study_name=config.study_name, storage=url)

    return StudyPlots(opened)


def finish(study: Path, config: SearchConfig) -> tuple[StudyView, list[str]]:
    """Cards, pictures and the report of a finished study; the view, and the files to look at."""
    found = folder.load(study)
    teacher = config.model or f"{config.task.name}, the teacher shipped with nash-search"
    data = config.task.data or "CMU Pronouncing Dictionary"
    exports.write_cards(study, found, teacher=teacher, data=data)
    return found, [str(path) for path in page.write(found, study)]
