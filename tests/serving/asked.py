"""Tools of environments that do not hold nash-search, and what they answer."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

HERE, ENVIRONMENTS = Path(__file__).parent, Path(__file__).parents[2] / ".venv"
CTRANSLATE2, OPTIMUM = (ENVIRONMENTS / f"serving-{name}" / "bin" / "python" for name in ("ctranslate2", "optimum"))
WITH_CTRANSLATE2 = [CTRANSLATE2, "-W", "ignore", HERE / "with_ctranslate2.py"]
WITH_OPTIMUM = [OPTIMUM, "-W", "ignore", HERE / "with_optimum.py"]
NODE, JS = shutil.which("node"), ENVIRONMENTS / "serving-js" / "node_modules"
WITH_JS = [NODE, HERE / "with_transformers.mjs", JS]
ONE = "t5"
"""The family that `make test` asks each tool about; the others are slow."""


def where(there: bool, tool: str) -> pytest.MarkDecorator:
    """Skipped, with the reason, where a tool's environment is absent."""
    return pytest.mark.skipif(not there, reason=f"{tool}'s environment is absent: make .venv/installed-serving")


def one_then(families: Sequence[str]) -> pytest.MarkDecorator:
    """A test's `kinds`: one family, then all others in one go."""
    rest = [kind for kind in families if kind != ONE]
    return pytest.mark.parametrize("kinds", [[ONE], pytest.param(rest, marks=pytest.mark.slow)], ids=["one", "others"])


def answered(folder: Path, command: Sequence[Any], **question: Any) -> dict[str, Any]:
    """What a tool of another environment answers; both questions and answers are JSON files in the folder."""
    asked, answer = folder / "question.json", folder / "answer.json"
    asked.write_text(json.dumps(question))
    done = subprocess.run([*command, asked, answer], cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(answer.read_text())
    return found
