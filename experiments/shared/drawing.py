"""The pictures of the studies, in the report's type and colours: values with intervals, and curves.

This module refuses to know what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nash_search.report.canvas import canvas, encoded
from nash_search.report.palette import LIGHT, level

Interval = tuple[float, float, float]
"""Value, lower and upper bound."""
MARKS = "osD^vP"


def forest(
    path: Path, title: str, unit: str, rows: Mapping[str, Sequence[Interval]], series: Sequence[str], at: float
) -> None:
    """A line of intervals for each label, one mark a series, and a rule where nothing changes.

    Args:
        path: the PNG to write.
        title: what was measured, of what.
        unit: of the horizontal axis.
        rows: intervals by label, top to bottom, in the order of `series`.
        series: what the marks are.
        at: where the rule is drawn (0 of a difference, 1 of a speed-up).
    """
    height = max(2.4, 0.9 + len(rows) * max(0.24, 0.12 * len(series)))
    bottom, top = 0.5 / height, 1 - (0.65 if len(series) > 1 else 0.4) / height
    with canvas((0.34, bottom, 0.63, top - bottom), LIGHT, grid="x") as (figure, axes):
        figure.set_size_inches(7, height)
        axes.axvline(at, color=LIGHT.muted, linewidth=1)
        for index, name in enumerate(series):
            colour = LIGHT.front if len(series) == 1 else level(LIGHT, index, len(series))
            shift = (index - (len(series) - 1) / 2) * 0.7 / len(series)
            for line, intervals in enumerate(rows.values()):
                value, low, high = intervals[index]
                axes.plot([low, high], [line + shift] * 2, color=colour, linewidth=1.4)
                axes.plot(value, line + shift, MARKS[index % len(MARKS)], color=colour, markersize=4.5,
                          label=name if line == 0 else None)  # fmt: skip
        axes.set_yticks(range(len(rows)), list(rows), color=LIGHT.ink)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(unit, color=LIGHT.muted)
        figure.text(0.01, 1 - 0.24 / height, title, color=LIGHT.ink, fontsize=10, weight="bold")
        if len(series) > 1:
            figure.legend(loc="upper left", bbox_to_anchor=(0.0, 1 - 0.28 / height), ncols=len(series), frameon=False,
                          labelcolor=LIGHT.ink, handletextpad=0.2, columnspacing=1.2)  # fmt: skip
        path.write_bytes(encoded(figure))


def curves(
    path: Path, title: str, axes_names: tuple[str, str], series: Mapping[str, Sequence[tuple[float, float]]]
) -> None:
    """One line with marks a series, both axes logarithmic."""
    with canvas((0.1, 0.13, 0.87, 0.71), LIGHT) as (figure, axes):
        for index, (name, points) in enumerate(series.items()):
            colour = level(LIGHT, index, len(series))
            axes.plot(*zip(*points, strict=True), marker=MARKS[index % len(MARKS)], color=colour, label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.tick_params(which="minor", length=0)
        axes.set_xlabel(axes_names[0], color=LIGHT.muted)
        axes.set_ylabel(axes_names[1], color=LIGHT.muted)
        figure.text(0.01, 0.94, title, color=LIGHT.ink, fontsize=10, weight="bold")
        figure.legend(
            loc="upper left", bbox_to_anchor=(0.0, 0.93), ncols=len(series), frameon=False, labelcolor=LIGHT.ink
        )
        path.write_bytes(encoded(figure))
