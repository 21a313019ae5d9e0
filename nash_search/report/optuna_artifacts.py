"""What the Optuna dashboard is given beside its own plots: our front, our hypervolume, and of every trial
a note, its learning curve and its card.

Its "Best Trials" and Pareto plot know no budgets, intervals or dense model, so the budget-aware
front is saved again after every trial under a fixed id. All of it goes into the *study's* system
attributes, after the trial was told, so no tell waits for a picture or is lost with one:

    dashboard:<trial>:note_ver, :note_str      the note                     (optuna_dashboard.save_note)
    dashboard:note_ver, note_str               the study's: each budget's answer and the front, once they are known
    dashboard:artifacts:<trial>:<artifact>     name and type of a file      <study>/artifacts/<artifact>

An artifact's id follows from study, trial and file name, so whatever is missing (a crash, a study rebuilt
from its folders) is added at the next trial, and nothing twice. A lost plot is never worth a lost trial: a
storage that fails is reported once and left alone.
"""

from __future__ import annotations

import io
import json
import logging
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nash_search.records import TrialRecord
from nash_search.report import escape, learning_curve, plots
from nash_search.report.card import trial_card
from nash_search.report.columns import quality_words, widths_words
from nash_search.report.console import StudyState
from nash_search.report.dashboard import ARTIFACTS
from nash_search.report.markdown import aligned, answers
from nash_search.report.points import Point
from nash_search.report.view import StudyView, build
from nash_search.report.words import format_count, format_duration, format_ms, format_quality, format_spread
from nash_search.summaries import Plan

log = logging.getLogger(__name__)

CURVE, CARD = "curve.svg", "card.md"
_TYPES = {CURVE: "image/svg+xml", CARD: "text/markdown"}


class StudyPlots:
    """Listener that keeps the dashboard's plots, notes and artifacts up to date."""

    def __init__(self, open_study: Callable[[str], Any], results: Path) -> None:
        """`open_study` opens the Optuna study of a name; its folder lies in `results`."""
        self._open, self._results = open_study, results
        self._study: Any = None
        self._name = ""
        self._plan = Plan()
        self._failed = False

    def on_stage(self, stage: str, detail: Mapping[str, Any]) -> None:
        """Remember the study's name and the plan."""
        if stage == "workload":
            self._name = str(detail["study"])
        elif stage == "plan":
            self._plan = Plan.model_validate(detail)

    def on_trial(self, record: TrialRecord, state: StudyState) -> None:
        """Save the front so far, and what trials lack."""
        self._save(lambda: build(state.records, self._plan.begun()))

    def on_progress(self, number: int, stage: str, step: int, steps: int, loss: float) -> None:
        """Nothing is drawn inside a trial."""

    def finish(self, view: StudyView, cards: Mapping[int, str]) -> None:
        """Save the certified front and the answers; a certified trial's card is its export's."""
        self._save(lambda: view, cards)
        if not self._failed and self._study is not None:
            answer_in_note(self._study, view)

    def _save(self, made: Callable[[], StudyView], cards: Mapping[int, str] | None = None) -> None:
        if self._failed:
            return
        try:
            self._study = self._study or self._open(self._name)
            view = made()
            save_to_study(self._study, view)
            attach(self._study, view, self._results / self._name / ARTIFACTS, cards or {})
        except Exception as error:  # any storage, any driver: pictures must not end a search
            self._failed = True
            log.warning("the dashboard's plots are not updated any more: %s", error)


def save_to_study(study: Any, view: StudyView) -> None:
    """Keep the budget-aware front and the hypervolume in an Optuna study."""
    from optuna_dashboard import save_plotly_graph_object

    titled = (
        ("front", "The front, with budgets and intervals", plots.front(view)),
        ("hypervolume", "Hypervolume of the front", plots.progress(view)),
    )
    for name, title, figure in titled:
        if figure is not None:
            figure.update_layout(title={"text": title, "x": 0.02, "xanchor": "left"}, margin={"t": 120})
            save_plotly_graph_object(study, figure, graph_object_id=name)


def answer_in_note(study: Any, view: StudyView) -> None:
    """Each budget's answer and the front as the study's note; one that somebody else wrote is left alone."""
    from optuna_dashboard import get_note, save_note

    found, said = get_note(study), answers(view)
    head = said.split("\n")[0]
    if found != said and (not found or found.startswith(head)):
        save_note(study, said)


def attach(study: Any, view: StudyView, folder: Path, cards: Mapping[int, str]) -> None:
    """Give every decided trial the note and the artifacts it lacks.

    Args:
        study: the Optuna study.
        view: what its trials found.
        folder: where artifacts lie; made when first needed.
        cards: trial number to the text that its card becomes, whatever it was.
    """
    from optuna.artifacts import FileSystemArtifactStore
    from optuna_dashboard import save_note

    storage, study_id = study._storage, study._study_id
    known = storage.get_study_system_attrs(study_id)
    points = {p.number: p for p in view.points}
    folder.mkdir(mode=0o700, exist_ok=True)
    store = FileSystemArtifactStore(str(folder))
    for trial in study.get_trials(deepcopy=False):
        point = points.get(trial.number)
        if point is None:
            continue
        trial_id = trial._trial_id
        if f"dashboard:{trial_id}:note_ver" not in known:
            # what `save_note` reads of a live trial; a finished one cannot be opened as such
            save_note(SimpleNamespace(storage=storage, study=study, _trial_id=trial_id), note(point, view))
        for place, name in enumerate((CURVE, CARD)):  # databases list attributes by key
            unique = uuid.uuid5(uuid.NAMESPACE_URL, f"nash-search:{view.study}/{trial.number}/{name}")
            artifact_id = f"{place}-{unique}"
            key = f"dashboard:artifacts:{trial_id}:{artifact_id}"
            if key in known and not (name == CARD and trial.number in cards):
                continue
            text = cards.get(trial.number, "") if name == CARD else ""
            text = text or _artifact(name, point, view)
            if text:
                store.write(artifact_id, io.BytesIO(text.encode("utf-8")))
                meta = {"artifact_id": artifact_id, "filename": name, "mimetype": _TYPES[name], "encoding": None}
                storage.set_study_system_attr(study_id, key, json.dumps(meta))


def _artifact(name: str, p: Point, view: StudyView) -> str:
    """The file's text; empty where the trial has none."""
    if name == CURVE:
        return learning_curve.svg(p, view)
    return trial_card(view, p) if p.measured else ""


def note(p: Point, view: StudyView) -> str:
    """One trial in Markdown: its numbers, what was kept, how quality grew."""
    record = p.record
    rows = [] if p.dense else [["status", p.status]]
    if p.reason and not p.dense:
        rows.append(["why", escape.markdown(p.reason)])
    if p.ms is not None:
        words = f"{format_ms(p.ms)} ms{format_spread(p.low_ms, p.high_ms)}"
        rows.append(["latency", words if p.dense else f"{words}, {p.speedup or 0:.2f}× faster than dense"])
        if record.latency is not None and record.latency.contended_share:
            rows.append(["contended", f"{record.latency.contended_share:.0%} of the timed calls"])
    if record.quality is not None:
        drop = "" if p.drop is None else f", drop {format_quality(p.drop, view.scale)}"
        rows.append([escape.markdown(view.metric), f"{quality_words(p, view.scale)} on {view.split}{drop}"])
    if record.shapes is not None:
        rows.append(["heads, neurons", escape.markdown(widths_words(p).replace(" | ", ", "))])
        rows.append(["decoder blocks", ", ".join(map(str, record.shapes.decoder_blocks))])
    if record.parameters is not None:
        rows.append(["parameters", format_count(record.parameters)])
    if record.curve:
        curve = ", ".join(f"{format_quality(c.value, view.scale)} at step {c.step}" for c in record.curve)
        rows.append(["curve", curve])
    if record.train_s:
        rows.append(["training", format_duration(record.train_s)])
    return aligned([escape.markdown(p.label), ""], rows, "ll")
