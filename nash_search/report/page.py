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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from nash_search.files import replace
from nash_search.report import engines, escape, markdown, picture, plots
from nash_search.report.picks import Pick
from nash_search.report.points import Point
from nash_search.report.text import load_lines, quality_words, trained_words, widths_words
from nash_search.report.view import StudyView
from nash_search.report.words import (
    at_most,
    data_words,
    format_count,
    format_duration,
    format_ms,
    format_quality,
    format_real_time,
    format_scored,
    format_spread,
    is_share,
    named,
    recipe_words,
)

_TEMPLATES = Path(__file__).parent / "templates"

FRONT_COLUMNS = (
    ("kept", "words"),
    ("ms", ""),
    ("speed-up", ""),
    ("quality", ""),
    ("drop", ""),
    ("size", ""),
    ("heads | neurons kept", "words"),
    ("picked for", "words"),
)
TRIAL_COLUMNS = (
    ("trial", ""),
    ("kept", "words"),
    ("status", "words"),
    ("ms", ""),
    ("speed-up", ""),
    ("quality", ""),
    ("drop", ""),
    ("size", ""),
    ("trained", ""),
    ("seed", ""),
    ("remark", "reason"),
)


@dataclass(frozen=True)
class Cell:
    """A table cell: what is read, and what it is sorted by."""

    text: str
    value: str
    kind: str = ""


@dataclass(frozen=True)
class Row:
    """A table row."""

    cells: tuple[Cell, ...]
    style: str


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
    loaded = view.loaded
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
        front_columns=[
            *_named(FRONT_COLUMNS, view),
            *[("trained", "words")] * _finished(view),
            *[("real-time factor", "")] * view.hears,
        ],
        front_rows=[*(_front_row(p, view) for p in view.front), *_dense_rows(view)],
        trial_columns=_named(TRIAL_COLUMNS, view),
        trial_rows=[_trial_row(p, view) for p in view.points],
        trial_words=trial_words(view),
        load=load_lines(loaded, view.dtype, inputs=view.inputs) if loaded else [],
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


def _named(columns: Sequence[tuple[str, str]], view: StudyView) -> list[tuple[str, str]]:
    """The columns, latencies under the name of what they are."""
    return [(view.ms_name if name == "ms" else name, kind) for name, kind in columns]


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
    spent = sum(p.record.train_s for p in view.points)
    found = view.summary.calibration
    recipe = "" if found is None else escape.plain(f" Recipe: {recipe_words(found)}.", 400)
    return f"{words or 'none yet'}; {format_duration(spent)} of training.{recipe}"


def _front_row(p: Point, view: StudyView) -> Row:
    chosen = ", ".join(view.picked_for(p))
    return Row(
        (
            Cell(p.label, _key(p), "words"),
            Cell(f"{format_ms(p.ms)}{format_spread(p.low_ms, p.high_ms)}", _number(p.ms)),
            Cell(f"{p.speedup or 0:.2f}×", _number(p.speedup)),
            Cell(quality_words(p, view.scale), _number(p.quality)),
            Cell(format_quality(p.drop, view.scale), _number(p.drop)),
            Cell(format_count(p.record.parameters), _number(p.record.parameters)),
            Cell(widths_words(p), _number(p.record.parameters), "words"),
            Cell(escape.plain(chosen), escape.plain(chosen), "words"),
            *[Cell(trained_words(p, view.scale), _number(p.record.train_steps), "words")] * _finished(view),
            *_real_time(p.ms, view),
        ),
        "front" if chosen else "",
    )


def _real_time(ms: float | None, view: StudyView) -> list[Cell]:
    """The share of real time that a latency is, where inputs are recordings."""
    factor = view.real_time(ms)
    return [Cell(format_real_time(factor), _number(factor))] * view.hears


def _finished(view: StudyView) -> bool:
    """Was any model of the front trained at length?"""
    return any(p.record.finish_steps for p in view.front)


def _dense_rows(view: StudyView) -> list[Row]:
    """The dense model under the front, where there is one."""
    dense = view.dense
    if dense is None:
        return []
    spread = format_spread(dense.low_ms, dense.high_ms)
    wide = ""
    if dense.quality is not None and dense.high is not None:
        wide = f" ± {format_quality(dense.high - dense.quality, view.scale)}"
    cells = (
        Cell("dense", "", "words"),
        Cell(f"{format_ms(dense.ms)}{spread}", _number(dense.ms)),
        Cell("1.00×", "1.0"),
        Cell(f"{format_quality(dense.quality, view.scale)}{wide}", _number(dense.quality)),
        Cell("", ""),
        Cell(format_count(dense.parameters), _number(dense.parameters)),
        Cell("", "", "words"),
        Cell("", "", "words"),
    )
    return [Row((*cells, *[Cell("", "", "words")] * _finished(view), *_real_time(dense.ms, view)), "dim")]


def _trial_row(p: Point, view: StudyView) -> Row:
    speedup = "–" if p.speedup is None else f"{p.speedup:.2f}×"
    trained = format_duration(p.record.train_s) if p.record.train_s else "–"
    remark = escape.plain(p.reason, 300)
    if not remark and p.record.latency is not None and p.record.latency.status == "contended":
        remark = f"{p.record.latency.contended_share:.0%} of its timings were contended"
    return Row(
        (
            Cell(str(p.number), str(p.number)),
            Cell(p.label, _key(p), "words"),
            Cell(p.status, p.status, "words"),
            Cell(f"{format_ms(p.ms)}{format_spread(p.low_ms, p.high_ms)}", _number(p.ms)),
            Cell(speedup, _number(p.speedup)),
            Cell(quality_words(p, view.scale), _number(p.quality)),
            Cell(format_quality(p.drop, view.scale), _number(p.drop)),
            Cell(format_count(p.record.parameters), _number(p.record.parameters)),
            Cell(trained, _number(p.record.train_s or None)),
            Cell(str(p.record.seed), str(p.record.seed)),
            Cell(remark, remark, "reason"),
        ),
        "front" if p.on_front else "dim",
    )


def _key(p: Point) -> str:
    """Sorts by depth, then width."""
    return str(p.architecture.decoder_layers * 1000 + 100 - p.architecture.encoder_sparsity_pct)


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)


def _hash(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode()
    return f"'sha256-{digest}'"


def _still(view: StudyView) -> str:
    """The front as a data URI, for a reader without scripts."""
    if not view.drawn:
        return ""
    return "data:image/svg+xml;base64," + base64.b64encode(picture.rendered(view, "svg")).decode()
