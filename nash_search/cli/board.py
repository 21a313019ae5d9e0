"""Keeps the pictures of a running study current, and writes the rest when it is done.

A listener of the search: after each trial the front and the hypervolume are saved into the Optuna study,
so that the dashboard shows ours; at the end every export gets its card, and the folder its pictures.
A picture that fails must never end a search: it is left out and said in the log file.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nash_search.config import SearchConfig
from nash_search.records import TrialRecord
from nash_search.report import card, files, folder, page, view
from nash_search.search import certify

if TYPE_CHECKING:
    from nash_search.report.view import StudyView

log = logging.getLogger("nash_search")


class Board:
    """Pictures of one study."""

    def __init__(self, config: SearchConfig, results: Path) -> None:
        self._config = config
        self._results = results
        self._plan: dict[str, Any] = {}
        self._study: Any = None

    def on_stage(self, stage: str, detail: Mapping[str, Any]) -> None:
        """`plan` says what is known before anything is spent."""
        if stage == "plan":
            self._plan = dict(detail)

    def on_trial(self, record: TrialRecord, state: Any) -> None:
        """Draw the study as it is now into the study itself."""
        try:
            from nash_search.report import plots

            plots.save_to_study(self._opened(), view.build(state.records, self._plan))
        except Exception:
            log.exception("the dashboard's plots could not be saved")

    def on_progress(self, number: int, stage: str, step: int, steps: int, loss: float) -> None:
        """Nothing to draw inside a trial."""

    def finish(self, study: Path) -> tuple[StudyView, list[str]]:
        """Cards, pictures and the report of a finished study; the view and the files written."""
        found = folder.load(study)
        write_cards(found, study, self._config)
        return found, [str(path) for path in page.write(found, study)]

    def _opened(self) -> Any:
        if self._study is None:
            import optuna

            name = self._plan.get("study") or self._config.study_name
            url = self._config.storage or f"sqlite:///{(self._results / name / 'study.db').resolve()}"
            self._study = optuna.load_study(study_name=name, storage=url)
        return self._study


def write_cards(found: StudyView, study: Path, config: SearchConfig) -> None:
    """The README.md of every export, and of its copies below `best/`."""
    certification = certify.read(study)
    if certification is None:
        return
    teacher = config.model or f"{config.task.name}, the teacher shipped with nash-search"
    data = config.task.data or "CMU Pronouncing Dictionary"
    for point in certification.points:
        export = study / point.checkpoint
        stock = not (export / "modeling_nash.py").exists()
        text = card.card(
            found, point.number, name=export.name, teacher=teacher, data=data, stock=stock,
            latency=point.latency, test=point.test, dense_test=certification.dense_test,
        )  # fmt: skip
        files.replace(export / "README.md", text.encode())
    for copy in (study / certify.BEST).glob("*"):
        origin = next((p for p in certification.points if same_weights(study / p.checkpoint, copy)), None)
        if origin is not None:
            files.replace(copy / "README.md", (study / origin.checkpoint / "README.md").read_bytes())


def same_weights(first: Path, second: Path) -> bool:
    """Whether two exports hold the same weights (a winner's folder is a copy of its checkpoint)."""
    a, b = first / "model.safetensors", second / "model.safetensors"
    return a.is_file() and b.is_file() and a.read_bytes() == b.read_bytes()
