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


def test_contended_samples_are_crossed_and_none_is_dropped(study: Any) -> None:
    seen = view.build(*study)
    clean, contended, _ = plots.figures(seen)["samples"].data
    assert (clean.marker.symbol, contended.marker.symbol) == ("circle", "x")
    kept = sum(len(p.record.latency.runs_ms) for p in seen.front if p.record.latency)
    assert len(clean.x) + len(contended.x) == kept
