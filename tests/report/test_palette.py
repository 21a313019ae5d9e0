"""Colours are readable on their paper."""

from __future__ import annotations

import pytest

from nash_search.report import palette


def _contrast(a: str, b: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [palette.LIGHT, palette.DARK])
def test_colours_are_readable_on_their_paper(theme: palette.Theme) -> None:
    for text in (theme.ink, theme.muted):
        assert _contrast(text, theme.paper) >= 4.5  # WCAG AA, text
    for mark in (theme.front, theme.baseline, theme.alert):
        assert _contrast(mark, theme.paper) >= 3  # WCAG AA, graphics
    assert _contrast(theme.front, theme.baseline) >= 1.3, "blue and orange must differ in lightness"
