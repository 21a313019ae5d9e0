"""Direct labels of the still front: each beside its own point, or not at all.

A label goes above its step of the staircase, else below; picks may stand further off. Where no
place is free it is left out: the table says the same, and piled-up text says nothing.
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from nash_search.report import escape
from nash_search.report.palette import Theme
from nash_search.report.view import StudyView
from nash_search.report.words import format_ms, format_quality

_NEAR = [(-8, 5), (8, -6)]  # points; above the staircase, then below it
_FAR = [*_NEAR, (-8, 14), (8, 6), (8, -15), (-8, 24), (8, -24)]


def place_labels(figure: Figure, axes: Axes, view: StudyView, theme: Theme) -> None:
    """Direct labels for the front, picks first, each in the first free place around its point."""
    picked = view.picked
    rest = [p for p in view.front if p not in picked]
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    frame = axes.get_window_extent(renderer)
    # the room a dominated point keeps free is wider: a label beside it would read as its own
    taken = [_box(axes, *p.xy, 9 if p.on_front else 14) for p in view.drawn]
    if view.dense and view.dense.quality is not None:
        taken.append(_box(axes, view.dense.ms, view.dense.quality, 60))
    for point in [*picked, *rest]:
        strong = point in picked
        text = escape.plain(point.label)
        if strong:
            text += f"\n{format_ms(point.ms)} ms, {format_quality(point.quality, view.scale)}"
        label = axes.annotate(
            text,
            point.xy,
            (0, 0),
            textcoords="offset points",
            color=theme.ink if strong else theme.muted,
            fontsize=8.5 if strong else 7.5,
            linespacing=1.25,
            zorder=4,
            bbox={"facecolor": theme.paper, "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
        )
        if not _fit(label, 6 if strong else 0, frame, taken, renderer):
            label.remove()


def _fit(label: Annotation, extra: int, frame: Bbox, taken: list[Bbox], renderer: Any) -> bool:
    for dx, dy in _FAR if extra else _NEAR:
        label.set_position((dx + (extra if dx > 0 else -extra), dy))
        label.set_horizontalalignment("right" if dx < 0 else "left")
        label.set_verticalalignment("top" if dy < 0 else "bottom")
        box = label.get_window_extent(renderer)
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        if inside and not any(box.overlaps(other) for other in taken):
            taken.append(box)
            return True
    return False


def _box(axes: Axes, x: float, y: float, radius_px: float) -> Bbox:
    px, py = axes.transData.transform((x, y))
    return Bbox.from_extents(px - radius_px, py - radius_px, px + radius_px, py + radius_px)
