"""What the pages show of an answer is what the terminal says of the committed study, 80 characters wide."""

from __future__ import annotations

import html
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from nash_search.report import card, load, markdown, page, plots, text
from nash_search.report.card import Export
from nash_search.report.points import Point
from nash_search.report.view import StudyView
from nash_search.report.words import format_duration
from nash_search.summary_rows import Window
from tests.pages import ROOT, blocks

WIDTH = 80
FILES = ("front.png", "front.svg", "front-dark.png", "front-dark.svg", "report.md", "report.html")


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., StudyView]:
    """A committed study under another name; its weights are not committed, so their folders hold a config at most."""

    def look(study: str, name: str) -> StudyView:
        made = tmp_path / "results" / name
        shutil.copytree(ROOT / "results" / study, made)
        for export in re.findall(r'"checkpoint": ?"([^"]+)"', (made / "certification.json").read_text()):
            (made / export).mkdir(parents=True, exist_ok=True)
        for point in json.loads((made / "certification.json").read_text())["points"]:
            if point["architecture"]["encoder_sparsity_pct"] == 0:  # a stock folder: what says how it loads
                (made / point["checkpoint"] / "config.json").write_text("{}")
        monkeypatch.chdir(tmp_path)
        return load.load(Path("results", name))

    return look


def finished(p: Point) -> Point:
    """As if it had been trained at length."""
    return replace(p, record=p.record.model_copy(update={"finish_steps": 1500}))


def printed(view: StudyView) -> list[str]:
    out = io.StringIO()
    files = [f"results/{view.study}/{name}" for name in FILES]
    Console(file=out, width=WIDTH, highlight=False).print(text.answer(view, files, WIDTH), crop=False)
    return [line.rstrip() for line in out.getvalue().strip().splitlines()]


def test_what_make_search_prints(seen: Callable[..., StudyView]) -> None:
    [block] = blocks(ROOT / "docs" / "make-search.md", "text")
    lines, now = block[block.index("✓") :].splitlines(), printed(seen("g2p", "g2p-72a6ce"))
    table = slice(lines.index("The front of g2p-72a6ce, fastest first") + 1, lines.index("Written") - 1)
    for there, here in zip(lines[table], now[table], strict=True):
        assert there.startswith(here)  # steps are the trials' own records', which are not committed
    assert [*lines[: table.start], *lines[table.stop :]] == [*now[: table.start], *now[table.stop :]]
    [excerpt] = blocks(ROOT / "README.md", "text")
    assert set(excerpt.splitlines()) <= set(lines)


def test_what_the_worked_example_prints(seen: Callable[..., StudyView]) -> None:
    *_, later = blocks(ROOT / "docs" / "worked-example.md", "text")
    assert set(later.splitlines()) <= set(printed(seen("flan-debsyn", "flan-debsyn")))


@pytest.mark.parametrize("study", ["g2p", "headline-multi30k", "whisper-prompts"])
def test_a_row_is_a_line_and_the_answer_leads(seen: Callable[..., StudyView], study: str) -> None:
    view = seen(study, study)
    lines = printed(view)
    assert lines[0][0] in "✓✗?"
    table = lines[lines.index(f"The front of {view.study}, fastest first") + 1 : lines.index("Written") - 1]
    assert len(table) == 1 + len(view.front_rows)
    assert not any("…" in line for line in table)


def test_the_page_of_a_model_that_hears(seen: Callable[..., StudyView]) -> None:
    view = seen("whisper-prompts", "whisper-prompts")
    drawn = page.render(view)
    assert "batch 1, 5 s of sound in, 8 tokens out" in drawn
    assert f"{format_duration(view.summary.train_s)} of training" in drawn
    axis = plots.figures(view)["shapes"].layout.xaxis
    assert axis.tickvals == (100,), "depth alone was searched: one width"


def test_what_scrolls_sideways_is_reached_by_the_keyboard(seen: Callable[..., StudyView]) -> None:
    drawn = page.render(seen("g2p", "g2p-72a6ce"))
    scrolling = re.findall(r'<(?:div|figure|pre)(?: class="(?:scroll|wide)"[^>]*|[^>]* tabindex[^>]*)>', drawn)
    assert len(scrolling) >= 4 and all('tabindex="0"' in tag for tag in scrolling)
    assert "2 decoder blocks and 60% of the encoder" in drawn, "the labels are explained where they stand first"


def test_a_window_and_the_pruning_gain_in_columns_of_their_own(seen: Callable[..., StudyView]) -> None:
    view = seen("whisper-prompts", "whisper-prompts")
    gained = Window(seconds=5, of_seconds=30, latency_ms=1235, share=0.331, share_bounds=(0.323, 0.342), status="clean")
    view = replace(view, summary=view.summary.model_copy(update={"window": gained}))
    said = "window: 5 s instead of 30 s, which leaves 33.1% (32.3% to 34.2%) of the 30 s model's latency"
    lines, document = printed(view), markdown.render(view)
    head = next(line for line in lines if " RTF " in line)
    assert not any("…" in line for line in lines)
    at_length = replace(view, points=tuple(finished(p) for p in view.points))
    assert "steps" in " ".join(shown := printed(at_length)) and not any("…" in line for line in shown)
    assert " window " in head and " pruning " in head and "speed-up" not in head and max(map(len, lines[:12])) <= WIDTH
    least = view.summary.front[-1]
    row = next(line for line in lines if line.startswith(f"{least.latency_ms:.0f} "))
    assert " 3.02× " in row and f" {least.speedup:.2f}× " in row
    assert said in " ".join(" ".join(lines).split()) and said in document and said in html.unescape(page.render(view))
    assert "| window | pruning |" in re.sub(" +", " ", document)
    export = Export(name="x", point=view.certified[0])
    assert said in card.card(view, export) and "every speed-up here is pruning's" in card.card(view, export)
