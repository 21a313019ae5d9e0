"""Colours and marks, once for every picture.

Meaning never rests on colour alone: **shape** says what a point is (circle: narrowed encoder,
square: encoder whole, diamond: dense model), **fill** says whether it is on the front (filled)
or dominated (hollow), a ring marks a budget's pick, a cross a contended sample. The hues are a
blue and an orange that differ in lightness too, so they survive every colour vision and print.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Theme:
    """One set of colours (CSS hex)."""

    paper: str
    ink: str
    muted: str
    """Captions, axes, dominated points."""
    faint: str
    """Grid."""
    front: str
    baseline: str
    alert: str
    """Contended samples, missed budgets."""
    levels: tuple[str, ...]
    """Ordered blues, few to many decoder blocks."""


LIGHT = Theme(
    paper="#ffffff",
    ink="#1b2430",
    muted="#6a7482",
    faint="#e8ebef",
    front="#17629f",
    baseline="#d2691e",
    alert="#b3261e",
    levels=("#7db2dd", "#5a99cd", "#3a7fbb", "#17629f", "#0f4673", "#0a2d4b"),
)
DARK = Theme(
    paper="#11161c",
    ink="#e6ebf1",
    muted="#93a0af",
    faint="#262e38",
    front="#5aa2e0",
    baseline="#ffbe76",
    alert="#ff8a80",
    levels=("#5483ad", "#5e99cf", "#6fb3ec", "#93c9f5", "#bcdffb", "#e2f2ff"),
)


def level(theme: Theme, index: int, count: int) -> str:
    """The ordered colour of item `index` of `count`."""
    last = len(theme.levels) - 1
    return theme.levels[last // 2 if count < 2 else round(index * last / (count - 1))]
