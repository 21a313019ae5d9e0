"""`report.md`: the study for a pull request, in Markdown that renders the same on GitHub and on the Hub.

Everything foreign passes `escape.markdown` or `escape.markdown_code`. The front is a `<picture>`
with a dark twin, so the page fits the reader's theme.
"""

from __future__ import annotations

from collections.abc import Sequence

from nash_search.report import columns, engines, escape, picture
from nash_search.report.columns import Column, Look, standing
from nash_search.report.points import Point
from nash_search.report.text import load_lines_of, pick_text
from nash_search.report.view import StudyView
from nash_search.report.words import (
    data_words,
)
from nash_search.summary_rows import Inputs


def render(view: StudyView) -> str:
    """The whole report."""
    parts = _head(view)
    parts += [escape.markdown(line, 600) for line in engines.reminders(view.summary.engines)]
    if view.drawn:
        parts.append(
            '<picture><source media="(prefers-color-scheme: dark)" srcset="front-dark.png">'
            '<img src="front.png" alt="Quality against latency: the front, the budgets and the dense model">'
            "</picture>"
        )
    if view.front:
        parts += ["## The front, fastest first", table(view)]
    if lines := load_lines_of(view):
        parts += ["## Load it", *input_words(view.inputs), fenced(lines, "python")]
    if view.summary.data is not None:
        parts += ["## The data", escape.markdown(data_words(view.summary.data), 400)]
    if view.summary.command:
        parts += ["## The command", fenced([escape.plain(view.summary.command, 2000)], "sh")]
    if view.environment:
        words = "; ".join(f"{escape.markdown(name)} {escape.markdown(value)}" for name, value in view.environment)
        parts += ["## Measured on", words]
    return "\n\n".join(parts) + "\n"


def _head(view: StudyView) -> list[str]:
    """The study's name, what was timed, each budget's answer."""
    parts = [f"# {escape.markdown(view.study or view.task)}", escape.markdown(picture.caption(view))]
    if view.picks:
        parts.append("\n".join(_answer(pick_text(pick, view).plain) for pick in view.picks))
    return parts + [escape.markdown(words, 600) for words in view.clock_words]


def answers(view: StudyView) -> str:
    """Each budget's answer and the front, for a note."""
    front = ["## The front, fastest first", table(view)] if view.front else []
    return "\n\n".join([*_head(view), *front]) + "\n"


def input_words(inputs: Inputs | None) -> list[str]:
    """What every input begins with, or how long it may be, in a sentence; nothing where it is the text itself."""
    if inputs is not None and inputs.audio_seconds:
        window = f"It hears {inputs.audio_seconds:g} s"
        return [f"{window}: its feature extractor cuts what is longer, so the lines below refuse it."]
    prefix = inputs.prefix if inputs is not None else ""
    return (
        [f"Every input begins with {escape.markdown_code(repr(prefix))}: it was trained and scored so."]
        if prefix
        else []
    )


def table(view: StudyView) -> str:
    """The front as a Markdown table, the dense model last, what a budget picked in bold."""
    look = Look(view=view)
    shown = standing(columns.FRONT, look)
    rows = []
    for row in view.front_rows:
        cells = [_cell(column, column.cell(row, look)) for column in shown]
        chosen = isinstance(row, Point) and view.picked_for(row)
        rows.append([f"**{cell}**" if cell else cell for cell in cells] if chosen else cells)
    heads = [escape.markdown(column.named(look)) for column in shown]
    return aligned(heads, rows, "".join("l" if column.kind else "r" for column in shown))


def _cell(column: Column, text: str) -> str:
    """A cell of words is escaped: a bar would end it. Numbers are ours."""
    return escape.markdown(text.replace(" | ", ", ")) if column.kind else text


def aligned(heads: Sequence[str], rows: Sequence[Sequence[str]], sides: str) -> str:
    """A Markdown table; `sides` has one `l` or `r` per column. Cells must be escaped already."""
    rule = ["---:" if side == "r" else ":---" for side in sides]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, rule, *rows))


def fenced(lines: Sequence[str], language: str) -> str:
    """A code block whose fence is longer than any run of backticks inside."""
    fence = "```"
    while any(fence in line for line in lines):
        fence += "`"
    return "\n".join([f"{fence}{language}", *lines, fence])


def _answer(text: str) -> str:
    """One budget's answer as a list item, its reasons as items below it: a dashboard shows `<br>` as it stands."""
    head, *reasons = [escape.markdown(line, 600) for line in text.split("\n")]
    return "\n".join([f"- {head}", *(f"  - {reason}" for reason in reasons)])
