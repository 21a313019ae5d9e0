"""A column is one entry: terminal, Markdown and page draw it, and say the same in it."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from nash_search.report import columns, markdown, page, text, view


@pytest.fixture
def shown(study: Any) -> view.StudyView:
    return view.build(*study)


def _terminal(shown: view.StudyView, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(text.leaderboard(shown, width))
    return out.getvalue()


def test_a_new_column_is_one_entry(shown: view.StudyView, monkeypatch: pytest.MonkeyPatch) -> None:
    new = columns.Column(head="lucky", cell=lambda row, look: f"{row.label} | of 7", kind="words")
    monkeypatch.setattr(columns, "FRONT", (*columns.FRONT, new))
    monkeypatch.setattr(columns, "TRIALS", (*columns.TRIALS, new))
    first, html = shown.front[0].label, page.render(shown)
    assert "lucky" in _terminal(shown, 200) and f"{first} | of 7" in _terminal(shown, 200)
    assert f"{first}, of 7" in markdown.table(shown), "a bar would end the cell"
    assert html.count(">lucky</button>") == 2 and f">{first} | of 7</td>" in html


def test_every_number_stands_alike_in_all_three(shown: view.StudyView) -> None:
    look, html, table, lines = (
        columns.Look(view=shown),
        page.render(shown),
        markdown.table(shown),
        _terminal(shown, 200),
    )
    for row in shown.front_rows:
        for column in columns.standing(columns.FRONT, look):
            if not column.kind and (cell := column.cell(row, look)):
                assert cell in table and f">{cell}</td>" in html and cell in lines, column.named(look)


def test_a_narrow_terminal_loses_columns_and_no_row(shown: view.StudyView) -> None:
    wide, narrow = _terminal(shown, 200), _terminal(shown, 60)
    assert "heads, neurons kept" in wide and "heads, neurons kept" not in narrow and "size" not in narrow
    rows = [line for line in narrow.splitlines() if re.search(r"\d×", line)]
    assert len(rows) == len(shown.front_rows)
    assert all(f"{p.speedup:.2f}×" in narrow for p in shown.front)


def test_the_dense_model_has_an_error_too(shown: view.StudyView) -> None:
    dense = shown.dense
    assert dense is not None and dense.quality_half_width
    assert columns.quality_words(dense, shown.scale).endswith(f" ± {dense.quality_half_width:.2f}")
