"""The storage URL of an SQLite file, whatever characters its path has.

Two readers stand between a path and SQLite: Optuna takes `{…}` for a template, and SQLAlchemy cuts at `?` and, from
2.1 on, decodes `%41`. A path with any of these goes as SQLite's own `file:` URI, percent-encoded; any other is
written as it is, which people can read.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote

_PLAIN = "sqlite:///"
_URI = "file:"


def sqlite_url(path: Path, **options: str) -> str:
    """The URL that Optuna opens this file by; `options` are SQLite's own, e.g. `mode="ro"`."""
    text = str(path)
    if not options and not text.startswith(_URI) and not any(c in text for c in "?%{}"):
        return f"{_PLAIN}{text}"
    from sqlalchemy import URL

    found = URL.create("sqlite", database=f"{_URI}{quote(text)}", query={**options, "uri": "true"})
    return found.render_as_string()


def sqlite_path(url: str) -> Path | None:
    """The file behind a URL of `sqlite_url`; None for another database."""
    if not url.startswith(_PLAIN):
        return None
    from sqlalchemy import make_url

    database = make_url(url).database or ""
    return Path(unquote(database.removeprefix(_URI)) if database.startswith(_URI) else database)
