"""A front timed again: the table and the picture of both, and never two machines in one line unsaid.

Both are drawn from what `nash-search remeasure` found alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nash_search.files import replace
from nash_search.remeasured import Remeasured
from nash_search.report.canvas import canvas, encoded
from nash_search.report.escape import plain
from nash_search.report.palette import LIGHT


def caption(found: Remeasured) -> str:
    """What the two fronts were measured on, and in what that differs."""
    if found.same_fingerprint:
        return "filled: now; hollow: when the study ended; same device and software"
    now, before = found.fingerprint, found.before.fingerprint
    fields = sorted({*now, *before} - {"hash"})
    changed = [
        f"{name} {_said(before, name)} -> {_said(now, name)}" for name in fields if now.get(name) != before.get(name)
    ]
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return (
        "two different fingerprints: hollow is from when the study ended, filled from now; compare within one only\n"
        f"what changed: {', '.join(changed[:SHOWN])}{more}"
    )


SHOWN = 3
"""Changed fields of a fingerprint that a caption names."""


def _said(fingerprint: Mapping[str, Any], name: str) -> str:
    return plain(str(fingerprint.get(name, "unknown")), 40)


def draw(found: Remeasured) -> Figure:
    """Quality against the share of the dense latency, now and before."""
    theme = LIGHT
    with canvas((0.09, 0.17, 0.87, 0.72), theme) as (figure, axes):
        rows = sorted(found.front, key=lambda row: row.share)
        quality = [row.quality for row in rows]
        now = [100 * row.share for row in rows]
        low = [100 * max(0.0, row.share - row.share_bounds[0]) for row in rows]
        high = [100 * max(0.0, row.share_bounds[1] - row.share) for row in rows]
        before = [100 * row.before.share for row in rows]
        axes.plot(before, quality, "o--", color=theme.muted, markerfacecolor=theme.paper, linewidth=1, markersize=6)
        axes.errorbar(now, quality, xerr=[low, high], fmt="o-", color=theme.front, markersize=5, capsize=2)
        axes.set_xlabel("latency, % of the dense model's on the same machine", color=theme.muted)
        axes.set_title(f"{plain(found.study, 60)}: quality", loc="left", color=theme.muted, fontsize=9)
        figure.text(0.09, 0.02, caption(found), fontsize=7.5, color=theme.muted)
    return figure


def save_remeasured(folder: Path, found: Remeasured) -> list[Path]:
    """`remeasured-<fingerprint>.json` and `.png` in the study's folder."""
    stem = f"remeasured-{str(found.fingerprint.get('hash', 'unknown'))[:8]}"
    written = {f"{stem}.json": json.dumps(found.to_json(), indent=1).encode(), f"{stem}.png": encoded(draw(found))}
    for name, data in written.items():
        replace(folder / name, data)
    return [folder / name for name in written]
