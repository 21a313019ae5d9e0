"""`report.md`: the study for a pull request, in Markdown that renders the same on GitHub and on the Hub.

Everything foreign passes `escape.markdown` or `escape.markdown_code`. The front is a `<picture>`
with a dark twin, so the page fits the reader's theme.
"""

from __future__ import annotations

from collections.abc import Sequence

from nash_search.report import engines, escape, picture
from nash_search.report.text import load_lines, pick_text, quality_words, trained_words, widths_words
from nash_search.report.view import StudyView
from nash_search.report.words import (
    data_words,
    format_count,
    format_ms,
    format_quality,
    format_real_time,
    format_spread,
)
from nash_search.summary_rows import Inputs


def render(view: StudyView, *, front_stem: str = "front") -> str:
    """The whole report."""
    parts = [f"# {escape.markdown(view.study or view.task)}", escape.markdown(picture.caption(view))]
    if view.picks:
        parts.append("\n".join(_answer(line) for pick in view.picks for line in [pick_text(pick, view).plain]))
    parts += [escape.markdown(words, 600) for words in view.clock_words]
    parts += [escape.markdown(line, 600) for line in engines.reminders(view.summary.engines)]
    if view.drawn:
        parts.append(
            f'<picture><source media="(prefers-color-scheme: dark)" srcset="{front_stem}-dark.png">'
            f'<img src="{front_stem}.png" alt="Quality against latency: the front, the budgets and the dense model">'
            "</picture>"
        )
    if view.front:
        parts += ["## The front, fastest first", table(view)]
    loaded = view.loaded
    if loaded:
        parts += ["## Load it", *input_words(view.inputs)]
        parts.append(fenced(load_lines(loaded, view.dtype, inputs=view.inputs), "python"))
    if view.summary.data is not None:
        parts += ["## The data", escape.markdown(data_words(view.summary.data), 400)]
    if view.summary.command:
        parts += ["## The command", fenced([escape.plain(view.summary.command, 2000)], "sh")]
    if view.environment:
        words = "; ".join(f"{escape.markdown(name)} {escape.markdown(value)}" for name, value in view.environment)
        parts += ["## Measured on", words]
    return "\n\n".join(parts) + "\n"


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
    """The front as a Markdown table, the dense model last."""
    metric = f"{escape.markdown(view.metric)} ({view.split})"
    trained = ["trained"] * any(p.record.finish_steps for p in view.front)
    heard = ["RTF"] * view.hears
    numbers = [view.ms_name, *heard, "speed-up", metric, "drop", "size"]
    heads = ["kept", *numbers, "heads, neurons kept", *trained, "picked for"]
    rows = []
    for p in view.front:
        chosen = ", ".join(view.picked_for(p))
        rows.append(
            [
                escape.markdown(p.label),
                f"{format_ms(p.ms)}{format_spread(p.low_ms, p.high_ms)}",
                *[format_real_time(view.real_time(p.ms)) for _ in heard],
                f"{p.speedup or 0:.2f}×",
                quality_words(p, view.scale),
                format_quality(p.drop, view.scale),
                format_count(p.record.parameters),
                escape.markdown(widths_words(p).replace(" | ", ", ")),
                *[trained_words(p, view.scale) for _ in trained],
                f"**{escape.markdown(chosen)}**" if chosen else "",
            ]
        )
    if view.dense:
        dense = view.dense
        spread = format_spread(dense.low_ms, dense.high_ms)
        value, size = format_quality(dense.quality, view.scale), format_count(dense.parameters)
        times = [f"{format_ms(dense.ms)}{spread}", *[format_real_time(view.real_time(dense.ms)) for _ in heard]]
        rows.append(["dense", *times, "1.00×", value, "", size, "", *["" for _ in trained], ""])
    return aligned(heads, rows, "l" + "r" * len(heard) + "rrrrrll" + "l" * len(trained))


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
    """One budget's answer as a list item, its reasons under it."""
    head, *reasons = [escape.markdown(line, 600) for line in text.split("\n")]
    return "\n".join([f"- {head}", *(f"  <br>{reason}" for reason in reasons)])
