"""Keeps the pictures of a running study current, and writes the rest when it is done.

After each trial the front and the hypervolume are saved into the Optuna study, so that the dashboard shows
ours; at the end every export gets its card, and the study's folder its pictures. This module refuses to
know how a picture is drawn and how a study is searched: it hands one to the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nash_search.config import SearchConfig
from nash_search.report import card, files, folder, page
from nash_search.report.in_optuna import StudyPlots
from nash_search.search import certify

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
    write_cards(found, study, config)
    return found, [str(path) for path in page.write(found, study)]


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
