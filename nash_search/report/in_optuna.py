"""What the Optuna dashboard is given beside its own plots: our front, our hypervolume, a note per trial.

Its "Best Trials" and Pareto plot know no budgets, intervals or dense model, so the budget-aware
front is saved again after every trial under a fixed id. Everything goes into the study's system
attributes through `optuna_dashboard`; a lost plot is never worth a lost trial, so a storage that
fails is reported once and left alone. This module refuses to know how the study came about.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from nash_search.records import TrialRecord
from nash_search.report import escape, plots
from nash_search.report.answer import quality_words, widths_words
from nash_search.report.markdown import aligned
from nash_search.report.picks import Point
from nash_search.report.table import StudyState
from nash_search.report.view import StudyView, build
from nash_search.report.words import format_count, format_duration, format_ms, format_quality, format_spread

log = logging.getLogger(__name__)


class StudyPlots:
    """Listener that keeps the dashboard's plots and notes up to date."""

    def __init__(self, open_study: Callable[[], Any]) -> None:
        self._open, self._study = open_study, None
        self._plan: dict[str, Any] = {}
        self._failed = False

    def on_stage(self, stage: str, detail: Mapping[str, Any]) -> None:
        """Remember the plan."""
        if stage == "plan":
            self._plan = dict(detail)

    def on_trial(self, record: TrialRecord, state: StudyState) -> None:
        """Save the front so far and the trial's note."""
        if self._failed:
            return
        try:
            self._study = self._study or self._open()
            view = build(state.records, self._plan)
            save_to_study(self._study, view)
            save_note(self._study, view, record.number)
        except Exception as error:  # any storage, any driver: pictures must not end a search
            self._failed = True
            log.warning("the dashboard's plots are not updated any more: %s", error)

    def on_progress(self, number: int, stage: str, step: int, steps: int, loss: float) -> None:
        """Nothing is drawn inside a trial."""


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


def save_note(study: Any, view: StudyView, number: int) -> None:
    """Write the trial's note; works on finished trials, whose notes lie with the study."""
    from optuna_dashboard import save_note as save

    trial = next((t for t in study.get_trials(deepcopy=False) if t.number == number), None)
    point = next((p for p in view.points if p.number == number), None)
    if trial is not None and point is not None:
        # what `save` reads of a live trial; a finished one cannot be opened as such
        save(SimpleNamespace(storage=study._storage, study=study, _trial_id=trial._trial_id), note(point, view))


def note(p: Point, view: StudyView) -> str:
    """One trial in Markdown: its numbers, what was kept, how quality grew."""
    record = p.record
    rows = [["status", p.status]]
    if p.reason:
        rows.append(["why", escape.markdown(p.reason)])
    if p.ms is not None:
        words = f"{format_ms(p.ms)} ms{format_spread(p.low_ms, p.high_ms)}, {p.speedup or 0:.2f}× faster than dense"
        rows.append(["latency", words])
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
