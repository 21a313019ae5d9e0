"""Text from outside is shown, and does nothing: terminal, Markdown, cards, CSV, pictures.

What a browser makes of it is in test_browser.py.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from rich.console import Console

from nash_search.files import csv_cell
from nash_search.report import card, card_metadata, escape, markdown, picture, plots, view
from nash_search.report.console import RunTable
from nash_search.search import summary

ALLOWED = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
"""What rich itself writes: colours, cursor, clearing of its own lines."""


def test_there_are_enough_payloads(payloads: tuple[str, ...]) -> None:
    assert len(set(payloads)) >= 30


@pytest.mark.parametrize("terminal", [True, False])
def test_terminal_shows_text_and_obeys_none(hostile: Any, payloads: tuple[str, ...], terminal: bool) -> None:
    records, summary, answers = hostile
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=160, height=80)
    table = RunTable(console=console, dashboard_url=payloads[0])
    plan = {k: v for k, v in summary.to_json().items() if k != "budgets"} | {"trials": 3}
    with table:
        table.on_stage(
            "plan",
            plan | {"model": payloads[36], "estimated": payloads[37], "budgets": [{"asked": "50%", "budget_ms": 34.0}]},
        )
        for payload in payloads:
            table.on_stage(payload, {"message": payload})
            table.on_progress(1, payload, 1, 2, 0.5)
        for record in records:
            table.on_trial(record)
    table.finish(view.build(records, summary, answers), list(payloads))
    text = out.getvalue()
    left = ALLOWED.sub("", text) if terminal else text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", left.replace("\r", ""))
    assert "\x1b[2J" not in text and "\x1b]" not in text
    assert "[red]markup[/red]" in text, "markup of others is text"


def _opened(source: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(source)


def _links(html: str) -> set[str]:
    return set(re.findall(r"<(?:a|img|source)[^>]*(?:href|src|srcset)=\"([^\"]*)\"", html))


def test_markdown_report_renders_no_tag_and_no_link_of_others(hostile: Any) -> None:
    html = _opened(markdown.render(view.build(*hostile)))
    assert set(re.findall(r"<(\w+)", html)) <= _TAGS
    assert _links(html) <= {"front.png", "front-dark.png"}


_TAGS = {
    *("h1", "h2", "p", "ul", "li", "br", "picture", "source", "img", "pre", "code", "strong", "a"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}


def test_cards_render_no_tag_and_no_link_of_others(hostile: Any, export_at: Any, payloads: tuple[str, ...]) -> None:
    seen = view.build(*hostile)
    for payload in payloads:
        source = card_metadata.Source(teacher=payload, data=payload, license=payload)
        text = card.card(seen, export_at(hostile[2], 4, payload), source, examples=[(payload, payload, payload)])
        _, header, body = re.split(r"^---$", text, maxsplit=2, flags=re.M)
        html = _opened(body)
        assert set(re.findall(r"<(\w+)", html)) <= _TAGS
        assert _links(html) <= {"https://arxiv.org/abs/2310.10054"}
        rows = [line for line in body.splitlines() if line.startswith("| ")]
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}, "no cell breaks out of its column"
        data = ModelCard(text).data.to_dict()
        assert data["library_name"] == "transformers" and data.get("license") != "evil"


def test_no_template_is_expanded(hostile: Any, export_at: Any) -> None:
    source = markdown.render(view.build(*hostile)) + card.card(view.build(*hostile), export_at(hostile[2], 4))
    assert "1337" not in source, "7*191"
    assert "{{" not in re.sub(r"```.*?```", "", source, flags=re.S), "site generators expand braces in Markdown"


def test_cells_are_no_formulas(payloads: tuple[str, ...]) -> None:
    out = io.StringIO()
    csv.writer(out).writerows([csv_cell(p)] for p in payloads)
    for [cell] in csv.reader(io.StringIO(out.getvalue())):
        assert not cell.lstrip().startswith(("=", "+", "-", "@"))
    assert [csv_cell(x) for x in (-1.5, "-1.5", "1e-3", "text", None)] == [-1.5, "-1.5", "1e-3", "text", None]


def test_exported_tables_hold_no_formulas(hostile: Any, tmp_path: Path) -> None:
    records, answer, _ = hostile
    summary.write_tables(tmp_path, records, answer)
    for name in ("trials.csv", "front.csv"):
        text = (tmp_path / name).read_text("utf-8")
        for cell in (cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row):
            with contextlib.suppress(ValueError):
                cell = str(abs(float(cell)))
            assert not cell.lstrip().startswith(("=", "+", "-", "@")), name


def test_json_cannot_leave_its_script(payloads: tuple[str, ...]) -> None:
    text = escape.script_json(list(payloads))
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == list(payloads)


def test_pictures_draw_hostile_text(hostile: Any, tmp_path: Path) -> None:
    written = picture.save_front(view.build(*hostile), tmp_path)
    svg = next(p for p in written if p.suffix == ".svg").read_text()
    assert "<script" not in svg and "evil.example" not in re.sub(r"<!--.*?-->", "", svg, flags=re.S)
    assert "pwned" not in re.sub(r"<!--.*?-->", "", svg, flags=re.S)


def test_plotly_labels_hold_no_tags(hostile: Any) -> None:
    for figure in plots.figures(view.build(*hostile)).values():
        for word in re.findall(r"<(\w+)", json.dumps(figure.to_plotly_json())):
            assert word in ("b", "br", "extra")


def test_a_symbolic_link_is_replaced_not_followed(study: Any, tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("precious")
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "front.png").symlink_to(outside)
    picture.save_front(view.build(*study), folder)
    assert outside.read_text() == "precious" and not (folder / "front.png").is_symlink()
