"""The dashboard's figures: every one is there, and none hides a sample."""

from __future__ import annotations

from typing import Any

from nash_search.report import plots, view


def test_every_figure_is_there_and_is_json(study: Any) -> None:
    figures = plots.figures(view.build(*study))
    assert list(figures) == ["front", "shapes", "progress", "widths", "samples"]
    assert all("bdata" not in figure.to_json() for figure in figures.values())


def test_kinds_differ_in_shape_and_fill(study: Any) -> None:
    figure = plots.figures(view.build(*study))["front"]
    symbols = {trace.name: trace.marker.symbol for trace in figure.data if trace.name}
    assert symbols == {
        "on the front": "circle",
        "on the front, encoder whole": "square",
        "dominated": "circle-open",
        "dominated, encoder whole": "square-open",
        "a budget's pick": "circle-open",
        "dense": "diamond",
    }
