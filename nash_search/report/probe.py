"""The probe's answer for a person: what every shape costs, the staircase each budget cuts, a small plot.

The terminal gets a table and bars of plain ASCII, 80 columns wide; a file gets the picture. Both are
drawn from the survey alone.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from nash_search.files import replace
from nash_search.report import engines
from nash_search.report.canvas import canvas, encoded
from nash_search.report.escape import plain
from nash_search.report.palette import LIGHT, level
from nash_search.report.plan_text import plan_rows
from nash_search.report.words import counted, format_ms, named
from nash_search.summaries import Plan
from nash_search.survey import ProbedShape, Survey


def probe_table(survey: Survey) -> RenderableType:
    """What is known, every shape's latency depth by width, and bars of the same on one scale."""
    return Group(
        *(_line(label, words) for label, words in _rows(survey)),
        Text(),
        _grid(survey),
        Text(),
        *(Text(line) for line in bars(survey)),
    )


def _line(label: str, words: str) -> Text:
    """A command is never broken, for somebody will copy it."""
    line = f"{label}: {words}"
    return Text(line, no_wrap=True, overflow="ignore") if label == engines.COMMAND else Text(line)


def show(survey: Survey) -> None:
    """Print the table to stderr."""
    Console(stderr=True, highlight=False).print(probe_table(survey), crop=False)


def _rows(survey: Survey) -> list[tuple[str, str]]:
    """(label, words), in the words of a search's plan."""
    rows = plan_rows(Plan.model_validate(survey.to_json()))
    found = [row for row in rows if row[0] not in ("budget", *engines.LABELS)]
    shapes = survey.shapes
    if survey.remembered:
        found.append(
            (
                "timed before",
                f"{survey.remembered} of {len(shapes)} shapes; the dense model, timed again, has not drifted",
            )
        )
    contended = sum(row.status == "contended" for row in shapes)
    if contended:
        found.append(("contended", f"{contended} of {len(shapes)} shapes: shares hold, milliseconds may be too high"))
    if survey.timed_again:
        found.append(("timed again", f"{counted(survey.timed_again, 'shape')} whose time did not grow with depth"))
    if survey.ms_per_decoder_block is not None:
        found.append(("one decoder block", f"{format_ms(survey.ms_per_decoder_block)} ms"))
    floor = f"{format_ms(survey.floor_ms)} ms, {survey.floor_share:.0%} of dense"
    found.append(("floor", f"{floor} ({plain(survey.fastest, 60)})"))
    said = (words for label, words in rows if label == "budget")
    for budget, words in zip(survey.budgets, said, strict=True):
        nearest = "" if budget.feasible else f", the nearest that fits is {named(budget.nearest_feasible)}"
        found.append(("budget", words + nearest))
    return found + engines.rows(survey.engines) + engines.absent(survey.engines)


def _grid(survey: Survey) -> Table:
    cells = {_place(row): row for row in survey.shapes}
    sparsities = sorted({s for _, s in cells})
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("decoder blocks", justify="right")
    for sparsity in sparsities:
        table.add_column("encoder whole" if sparsity == 0 else f"-{sparsity}%", justify="right")
    for depth in sorted({d for d, _ in cells}, reverse=True):
        row = [cells.get((depth, s)) for s in sparsities]
        table.add_row(str(depth), *(f"{format_ms(r.latency_ms)} ms {r.share:4.0%}" if r else "-" for r in row))
    return table


BAR_COLUMNS = 60


def bars(survey: Survey) -> list[str]:
    """A bar per decoder depth from its fastest to its slowest shape, budgets as columns of `:`; plain ASCII."""
    shares: dict[int, list[float]] = {}
    for row in survey.shapes:
        shares.setdefault(_place(row)[0], []).append(row.share)
    last = max(1.0, *(share for group in shares.values() for share in group))

    def column(share: float) -> int:
        return round(share / last * (BAR_COLUMNS - 1))

    assert survey.dense.latency_ms is not None
    asked = [b.budget_ms / survey.dense.latency_ms for b in survey.budgets]
    marks = {column(share) for share in asked if share <= last}
    lines = []
    for depth in sorted(shares, reverse=True):
        cells = [":" if i in marks else " " for i in range(BAR_COLUMNS)]
        low, high = column(min(shares[depth])), column(max(shares[depth]))
        cells[low : high + 1] = "=" * (high + 1 - low)
        lines.append(f"{depth:>14}  {''.join(cells)}".rstrip())
    scale = [" "] * (BAR_COLUMNS + 4)
    for pct in (0, 25, 50, 75, 100):
        scale[column(pct / 100) : column(pct / 100) + len(f"{pct}%")] = f"{pct}%"
    legend = "from the fastest encoder timed to the slowest" + (", : a budget" if marks else "")
    return [*lines, f"{'of dense':>14}  {''.join(scale).rstrip()}", f"{'':16}{legend}"]


def _place(row: ProbedShape) -> tuple[int, int]:
    return row.architecture.decoder_layers, row.architecture.encoder_sparsity_pct


def draw_staircase(survey: Survey) -> Figure:
    """Latency against encoder sparsity, a line per decoder depth, budgets as dashed lines."""
    theme = LIGHT
    with canvas((0.09, 0.13, 0.74, 0.76), theme, grid="y") as (figure, axes):
        rows = {_place(row): row for row in survey.shapes}
        depths = sorted({d for d, _ in rows})
        for i, depth in enumerate(depths):
            points = sorted((s, rows[d, s].latency_ms) for d, s in rows if d == depth)
            colour = level(theme, i, len(depths))
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, linewidth=1.6, color=colour)
            label = counted(depth, "decoder block")
            axes.annotate(
                label, points[-1], xytext=(7, 0), textcoords="offset points", va="center", color=colour, fontsize=8
            )
        for budget in survey.budgets:
            axes.axhline(budget.budget_ms, linestyle=(0, (5, 4)), linewidth=1, color=theme.baseline)
            axes.annotate(
                f"≤ {plain(budget.asked, 20)}", (0, budget.budget_ms), xytext=(2, 3),
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
