"""The log's index of verdicts has one line per entry, in order, and each leads to its entry."""

from __future__ import annotations

import re
from pathlib import Path

LOG = (Path(__file__).parent.parent / "results" / "LOG.md").read_text("utf-8")


def anchor(heading: str) -> str:
    """What GitHub calls a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_entry_is_dated_and_has_its_line_in_the_index_of_verdicts() -> None:
    first, *entries = re.findall(r"^## (.*)$", LOG, re.MULTILINE)
    assert first == "Verdicts"
    rows = re.findall(r"^\| (\d{4}-\d\d-\d\d) \| \[.+\]\(#(.+)\) \| (.+) \|$", LOG.split("\n## ")[1], re.MULTILINE)
    assert [where for _, where, _ in rows] == [anchor(entry) for entry in entries]
    assert [f"{date} · " for date, _, _ in rows] == [entry[:13] for entry in entries]


def test_every_entry_since_the_index_has_a_verdict() -> None:
    entries = [entry for entry in LOG.split("\n## ")[2:] if entry[:10] >= "2026-11-27"]
    assert not [entry.splitlines()[0] for entry in entries if "**Verdict" not in entry]
