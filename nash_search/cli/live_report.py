"""Keeps the pictures of a running study current, and writes the rest when it is done.

After each trial the front, the hypervolume and what belongs to the trial are saved into the Optuna study, and a
guarded dashboard shows them while the search runs; at the end every export gets its card, and the study's folder
its pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nash_search.config import SearchConfig
from nash_search.errors import InvalidInput
from nash_search.report import exports, load, page
from nash_search.report.dashboard import ARTIFACTS, Dashboard, database_url, open_storage
from nash_search.report.optuna_artifacts import StudyPlots
from nash_search.results import Answers

if TYPE_CHECKING:
    from nash_search.report.view import StudyView

PORT = 8080


def study_plots(config: SearchConfig, results: Path) -> StudyPlots:
    """The listener that keeps the dashboard's plots, notes and artifacts of this study up to date."""

    def opened(name: str) -> Any:
        import optuna

        from nash_search.storage.study import open_storage as for_writing

        return optuna.load_study(study_name=name, storage=for_writing(database_url(config.storage, results / name)))

    return StudyPlots(opened, results)


class LiveDashboard:
    """A listener that serves the study's dashboard, read-only, from when its study exists until the run ends."""

    def __init__(self, config: SearchConfig, results: Path) -> None:
        self._config, self._results, self._name = config, results, ""
        try:
            self._dashboard = Dashboard(port=PORT)
        except InvalidInput:  # somebody is there already
            self._dashboard = Dashboard()
        self.url = self._dashboard.url

    def __enter__(self) -> LiveDashboard:
        self._dashboard.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._dashboard.close()

    def on_stage(self, stage: str, detail: Mapping[str, Any]) -> None:
        """The study exists once its search begins."""
        if stage == "workload":
            self._name = str(detail["study"])
        elif stage == "search":
            study = self._results / self._name
            self._dashboard.show(open_storage(database_url(self._config.storage, study)), self._name, study / ARTIFACTS)

    def on_trial(self, record: Any, state: Any) -> None:
        """The page asks by itself."""

    def on_progress(self, number: int, stage: str, step: int, steps: int, loss: float) -> None:
        """The page asks by itself."""


def finish(study: Path, config: SearchConfig, plots: StudyPlots, answers: Answers) -> tuple[StudyView, list[str]]:
    """Cards, pictures and the report of a finished study; the view, and the files to look at."""
    found = load.load(study, answers)
    files = restate(study, config, found)
    plots.finish(found, exports.cards(found, study))
    return found, files


def restate(study: Path, config: SearchConfig, found: StudyView | None = None) -> list[str]:
    """Cards and the report of a study as it is now; the files to look at."""
    found = found or load.load(study)
    teacher = config.model or f"{config.task.name}, the teacher shipped with nash-search"
    data = config.task.data or "CMU Pronouncing Dictionary"
    exports.write_cards(study, found, teacher=teacher, data=data)
    return [str(path) for path in page.write(found, study)]
