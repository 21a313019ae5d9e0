"""A small still plot: an empty figure in the report's type and colours, and its bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nash_search.report.palette import Theme


@contextmanager
def canvas(
    box: tuple[float, float, float, float], theme: Theme, grid: Literal["both", "x", "y"] = "both"
) -> Iterator[tuple[Figure, Axes]]:
    """A 7 x 4 inch figure with one frameless pair of axes at `box` (fractions: left, bottom, width, height)."""
    with matplotlib.rc_context({"font.family": "DejaVu Sans", "font.size": 9, "text.parse_math": False}):
        figure = Figure(figsize=(7, 4), dpi=160, facecolor=theme.paper)
        FigureCanvasAgg(figure)
        axes = figure.add_axes(box, facecolor=theme.paper)
        axes.tick_params(colors=theme.muted, length=0)
        axes.grid(axis=grid, color=theme.faint, linewidth=0.8)
        axes.set_axisbelow(True)
        for side in axes.spines.values():
            side.set_visible(False)
        yield figure, axes


def encoded(figure: Figure, kind: str = "png") -> bytes:
    """The figure as the bytes of a `png` or `svg` file."""
    data = io.BytesIO()
    figure.savefig(data, format=kind)
    return data.getvalue()
