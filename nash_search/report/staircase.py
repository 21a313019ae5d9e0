"""The probe's answer for a person: what every shape costs, the staircase each budget cuts, a small plot.

Reads the document of the probe only; refuses to measure and to know what the shapes are worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from nash_search.report.answer import admits
from nash_search.report.canvas import canvas, encoded
from nash_search.report.escape import plain
from nash_search.report.files import replace
from nash_search.report.palette import LIGHT, level

Survey = Mapping[str, Any]


def probe_table(survey: Survey) -> RenderableType:
    """Shares of the dense latency, depth by width, and one sentence per budget."""
    dense, workload = survey["dense"], survey["workload"]
    call = f"batch {workload['batch_size']}, {workload['input_tokens']} tokens in, {workload['output_tokens']} out"
    lines = [
        f"{plain(survey['task'], 40)} on {workload['device']}, {workload['threads']} thread(s), {call}, "
        f"{workload['beams']} beam(s), {workload['dtype']}, {workload['runtime']}",
        f"dense {dense['latency_ms']:.4g} ms{_between(dense['lower_ms'], dense['upper_ms'])}",
    ]
    if survey["ms_per_decoder_block"] is not None:
        lines.append(f"{survey['ms_per_decoder_block']:.3g} ms per decoder block")
    lines.append(f"floor {survey['floor_ms']:.4g} ms ({survey['floor_share']:.0%} of dense) at {survey['fastest']}")
    depths = max(row["architecture"]["decoder_layers"] for row in survey["shapes"])
    for budget in survey["budgets"]:
        if not budget["feasible"]:
            lines.append(f"{plain(budget['asked'], 20)}: no shape fits, the nearest is {budget['nearest_feasible']}")
        else:
            lines.append(admits(budget["asked"], depths, {int(n): s for n, s in budget["admits"].items()}))
    return Group(*(Text(line) for line in lines), Text(), _grid(survey))


def show(survey: Survey) -> None:
    """Print the table to stderr."""
    Console(stderr=True, highlight=False).print(probe_table(survey))


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({low:.4g} to {high:.4g})"


def _grid(survey: Survey) -> Table:
    cells = {_place(row): row for row in survey["shapes"]}
    sparsities = sorted({s for _, s in cells})
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("decoder blocks", justify="right")
    for sparsity in sparsities:
        table.add_column("encoder whole" if sparsity == 0 else f"−{sparsity}%", justify="right")
    for depth in sorted({d for d, _ in cells}, reverse=True):
        row = [cells.get((depth, s)) for s in sparsities]
        table.add_row(str(depth), *(f"{r['latency_ms']:.4g} ms {r['share']:4.0%}" if r else "–" for r in row))
    return table


def _place(row: Mapping[str, Any]) -> tuple[int, int]:
    architecture = row["architecture"]
    return int(architecture["decoder_layers"]), int(architecture["encoder_sparsity_pct"])


def draw_staircase(survey: Survey) -> Figure:
    """Latency against encoder sparsity, a line per decoder depth, budgets as dashed lines."""
    theme = LIGHT
    with canvas((0.09, 0.13, 0.74, 0.76), theme, grid="y") as (figure, axes):
        rows = {_place(row): row for row in survey["shapes"]}
        depths = sorted({d for d, _ in rows})
        for i, depth in enumerate(depths):
            points = sorted((s, rows[d, s]["latency_ms"]) for d, s in rows if d == depth)
            colour = level(theme, i, len(depths))
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, linewidth=1.6, color=colour)
            label = f"{depth} decoder block{'s' if depth > 1 else ''}"
            axes.annotate(
                label, points[-1], xytext=(7, 0), textcoords="offset points", va="center", color=colour, fontsize=8
            )
        for budget in survey["budgets"]:
            axes.axhline(budget["budget_ms"], linestyle=(0, (5, 4)), linewidth=1, color=theme.baseline)
            axes.annotate(
                f"≤ {plain(budget['asked'], 20)}", (0, budget["budget_ms"]), xytext=(2, 3),
                textcoords="offset points", color=theme.baseline, fontsize=8,
            )  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.set_xlabel("encoder weights removed, %", color=theme.muted)
        axes.set_title("latency of one generate call, ms", loc="left", fontsize=9, color=theme.muted)
    return figure


def save_staircase(survey: Survey, path: Path) -> None:
    """The plot as a png or svg file, by its ending."""
    kind = "svg" if path.suffix.lower() == ".svg" else "png"
    replace(path, encoded(draw_staircase(survey), kind))
