"""Interactive figures (Plotly) of a study: for `report.html` and for the Optuna dashboard.

    front        quality against latency, with intervals, budgets, dense, baseline
    shapes       latency against encoder width, one line per decoder depth
    progress     hypervolume of the front against training seconds
    widths, distribution, samples   see `evidence`

The marks follow `palette`. All text that may be foreign passes `escape.plot_label`, because
Plotly reads a subset of HTML in labels. Values are plain lists, so that a figure is JSON and
nothing else.
"""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from nash_search import pareto
from nash_search.report import evidence
from nash_search.report.escape import plot_label
from nash_search.report.evidence import style
from nash_search.report.palette import DARK, LIGHT, Theme, level
from nash_search.report.points import Point
from nash_search.report.view import StudyView
from nash_search.report.words import counted, format_duration, format_ms, format_quality


def figures(view: StudyView, *, dark: bool = False) -> dict[str, go.Figure]:
    """Every figure the study has data for, by name."""
    theme = DARK if dark else LIGHT
    made = {
        "front": front(view, theme),
        "shapes": shapes(view, theme),
        "progress": progress(view, theme),
        "widths": evidence.widths(view, theme),
        "distribution": evidence.distribution(view, theme),
        "samples": evidence.samples(view, theme),
    }
    return {name: figure for name, figure in made.items() if figure is not None}


def front(view: StudyView, theme: Theme = LIGHT) -> go.Figure | None:
    """Quality against latency: the picture of the whole answer."""
    if not view.drawn:
        return None
    figure = go.Figure()
    dominated = [p for p in view.drawn if not p.on_front]
    if view.front:
        figure.add_scatter(
            x=[p.ms for p in view.front],
            y=[p.quality for p in view.front],
            mode="lines",
            hoverinfo="skip",
            line={"shape": "hv", "color": theme.front, "width": 2},
            showlegend=False,
        )
    for name, points, filled in (("on the front", view.front, True), ("dominated", dominated, False)):
        for baseline in (False, True):
            some = [p for p in points if p.baseline == baseline]
            if some:
                words = f"{name}, encoder whole" if baseline else name
                figure.add_trace(_marks(some, view, theme, words, filled=filled, baseline=baseline))
    if view.picked:
        figure.add_scatter(
            x=[p.ms for p in view.picked],
            y=[p.quality for p in view.picked],
            mode="markers+text",
            text=[plot_label(p.label) for p in view.picked],
            textposition=[_beside(p, view) for p in view.picked],
            hoverinfo="skip",
            marker={"symbol": "circle-open", "size": 19, "line": {"width": 2}, "color": theme.ink},
            textfont={"color": theme.ink},
            name="a budget's pick",
        )
    if view.dense is not None and view.dense.quality is not None:
        error = None
        if view.dense.low is not None:
            error = {
                "type": "data",
                "array": [view.dense.quality - view.dense.low],
                "color": theme.ink,
                "thickness": 1,
                "width": 0,
            }
        figure.add_scatter(
            x=[view.dense.ms],
            y=[view.dense.quality],
            mode="markers+text",
            name="dense",
            text=["dense"],
            textposition="middle left",
            textfont={"color": theme.ink},
            error_y=error,
            marker={"symbol": "diamond", "size": 11, "color": theme.ink},
            hovertemplate="dense<br>%{x:.3g} ms<br>%{y:.4g}<extra></extra>",
        )
    _budget_lines(figure, view, theme, vertical=True)
    better = "higher" if pareto.higher_is_better(view.direction) else "lower"
    style(
        figure,
        theme,
        f"{view.latency_words}, ms",
        f"{plot_label(view.metric)} ({view.split}), {better} is better",
    )
    if not pareto.higher_is_better(view.direction):
        figure.update_yaxes(autorange="reversed")
    return figure


def shapes(view: StudyView, theme: Theme = LIGHT) -> go.Figure | None:
    """Latency against encoder width, one line per decoder depth: the probe's shapes, and what was learned."""
    if view.dense is None:
        return None
    cells: dict[int, dict[int, float]] = {}
    for cell in view.probe:
        cells.setdefault(cell.decoder_layers, {})[100 - cell.encoder_sparsity_pct] = cell.ratio * view.dense.ms
    for p in view.points:
        if p.ms is not None:
            cells.setdefault(p.architecture.decoder_layers, {})[100 - p.architecture.encoder_sparsity_pct] = p.ms
    if not cells:
        return None
    figure = go.Figure()
    depths = sorted(cells)
    for index, depth in enumerate(depths):
        line = sorted(cells[depth].items())
        colour = level(theme, index, len(depths))
        words = counted(depth, "decoder block")
        figure.add_scatter(
            x=[w for w, _ in line],
            y=[ms for _, ms in line],
            mode="lines+markers",
            name=words,
            line={"color": colour, "width": 2},
            marker={"size": 7, "symbol": index % 24},
            hovertemplate=f"{words}<br>%{{x}}% of the encoder<br>%{{y:.3g}} ms<extra></extra>",
        )
        figure.add_annotation(
            x=line[-1][0],
            y=line[-1][1],
            text=f"{depth} dec",
            showarrow=False,
            xanchor="left",
            xshift=8,
            font={"color": colour, "size": 12},
        )
    _budget_lines(figure, view, theme, vertical=False)
    style(figure, theme, "encoder weights kept, %", "latency, ms")
    widths = {width for line in cells.values() for width in line}
    if len(widths) == 1:  # depth alone was searched: an axis between 99 and 101 % would say nothing
        figure.update_xaxes(tickvals=[*widths], range=[min(widths) - 10, max(widths) + 10])
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(showlegend=False, margin={"r": 56, "t": 24})
    return figure


def progress(view: StudyView, theme: Theme = LIGHT) -> go.Figure | None:
    """How the front grew with the training time spent."""
    if not view.hypervolume:
        return None
    xs, ys = [0.0, *(s for s, _ in view.hypervolume)], [0.0, *(v for _, v in view.hypervolume)]
    figure = go.Figure()
    figure.add_scatter(
        x=xs,
        y=ys,
        mode="lines+markers",
        line={"shape": "hv", "color": theme.front, "width": 2},
        marker={"size": 6},
        name="hypervolume",
        hovertemplate="%{x:.0f} s of training<br>%{y:.4g}<extra></extra>",
    )
    figure.add_annotation(
        x=xs[-1],
        y=ys[-1],
        text=f"{ys[-1]:.4g} after {format_duration(xs[-1])}",
        showarrow=False,
        xanchor="right",
        yshift=14,
        font={"color": theme.ink},
    )
    style(figure, theme, "training seconds, all trials", "hypervolume of the front")
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(showlegend=False, margin={"t": 32})
    return figure


def _marks(
    points: list[Point] | tuple[Point, ...], view: StudyView, theme: Theme, name: str, *, filled: bool, baseline: bool
) -> go.Scatter:
    """Points of one kind, with intervals where they are on the front."""
    colour = theme.baseline if baseline else theme.front
    bars: dict[str, Any] = {}
    if filled:
        bars["error_y"] = {
            "type": "data",
            "color": colour,
            "thickness": 1,
            "width": 0,
            "array": [p.record.quality.half_width if p.record.quality else 0 for p in points],
        }
        bars["error_x"] = {
            "type": "data",
            "color": colour,
            "thickness": 1,
            "width": 0,
            "symmetric": False,
            "array": [(p.high_ms or p.ms or 0) - (p.ms or 0) for p in points],
            "arrayminus": [(p.ms or 0) - (p.low_ms or p.ms or 0) for p in points],
        }
    symbol = ("square" if baseline else "circle") + ("" if filled else "-open")
    return go.Scatter(
        x=[p.ms for p in points],
        y=[p.quality for p in points],
        mode="markers",
        name=name,
        marker={"symbol": symbol, "size": 10 if filled else 8, "color": colour, "opacity": 1 if filled else 0.7},
        text=[_hover(p, view) for p in points],
        hovertemplate="%{text}<extra></extra>",
        **bars,
    )


def _beside(p: Point, view: StudyView) -> str:
    """Where a pick's label has room: above its step of the staircase, but at the left edge below it."""
    xs = [q.xy[0] for q in view.drawn] + ([view.dense.ms] if view.dense is not None else [])
    near_edge = p.xy[0] < min(xs) + 0.25 * (max(xs) - min(xs))
    return "bottom right" if near_edge else "top left"


def _hover(p: Point, view: StudyView) -> str:
    lines = [f"<b>{plot_label(p.label)}</b> (trial {p.number})", f"{format_ms(p.ms)} ms, {p.speedup or 0:.2f}× faster"]
    lines.append(
        f"{plot_label(view.metric)} {format_quality(p.quality)}"
        + (f", drop {format_quality(p.drop)}" if p.drop is not None else "")
    )
    if p.reason:
        lines.append(plot_label(p.reason))
    return "<br>".join(lines)


def _budget_lines(figure: go.Figure, view: StudyView, theme: Theme, *, vertical: bool) -> None:
    line = {"color": theme.muted, "width": 1, "dash": "dash"}
    look = {"showarrow": False, "yanchor": "bottom", "font": {"color": theme.muted, "size": 12}}
    for pick in view.picks:
        asked, at = plot_label(pick.asked, 12), pick.drawn_ms
        if vertical:
            words = asked if pick.verdict in ("met", "") else f"{asked} {plot_label(pick.verdict, 12)}"
            figure.add_vline(x=at, line=line, layer="below")
            figure.add_annotation(x=at, y=1, yref="paper", text=words, **look)
        else:
            figure.add_hline(y=at, line=line, layer="below")
            figure.add_annotation(x=0, xref="paper", y=at, text=asked, xanchor="left", **look)
