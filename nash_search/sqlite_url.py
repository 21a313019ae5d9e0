"""The storage URL of an SQLite file, whatever characters its path has.

Two readers stand between a path and SQLite: Optuna takes `{…}` for a template, and SQLAlchemy cuts at `?`. Such a
path goes as SQLite's own `file:` URI, percent-encoded; any other is written as it is, which people can read.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote

_PLAIN = "sqlite:///"
_AS_URI = f"{_PLAIN}file:"
_TAIL = "?uri=true"


def sqlite_url(path: Path) -> str:
    """The URL that Optuna opens this file by."""
    text = str(path)
    if any(c in text for c in "?{}") or text.startswith("file:"):
        return f"{_AS_URI}{quote(text)}{_TAIL}"
    return f"{_PLAIN}{text}"


def sqlite_path(url: str) -> Path | None:
    """The file behind a URL of `sqlite_url`; None for another database."""
    if url.startswith(_AS_URI):
        return Path(unquote(url.removeprefix(_AS_URI).partition("?")[0]))
    return Path(url.removeprefix(_PLAIN)) if url.startswith(_PLAIN) else None
