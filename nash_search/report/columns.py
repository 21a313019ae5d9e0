"""The columns of a study's tables: the terminal's, Markdown's and the page's. A new column is one entry here.

    FRONT, TRIALS -> `standing(columns, look)` -> text.leaderboard, markdown.table, page (which sorts by `sorts`)

A terminal is so many characters wide and leaves columns out, the least telling ones first. A document is `WIDE`: it
names a shape in one column, `kept`, where a terminal lines up depth and width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nash_search.report import escape
from nash_search.report.points import Dense, Point
from nash_search.report.view import StudyView
from nash_search.report.words import (
    counted,
    format_count,
    format_duration,
    format_ms,
    format_quality,
    format_real_time,
    format_spread,
)

WIDE = math.inf
"""The width of a document."""
Row = Point | Dense
Sorts = float | str | None
"""What the page sorts a cell by; None stays last."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """A study, and how many characters wide its table may be."""

    view: StudyView
    width: float = WIDE

    @property
    def document(self) -> bool:
        """Is it drawn where any width will do?"""
        return self.width == WIDE

    @property
    def finished(self) -> bool:
        """Was any model of the front trained at length?"""
        return any(p.record.finish_steps for p in self.view.front)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its head, and what stands in it for a trial or the dense model."""

    head: str | Callable[[Look], str]
    cell: Callable[[Row, Look], str]
    """Plain text; a name that is not ours has passed `escape.plain`."""
    sorts: Callable[[Row, Look], Sorts] | None = None
    """None: by its text."""
    kind: str = ""
    """`words` stand left, a `reason` left and broken into lines, numbers right."""
    stands: Callable[[Look], bool] = lambda look: True
    """Does a table of this look have it?"""

    def named(self, look: Look) -> str:
        """Its head."""
        return self.head if isinstance(self.head, str) else self.head(look)


def standing(columns: Sequence[Column], look: Look) -> list[Column]:
    """Those of the columns that a table of this look has."""
    return [column for column in columns if column.stands(look)]


def quality_words(row: Row, scale: float | None = None) -> str:
    """`91.30 ± 0.41`; no ± where its error is unknown."""
    if row.quality is None:
        return "–"
    wide = row.quality_half_width
    return format_quality(row.quality, scale) + (f" ± {format_quality(wide, scale)}" if wide is not None else "")


def trained_words(p: Point, scale: float | None = None) -> str:
    """`1,800 steps (600: 90.08)`: how long the model was trained, and what the search's own training came to."""
    steps = p.record.finish_steps or p.record.train_steps
    words = f"{steps:,.0f} steps" if steps else ""
    if p.record.finish_steps and p.searched is not None:
        short = f"{p.searched.train_steps:,.0f}" if p.searched.train_steps else "searched"
        words += f" ({short}: {format_quality(p.searched.quality.value, scale)})" if p.searched.quality else ""
    return words


def widths_words(p: Point) -> str:
    """`4 4 3 2 2 1 | 256 198 …`: what each encoder block kept."""
    shapes = p.record.shapes
    if shapes is None:
        return "–"
    heads, neurons = shapes.encoder_heads, shapes.encoder_neurons
    if len(set(heads)) == 1 and len(set(neurons)) == 1:
        return f"{heads[0]} | {neurons[0]} in every block"
    return f"{' '.join(map(str, heads))} | {' '.join(map(str, neurons))}"


def remark(p: Point) -> str:
    """Why a trial has no numbers or ended early, or that its timings are doubtful."""
    words = escape.plain(p.reason, 300)
    if not words and p.record.latency is not None and p.record.latency.status == "contended":
        return f"{p.record.latency.contended_share:.0%} of its timings were contended"
    return words


def _of_trials(cell: Callable[[Point, Look], str]) -> Callable[[Row, Look], str]:
    """A cell that is empty for the dense model."""
    return lambda row, look: "" if isinstance(row, Dense) else cell(row, look)


def _by(key: Callable[[Point], Sorts]) -> Callable[[Row, Look], Sorts]:
    """A key of sorting that the dense model has not."""
    return lambda row, look: None if isinstance(row, Dense) else key(row)


def _ms(row: Row, look: Look) -> str:
    """`43.7 ± 0.23`; an interval that takes a sentence to say is a document's: a terminal's columns are narrow."""
    spread = format_spread(row.low_ms, row.high_ms)
    return format_ms(row.ms) + (spread if look.document or spread.startswith(" ±") else "")


def _metric(look: Look) -> str:
    """`BLEU (validation)`."""
    metric = escape.plain(look.view.metric, 40 if look.document else 16)
    return f"{metric} ({look.view.split})" if look.width >= 100 else metric


def _depth_first(p: Point) -> Sorts:
    return p.architecture.decoder_layers * 1000 + 100 - p.architecture.encoder_sparsity_pct


def _picked(p: Point, look: Look) -> str:
    return escape.plain(", ".join(look.view.picked_for(p)))


def _blocks(row: Row, look: Look) -> str:
    if isinstance(row, Dense):
        return "dense"
    layers = row.architecture.decoder_layers
    return counted(layers, "block") if _roomy(look) else str(layers)


def _encoder(row: Row, look: Look) -> str:
    return f"{100 if isinstance(row, Dense) else 100 - row.architecture.encoder_sparsity_pct}%"


def _roomy(look: Look) -> bool:
    """Is there room for whole words beside the columns of a model that hears, or was trained at length?"""
    return look.width >= 100 or not (look.finished or look.view.is_speech)


def _columns_of_its_own(look: Look) -> int:
    """Columns that other studies have not: steps, the real-time factor, the window."""
    return look.finished + look.view.is_speech + (look.view.window_gain is not None)


KEPT = Column(
    head="kept", cell=lambda row, look: row.label, sorts=_by(_depth_first), kind="words", stands=lambda k: k.document
)
MS = Column(head=lambda look: look.view.ms_name, cell=_ms, sorts=lambda row, look: row.ms)
REAL_TIME = Column(
    head=lambda look: "real-time factor" if look.document else "RTF",
    cell=lambda row, look: format_real_time(look.view.real_time(row.ms)),
    sorts=lambda row, look: look.view.real_time(row.ms),
    stands=lambda look: look.view.is_speech,
)
WINDOW = Column(
    head="window",
    cell=lambda row, look: f"{look.view.window_gain:.2f}×",
    stands=lambda look: look.view.window_gain is not None,
)
SPEED_UP = Column(
    # beside a window's gain its own head would be taken for both
    head=lambda look: "speed-up" if look.view.window_gain is None else "pruning",
    cell=lambda row, look: "–" if row.speedup is None else f"{row.speedup:.2f}×",
    sorts=lambda row, look: row.speedup,
)
QUALITY = Column(
    head=_metric,
    cell=lambda row, look: quality_words(row, look.view.scale),
    sorts=lambda row, look: row.quality,
)
DROP = Column(
    head="drop",
    cell=_of_trials(lambda p, look: format_quality(p.drop, look.view.scale)),
    sorts=_by(lambda p: p.drop),
    stands=lambda look: _roomy(look) or _columns_of_its_own(look) < 3,
)
SIZE = Column(
    head="size",
    cell=lambda row, look: format_count(row.parameters),
    sorts=lambda row, look: row.parameters,
    stands=lambda look: look.width >= 80 and (_roomy(look) or _columns_of_its_own(look) < 2),
)

FRONT: tuple[Column, ...] = (
    KEPT,
    MS,
    REAL_TIME,
    WINDOW,
    SPEED_UP,
    QUALITY,
    DROP,
    SIZE,
    Column(
        head=lambda look: "decoder" if _roomy(look) else "blocks",
        cell=_blocks,
        kind="words",
        stands=lambda look: not look.document,
    ),
    Column(head="encoder", cell=_encoder, kind="words", stands=lambda look: not look.document),
    Column(head=lambda look: "picked for" if _roomy(look) else "for", cell=_of_trials(_picked), kind="words"),
    Column(
        head="trained",
        cell=_of_trials(lambda p, look: trained_words(p, look.view.scale)),
        sorts=_by(lambda p: p.record.train_steps),
        kind="words",
        stands=lambda look: look.finished and look.width >= 110,
    ),
    Column(
        head="steps",
        cell=_of_trials(lambda p, look: f"{p.record.train_steps:,.0f}" if p.record.train_steps else ""),
        kind="words",
        stands=lambda look: look.finished and look.width < 110,
    ),
    Column(
        head="heads, neurons kept",
        cell=_of_trials(lambda p, look: widths_words(p)),
        sorts=_by(lambda p: p.parameters),
        kind="words",
        stands=lambda look: look.width >= 130 and any(p.record.shapes for p in look.view.front),
    ),
)
"""One row per point of the front, the dense model last."""

TRIALS: tuple[Column, ...] = (
    Column(head="trial", cell=_of_trials(lambda p, look: str(p.number)), sorts=_by(lambda p: p.number)),
    KEPT,
    Column(head="status", cell=_of_trials(lambda p, look: p.status), kind="words"),
    MS,
    SPEED_UP,
    QUALITY,
    DROP,
    SIZE,
    Column(
        head="trained",
        cell=_of_trials(lambda p, look: format_duration(p.record.train_s) if p.record.train_s else "–"),
        sorts=_by(lambda p: p.record.train_s or None),
    ),
    Column(head="seed", cell=_of_trials(lambda p, look: str(p.record.seed)), sorts=_by(lambda p: p.record.seed)),
    Column(head="remark", cell=_of_trials(lambda p, look: remark(p)), kind="reason"),
)
"""One row per trial, in the order they were asked for."""
