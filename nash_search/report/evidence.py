"""Figures of what the numbers rest on: widths kept block by block, and every raw timing.

    widths    heads and neurons kept per encoder block, one row per point of the front
    distribution   of requests, how many are answered within a time: the dense model and the picks
    samples   each timed call of the front in the order taken; none is dropped, contended ones are crossed

The one quiet look of all Plotly figures (`style`) lives here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from nash_search.percentiles import SHOWN_PERCENTILES, of_requests, requests_needed
from nash_search.report.escape import plot_label
from nash_search.report.palette import LIGHT, Theme, level
from nash_search.report.view import StudyView
from nash_search.report.words import describe, format_ms

FONT = "ui-sans-serif, system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"


def widths(view: StudyView, theme: Theme = LIGHT) -> go.Figure | None:
    """What each encoder block kept, as a share of the widest seen, with the counts written in."""
    kept = [(p, p.record.shapes) for p in view.front if p.record.shapes is not None]
    if not kept:
        return None
    figure = make_subplots(
        cols=2,
        subplot_titles=("attention heads kept", "feed-forward neurons kept"),
        shared_yaxes=True,
        horizontal_spacing=0.04,
    )
    names = [plot_label(p.label) for p, _ in kept]
    for column, part in enumerate(("encoder_heads", "encoder_neurons"), start=1):
        counts = [list(getattr(shape, part)) for _, shape in kept]
        whole = max(max(row, default=1) for row in counts) or 1
        blocks = max(len(row) for row in counts)
        figure.add_heatmap(
            z=[[n / whole for n in row] for row in counts],
            x=[f"block {b + 1}" for b in range(blocks)],
            y=names,
            text=[[str(n) for n in row] for row in counts],
            texttemplate="%{text}",
            zmin=0,
            zmax=1,
            colorscale=[[0, theme.paper], [1, theme.front]],
            showscale=False,
            xgap=2,
            ygap=2,
            hovertemplate="%{y}<br>%{x}: %{text} kept<extra></extra>",
            row=1,
            col=column,
        )
    style(figure, theme, "", "")
    figure.update_xaxes(
        showgrid=False,
        tickvals=[f"block {b + 1}" for b in range(blocks)],
        ticktext=[str(b + 1) for b in range(blocks)],
        title_text="encoder block",
    )
    figure.update_yaxes(showgrid=False, type="category")
    figure.update_layout(height=150 + 30 * len(kept))
    return figure


def _served(view: StudyView) -> list[tuple[str, Sequence[float]]]:
    """Milliseconds of the same requests: the dense model's and each pick's; nothing where one call was timed."""
    picked = {point.number for point in view.picked}
    shown = [p for p in view.certified if p.number in picked] or list(view.certified[:1])
    if not view.percentile or not shown:
        return []
    dense_ms = [x for r in shown[0].latency.rounds for x in r.dense_runs_ms]
    return [("dense", dense_ms), *((describe(p.architecture), p.latency.runs_ms) for p in shown)]


def told(view: StudyView) -> str:
    """The distribution in words, for those who do not see the figure; `–`: too few requests for that percentile."""

    def row(runs_ms: Sequence[float]) -> str:
        known = [len(runs_ms) >= requests_needed(p) for p in SHOWN_PERCENTILES]
        return ", ".join(
            format_ms(of_requests((tuple(runs_ms),), p) if enough else None)
            for p, enough in zip(SHOWN_PERCENTILES, known, strict=True)
        )

    said = "; ".join(f"{name} {row(runs_ms)} ms" for name, runs_ms in _served(view))
    return f"At {', '.join(f'p{p}' for p in SHOWN_PERCENTILES)}: {said}." if said else ""


def distribution(view: StudyView, theme: Theme = LIGHT) -> go.Figure | None:
    """How many requests are answered within a time, by the dense model and by each pick, over the same requests."""
    lines = _served(view)
    if not lines:
        return None
    figure = go.Figure()
    for index, (name, runs_ms) in enumerate(lines):
        taken, count = sorted(runs_ms), len(runs_ms)
        figure.add_scatter(
            x=taken,
            y=[100 * (i + 1) / count for i in range(count)],
            mode="lines",
            name=f"{plot_label(name)} ({count})",
            line={"shape": "hv", "width": 2, "color": level(theme, index - 1, len(lines) - 1) if index else theme.ink},
            hovertemplate=f"{plot_label(name)}<br>%{{y:.1f}} % within %{{x:.3g}} ms<extra></extra>",
        )
    for percentile in SHOWN_PERCENTILES:
        figure.add_hline(y=percentile, line={"color": theme.muted, "width": 1, "dash": "dot"}, layer="below")
    style(figure, theme, "one request, ms", "answered within, % of requests")
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(range=[0, 101], tickvals=[0, 25, *SHOWN_PERCENTILES])
    return figure


def samples(view: StudyView, theme: Theme = LIGHT) -> go.Figure | None:
    """Every timed call behind the front, none dropped; a cross is a call timed while something else ran."""
    timed = [(p, p.record.latency) for p in view.front if p.record.latency is not None]
    if not timed:
        return None
    clean: dict[str, list[Any]] = {"x": [], "y": [], "t": []}
    flagged: dict[str, list[Any]] = {"x": [], "y": [], "t": []}
    for index, (p, latency) in enumerate(timed):
        for turn, found in enumerate(latency.rounds):
            flags = found.contended or (False,) * len(found.runs_ms)
            for order, (ms, dense_ms, busy) in enumerate(zip(found.runs_ms, found.dense_runs_ms, flags, strict=False)):
                into = flagged if busy else clean
                # samples of one point stand side by side in the order taken, so a drift shows as a slope
                into["x"].append(index + 0.7 * (order / max(1, len(found.runs_ms) - 1) - 0.5))
                into["y"].append(ms)
                words = f"round {turn + 1}, call {order + 1}: {ms:.4g} ms<br>dense beside it: {dense_ms:.4g} ms"
                into["t"].append(f"{plot_label(p.label)}<br>{words}")
    figure = go.Figure()
    for name, group, symbol, colour, size in (
        ("clean", clean, "circle", theme.front, 4),
        ("contended", flagged, "x", theme.alert, 7),
    ):
        figure.add_scatter(
            x=group["x"],
            y=group["y"],
            text=group["t"],
            mode="markers",
            name=f"{name} ({len(group['x'])})",
            marker={"symbol": symbol, "color": colour, "size": size, "opacity": 0.75},
            hovertemplate="%{text}<extra></extra>",
        )
    figure.add_scatter(
        x=list(range(len(timed))),
        y=[latency.median_ms for _, latency in timed],
        mode="markers",
        name=view.percentile or "median",
        marker={"symbol": "line-ew-open", "size": 46, "line": {"width": 2}, "color": theme.ink},
        hoverinfo="skip",
    )
    style(figure, theme, "", "one request, ms" if view.percentile else "one generate call, ms")
    figure.update_xaxes(
        tickvals=list(range(len(timed))),
        ticktext=[plot_label(p.label).replace(" · ", "<br>") for p, _ in timed],
        showgrid=False,
    )
    figure.update_yaxes(rangemode="tozero")
    return figure


def style(figure: go.Figure, theme: Theme, x_title: str, y_title: str) -> None:
    """One quiet look: no box, horizontal grid, legend above."""
    axis: Mapping[str, Any] = {
        "gridcolor": theme.faint,
        "zeroline": False,
        "linecolor": theme.muted,
        "tickfont": {"color": theme.muted},
        "title": {"font": {"color": theme.muted, "size": 12}},
        "automargin": True,
    }
    figure.update_layout(
        template="none",
        paper_bgcolor=theme.paper,
        plot_bgcolor=theme.paper,
        height=420,
        font={"family": FONT, "size": 13, "color": theme.ink},
        margin={"l": 56, "r": 24, "t": 64, "b": 48},
        legend={"orientation": "h", "y": 1.1, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        hoverlabel={"font": {"family": FONT}, "align": "left"},
        dragmode="pan",
    )
    figure.update_xaxes(**axis, showgrid=False, showline=True, ticks="outside", tickcolor=theme.muted)
    figure.update_yaxes(**axis)
    figure.update_xaxes(title_text=x_title)
    figure.update_yaxes(title_text=y_title)
