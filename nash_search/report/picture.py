"""`front.png` / `front.svg`: the study's answer as one still picture, for a README or a pull request.

    quality ^          __o   filled = on the front, hollow = dominated
            |    __o__|      circle = narrowed encoder, square = encoder whole, diamond = dense
            | o_|     |      ring = a budget's pick, dashed line = a latency budget
            +---------+----> latency of one generate call, ms (and speed-up)

Labels lie beside their points, and a label without room is left out rather than piled up.
Every number is the `StudyView`'s.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nash_search import pareto
from nash_search.files import replace
from nash_search.report import escape
from nash_search.report.labels import place_labels
from nash_search.report.palette import DARK, LIGHT, Theme
from nash_search.report.view import StudyView
from nash_search.report.words import format_ms, is_share, named, one_call

BUDGET_ROWS = (1.012, 1.058)
"""Heights at which a budget's words may stand, fractions of the axes': the second where the first is taken."""


def draw_front(view: StudyView, *, dark: bool = False) -> Figure:
    """The front with intervals, budgets, dense, baseline and dominated points."""
    theme = DARK if dark else LIGHT
    settings: Any = {
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "svg.hashsalt": "nash-search",
        "text.parse_math": False,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(8, 5), dpi=160, facecolor=theme.paper)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.075, 0.17, 0.895, 0.60), facecolor=theme.paper)
        _frame(figure, axes, view, theme)
        _limits(axes, view)
        _budgets(axes, view, theme)
        _points(axes, view, theme)
        _dense(axes, view, theme)
        _legend(figure, view, theme)
        place_labels(figure, axes, view, theme)
        _speedups(figure, axes, view)
    return figure


def rendered(view: StudyView, kind: str, *, dark: bool = False) -> bytes:
    """The picture as the bytes of a `png` or `svg` file; equal views make equal bytes."""
    figure = draw_front(view, dark=dark)
    # a date or a random id in the file would make equal pictures differ
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "nash-search"}):
        figure.savefig(out, format=kind, facecolor=figure.get_facecolor(), metadata=metadata)
    return out.getvalue()


def save_front(view: StudyView, folder: Path) -> list[Path]:
    """Write `front.png`, `front.svg` and their dark twins `front-dark.*`; return the paths."""
    written = []
    for dark in (False, True):
        for kind in ("png", "svg"):
            path = folder / f"front{'-dark' if dark else ''}.{kind}"
            replace(path, rendered(view, kind, dark=dark))
            written.append(path)
    return written


def caption(view: StudyView) -> str:
    """One line: what was timed, where."""
    if view.workload is None:
        return ""
    seconds = view.inputs.audio_seconds if view.inputs is not None else None
    call = one_call(view.workload, f"{seconds:g} s" if seconds else "")
    return f"{call} · {escape.plain(view.device, 60)}"


def _frame(figure: Figure, axes: Axes, view: StudyView, theme: Theme) -> None:
    arrow = "higher" if pareto.higher_is_better(view.direction) else "lower"
    title = escape.matplotlib_label(f"{view.study or view.task}: quality against latency", 70)
    figure.text(0.035, 0.945, title, color=theme.ink, fontsize=13, fontweight="bold", va="center")
    figure.text(0.035, 0.899, caption(view), color=theme.muted, fontsize=8.5, va="center")
    key = "“2 dec · enc 60%”: 2 decoder blocks and 60% of the encoder's weights are kept"
    figure.text(0.97, 0.852, key, color=theme.muted, fontsize=7.5, va="center", ha="right")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(theme.muted)
    axes.tick_params(colors=theme.muted, length=3, labelsize=8.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color=theme.faint, linewidth=0.8)
    axes.set_axisbelow(True)
    metric = escape.matplotlib_label(view.metric, 40)
    words = f"↑ {metric} on {view.split}, {arrow} is better"
    figure.text(0.035, 0.852, words, color=theme.muted, fontsize=8.5, va="center")
    words = f"{view.latency_words}, ms, and speed-up over the dense model →"
    axes.set_xlabel(words, color=theme.muted, fontsize=8.5)


def _limits(axes: Axes, view: StudyView) -> None:
    """Axes that hold every point, its interval, the dense model and the budgets that can be met."""
    xs = [x for p in view.drawn for x in (p.low_ms, p.high_ms, p.ms) if x is not None]
    ys = [y for p in view.drawn if p.record.quality for y in p.record.quality.bounds]
    if view.dense:
        xs.append(view.dense.ms)
        ys += [y for y in (view.dense.quality, view.dense.low, view.dense.high) if y is not None]
    xs += [pick.drawn_ms for pick in view.picks if not xs or pick.drawn_ms > 0.6 * min(xs)]
    if xs:
        pad = 0.06 * (max(xs) - min(xs) or max(xs))
        axes.set_xlim(max(0.0, min(xs) - 2 * pad), max(xs) + pad)
    if ys:
        pad = 0.08 * (max(ys) - min(ys) or 1.0)
        axes.set_ylim(min(ys) - pad, max(ys) + pad)
    if not pareto.higher_is_better(view.direction):
        axes.invert_yaxis()


def _budgets(axes: Axes, view: StudyView, theme: Theme) -> None:
    left, right = axes.get_xlim()
    written: list[Any] = []
    for pick in sorted(view.picks, key=lambda pick: pick.drawn_ms):
        if not left <= pick.drawn_ms <= right:
            continue
        axes.axvline(pick.drawn_ms, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        words = named(escape.plain(pick.asked, 16))
        words += f" = {format_ms(pick.budget_ms)} ms" if is_share(pick.asked) else ""
        if pick.verdict not in ("", "met"):
            words += f", {escape.plain(pick.verdict, 12)}"
        align = "left" if pick.drawn_ms < left + 0.08 * (right - left) else "center"
        for row in BUDGET_ROWS:
            text = axes.text(
                pick.drawn_ms,
                row,
                words,
                transform=axes.get_xaxis_transform(),
                ha=align,
                va="bottom",
                color=theme.ink,
                fontsize=8.5,
            )
            box = text.get_window_extent().padded(4, 0)
            if not any(box.overlaps(other) for other in written):
                written.append(box)
                break
            text.remove()


def _points(axes: Axes, view: StudyView, theme: Theme) -> None:
    """Dominated first, the staircase over them, the front on top."""
    for p in sorted(view.drawn, key=lambda p: p.on_front):
        assert p.record.quality is not None
        colour = theme.baseline if p.baseline else theme.front
        faded = not p.on_front
        low, high = p.record.quality.bounds
        ms, value = p.xy
        across = [[ms - p.low_ms], [p.high_ms - ms]] if p.low_ms is not None and p.high_ms is not None else None
        if p.on_front:
            axes.errorbar(
                ms,
                value,
                yerr=[[value - low], [high - value]],
                xerr=across,
                color=colour,
                elinewidth=1,
                alpha=0.55,
                capsize=0,
                zorder=3,
                fmt="none",
            )
        stopped = p.status != "complete"
        axes.plot(
            ms,
            value,
            marker="s" if p.baseline else "o",
            markersize=6 if faded else 8,
            markerfacecolor=theme.paper if faded else colour,
            markeredgecolor=colour if not stopped else theme.muted,
            markeredgewidth=1.2,
            linestyle="none",
            zorder=2 if faded else 5,
            alpha=0.75 if faded else 1,
        )
    if view.front:
        xs, ys = zip(*(p.xy for p in view.front), strict=True)
        axes.step(
            [*xs, axes.get_xlim()[1]],
            [*ys, ys[-1]],
            where="post",
            color=theme.front,
            linewidth=1.6,
            alpha=0.8,
            zorder=2.5,
        )
    for point in view.picked:
        axes.plot(
            *point.xy,
            marker="o",
            markersize=15,
            markerfacecolor="none",
            markeredgecolor=theme.ink,
            markeredgewidth=1.3,
            linestyle="none",
            zorder=6,
        )


def _dense(axes: Axes, view: StudyView, theme: Theme) -> None:
    dense = view.dense
    if dense is None or dense.quality is None:
        return
    if dense.low is not None and dense.high is not None:
        axes.errorbar(
            dense.ms,
            dense.quality,
            yerr=[[dense.quality - dense.low], [dense.high - dense.quality]],
            color=theme.ink,
            elinewidth=1,
            alpha=0.55,
            fmt="none",
            zorder=3,
        )
    axes.plot(dense.ms, dense.quality, marker="D", markersize=8, color=theme.ink, linestyle="none", zorder=5)
    best = min((pareto.loss(p.quality, view.direction) for p in view.front if p.quality is not None), default=math.inf)
    worse = best < pareto.loss(dense.quality, view.direction)
    axes.annotate(  # on the side of the diamond where the staircase does not pass
        f"dense {format_ms(dense.ms)} ms",
        (dense.ms, dense.quality),
        (8, -8 if worse else 8),
        textcoords="offset points",
        ha="right",
        va="top" if worse else "bottom",
        color=theme.ink,
        fontsize=8.5,
    )


def _legend(figure: Figure, view: StudyView, theme: Theme) -> None:
    """One quiet row under the title: only the marks that occur."""
    kinds: Sequence[tuple[bool, str, str, str, float, str]] = (
        (bool(view.front), "o", theme.front, theme.front, 7, "on the front"),
        (
            any(p.baseline for p in view.drawn),
            "s",
            theme.baseline,
            theme.baseline,
            7,
            "encoder whole (decoder cut)",
        ),
        (any(not p.on_front for p in view.drawn), "o", theme.paper, theme.front, 6, "hollow: dominated"),
        (bool(view.picked), "o", "none", theme.ink, 10, "a budget's pick"),
        (view.dense is not None, "D", theme.ink, theme.ink, 6.5, "dense"),
    )
    x = 0.04
    for shown, marker, fill, edge, size, words in kinds:
        if not shown:
            continue
        figure.add_artist(
            matplotlib.lines.Line2D(
                [x],
                [0.032],
                marker=marker,
                markersize=size,
                markerfacecolor=fill,
                markeredgecolor=edge,
                markeredgewidth=1.2,
                linestyle="none",
            )
        )
        text = figure.text(x + 0.014, 0.031, words, color=theme.muted, fontsize=8, va="center")
        width = text.get_window_extent(figure.canvas.get_renderer()).width / figure.bbox.width  # type: ignore[attr-defined]
        x += width + 0.042


def _speedups(figure: Figure, axes: Axes, view: StudyView) -> None:
    """Second line of every tick label: how many times faster than dense, in digits that tell the ticks apart."""
    ticks = [t for t in axes.get_xticks() if axes.get_xlim()[0] <= t <= axes.get_xlim()[1] and t > 0]
    if view.dense is None:
        return
    every = [[f"{view.dense.ms / t:.{digits}f}×" for t in ticks] for digits in (1, 2, 3)]
    words = next((some for some in every if len(set(some)) == len(ticks)), every[-1])
    axes.set_xticks(ticks, [f"{t:g}\n{said}" for t, said in zip(ticks, words, strict=True)])
