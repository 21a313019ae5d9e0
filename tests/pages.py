"""The pages that people read, and what stands in them: blocks, lines of shell, commands within a sentence."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *(ROOT / name for name in ("results/README.md", "experiments/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "nash_search/tasks/g2p_teacher/README.md",
]


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


def languages(page: Path) -> set[str]:
    """Languages of a page's fenced blocks; "" where one names none."""
    return set(re.findall(r"^```(.*)\n(?:.*\n)*?```$", page.read_text(), re.M))


def shell_lines(page: Path) -> list[list[str]]:
    """Every line of every shell block, as words."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def spans(page: Path, program: str) -> list[list[str]]:
    """Every command of this program that stands in backticks, as words; a line may break within."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    return [shlex.split(span) for span in re.findall(rf"`({program}(?:\s[^`]*)?)`", text)]
