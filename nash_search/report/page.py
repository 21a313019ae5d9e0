"""`report.html`: one file that holds everything and asks the network for nothing.

    StudyView -> Jinja2 (autoescape on, undefined names are errors) -> one page
        <meta CSP>  default-src 'none'; script-src = the hashes of the page's own scripts
        <script type=application/json>  the figures, `<` as \\u003c
        <script>    plotly.min.js, then 50 lines of our own

The policy allows no network and no eval; a script that slipped in would have the wrong hash.
Plotly draws with style attributes, so inline *styles* stay allowed. Pages are 5 MB: share them,
commit `report.md`. Figures are made by `plots` and `picture`.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from nash_search.files import replace
from nash_search.report import columns, engines, escape, evidence, markdown, picture, plots
from nash_search.report.columns import Column, Look, standing
from nash_search.report.picks import Pick
from nash_search.report.points import Dense, Point
from nash_search.report.text import load_lines_of
from nash_search.report.view import StudyView
from nash_search.report.words import (
    at_most,
    data_words,
    format_duration,
    format_ms,
    format_quality,
    format_scored,
    is_share,
    named,
    recipe_words,
)

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Cell:
    """A table cell: what is read, and what it is sorted by."""

    text: str
    value: str
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """Heads with their kinds, and rows with their styles."""

    heads: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]

    @classmethod
    def of(
        cls,
        named: Sequence[Column],
        view: StudyView,
        rows: Sequence[columns.Row],
        style: Callable[[columns.Row, StudyView], str],
    ) -> Table:
        """The columns of a study that stand on its page."""
        look = Look(view=view)
        shown = standing(named, look)

        def cell(column: Column, row: columns.Row) -> Cell:
            text = column.cell(row, look)
            key = column.sorts(row, look) if column.sorts else text
            return Cell(text, "" if key is None else str(key), column.kind)

        return cls(
            tuple((column.named(look), column.kind) for column in shown),
            tuple((style(row, view), tuple(cell(column, row) for column in shown)) for row in rows),
        )


def write(view: StudyView, folder: Path) -> list[Path]:
    """Write `front.*`, `report.md` and `report.html` into a folder; return the paths."""
    written = picture.save_front(view, folder)
    for name, text in (("report.md", markdown.render(view)), ("report.html", render(view))):
        replace(folder / name, text.encode("utf-8"))
        written.append(folder / name)
    return written


def render(view: StudyView) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plotly = (importlib.resources.files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8")
    script = (_TEMPLATES / "report.js").read_text("utf-8")
    figures = {
        shade: {name: figure.to_plotly_json() for name, figure in plots.figures(view, dark=shade == "dark").items()}
        for shade in ("light", "dark")
    }
    return environment.get_template("report.html.j2").render(
        view=view,
        caption=picture.caption(view),
        names=list(figures["light"]),
        figures_json=escape.script_json(figures),
        plotly=plotly,
        script=script,
        css=(_TEMPLATES / "report.css").read_text("utf-8"),
        script_hashes=" ".join(_hash(s) for s in (plotly, script)),
        still=_still(view),
        requests_told=evidence.told(view),
        tables={
            "front": Table.of(columns.FRONT, view, view.front_rows, _front_style),
            "trials": Table.of(columns.TRIALS, view, view.points, _trial_style),
        },
        trial_words=trial_words(view),
        load=load_lines_of(view),
        command=escape.plain(view.summary.command, 2000),
        data=data_words(view.summary.data) if view.summary.data is not None else "",
        environment=view.environment,
        budget_words=budget_words,
        unpruned=engines.reminders(view.summary.engines),
        ms=format_ms,
        at_most=at_most,
        quality=lambda value: format_quality(value, view.scale),
        scored=format_scored,
    )


def budget_words(pick: Pick) -> str:
    """`50% of dense (34.1 ms)`, `50% of dense at p95 (34.1 ms)` or `34 ms`."""
    if not is_share(pick.asked):
        return named(pick.asked)
    bound, _, percentile = named(pick.asked).partition(" at ")
    return f"{bound} of dense{f' at {percentile}' if percentile else ''} ({format_ms(pick.budget_ms)} ms)"


def trial_words(view: StudyView) -> str:
    """`13 complete, 1 stopped, 1 failed; 7 min of training.`"""
    counted = {
        status: sum(p.status == status for p in view.points)
        for status in ("complete", "stopped", "infeasible", "failed")
    }
    said = view.summary.trials
    if sum(said.values()) > len(view.points):  # a study that came without its trials
        words = ", ".join(f"{n} {escape.plain(status, 20)}" for status, n in said.items() if n)
        return f"{words}; {format_duration(view.summary.train_s)} of training. The front alone is listed."
    words = ", ".join(f"{n} {status}" for status, n in counted.items() if n)
    spent = sum(p.record.train_s for p in view.points) or view.summary.train_s  # where no record came with the study
    found = view.summary.calibration
    recipe = "" if found is None else escape.plain(f" Recipe: {recipe_words(found)}.", 400)
    return f"{words or 'none yet'}; {format_duration(spent)} of training.{recipe}"


def _front_style(row: columns.Row, view: StudyView) -> str:
    if isinstance(row, Dense):
        return "dim"
    return "front" if view.picked_for(row) else ""


def _trial_style(row: columns.Row, view: StudyView) -> str:
    return "front" if isinstance(row, Point) and row.on_front else "dim"


def _hash(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode()
    return f"'sha256-{digest}'"


def _still(view: StudyView) -> str:
    """The front as a data URI, for a reader without scripts."""
    if not view.drawn:
        return ""
    return "data:image/svg+xml;base64," + base64.b64encode(picture.rendered(view, "svg")).decode()
