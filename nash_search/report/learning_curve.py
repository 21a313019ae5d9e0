"""A trial's learning curve as a small SVG, written by hand.

    quality |  - - - - - - -   the dense model
            |       ___o 86.5  this trial; earlier ones in grey behind it
            |   _-o
            +--------------> optimizer step

Not by matplotlib: its SVG takes 50 ms of the CPU that the next trial is timed on, weighs 19 KB and has one theme, while
this file follows the reader's light or dark one. Nothing foreign is in it but the metric's name, escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape as quoted

from nash_search.pareto import higher_is_better
from nash_search.records import CurvePoint
from nash_search.report import escape
from nash_search.report.palette import DARK, LIGHT
from nash_search.report.points import Point
from nash_search.report.view import StudyView
from nash_search.report.words import format_quality

WIDTH, HEIGHT = 480, 270
LEFT, RIGHT, TOP, BOTTOM = 56, 56, 44, 38
"""Margins around the plot, pixels."""
BEHIND = 12
"""Most earlier curves drawn behind."""


def svg(p: Point, view: StudyView) -> str:
    """The curve of one trial; empty when quality was never scored while it trained."""
    own = p.record.curve
    if not own:
        return ""
    others = [q.record.curve for q in view.points if q.number != p.number and q.record.curve][-BEHIND:]
    dense = view.dense.quality if view.dense else None
    seen = [c.value for curve in (own, *others) for c in curve] + ([] if dense is None else [dense])
    low, high = min(seen), max(seen)
    low, high = low - 0.06 * (high - low or 1), high + 0.06 * (high - low or 1)
    last = max(c.step for curve in (own, *others) for c in curve) or 1

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / last

    def y(value: float) -> float:
        share = (value - low) / (high - low)
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share if higher_is_better(view.direction) else share)

    def line(curve: Sequence[CurvePoint], kind: str) -> str:
        points = " ".join(f"{x(c.step):.1f},{y(c.value):.1f}" for c in curve)
        return f'<polyline class="{kind}" points="{points}"/>'

    def words(at: tuple[float, float], text: str, kind: str = "", anchor: str = "start") -> str:
        return f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" class="{kind}" text-anchor="{anchor}">{quoted(text)}</text>'

    right, base = WIDTH - RIGHT, HEIGHT - BOTTOM
    metric = (
        f"{escape.plain(view.metric, 40)} on {view.split}, {'higher' if higher_is_better(view.direction) else 'lower'}"
    )
    parts = [
        words((16, 20), f"trial {p.number}: {p.label}", "title"),
        words((16, 36), f"{metric} is better"),
        f'<path class="axis" d="M{LEFT} {base}H{right}"/>',
        words((LEFT, base + 16), "0", anchor="middle"),
        words((right, base + 16), f"{last} steps", anchor="middle"),
        *(words((LEFT - 8, y(v) + 4), format_quality(v, high), anchor="end") for v in (min(seen), max(seen))),
        *(line(curve, "other") for curve in others),
    ]
    if dense is not None:
        parts.append(f'<path class="dense" d="M{LEFT} {y(dense):.1f}H{right}"/>')
        parts.append(words((right + 6, y(dense) + 4), "dense"))
    end = own[-1]
    parts += [
        line(own, "own"),
        *(f'<circle class="mark" cx="{x(c.step):.1f}" cy="{y(c.value):.1f}" r="3.5"/>' for c in own),
        words((x(end.step), y(end.value) - 9), format_quality(end.value, high), "title", "middle"),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f'<style>{_STYLE}</style><rect class="paper" width="100%" height="100%"/>{"".join(parts)}</svg>\n'
    )


def _colours(theme: object) -> str:
    names = ("paper", "ink", "muted", "faint", "front")
    return "svg{" + "".join(f"--{name}:{getattr(theme, name)};" for name in names) + "}"


_STYLE = (
    f"{_colours(LIGHT)}@media(prefers-color-scheme:dark){{{_colours(DARK)}}}"
    ".paper{fill:var(--paper)}text{font:11px sans-serif;fill:var(--muted)}"
    ".title{font-weight:600;fill:var(--ink)}.axis{stroke:var(--muted)}polyline{fill:none;stroke-width:2}"
    ".own{stroke:var(--front)}.other{stroke:var(--faint)}.dense{stroke:var(--muted);stroke-dasharray:4 3}"
    ".mark{fill:var(--front)}"
)
