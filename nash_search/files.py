"""Files as every room writes them: replaced whole, durable where it matters, with room on the disk asked for first.

write_atomic   a reader sees the old file or the new one, and so does a machine that lost its power
replace        the same without the wait for the disk: for what can be drawn again
staged_file, staged_folder   the same two ways for whoever writes by path: it takes the name when it is whole
take_place     the last step of all of these, for what is staged and finished in two places: nobody else renames
ask_free       ENOSPC before the work instead of in the middle of it
cache_folder   what can be made again at any time, and goes when nobody has used it for a month
csv_cell       a cell that no spreadsheet runs as a formula
sqlite_url     the storage URL of an SQLite file, whatever characters its path has
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

SLACK_BYTES = 64 << 20
"""Free space demanded beyond a caller's own need: for records, logs, and the study's database and backups."""

KEPT_S = 30 * 24 * 3600
"""Seconds without use after which an entry of the cache folder is removed."""

_FORMULA = re.compile(r"^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|^[\t\r\n]")
_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
_PLAIN = "sqlite:///"
_URI = "file:"


def fsync_folder(path: Path) -> None:
    """Make a rename or a new file in this folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_file(path: Path) -> None:
    """Make a file's content durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def take_place(scratch: Path, path: Path, *, durable: bool) -> None:
    """Rename a finished file or folder to `path`; a folder that is there already is deleted first.

    Args:
        scratch: on the same file system as `path`; where `durable`, its content must be synced already.
        path: the final name.
        durable: sync the parent folder too, so that the rename survives a loss of power.
    """
    shutil.rmtree(path, ignore_errors=True)  # a file is replaced, and left alone here
    os.replace(scratch, path)
    if durable:
        fsync_folder(path.parent)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace a file by new content, durably; readers see the old or the new one, never a part."""
    raw = data.encode() if isinstance(data, str) else data
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    scratch.unlink(missing_ok=True)
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        take_place(scratch, path, durable=True)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def replace(path: Path, data: bytes) -> None:
    """Write `data` beside `path` (mode 0600), then rename it there."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        take_place(Path(name), path, durable=False)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def staged_file(path: Path, *, durable: bool) -> Iterator[Path]:
    """A path beside `path` to write to; the file takes the name at the end, and is gone after an error.

    Args:
        path: in a folder that exists.
        durable: a machine that lost its power has the old file or the new one.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield scratch
        if durable:
            fsync_file(scratch)
        take_place(scratch, path, durable=durable)
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def staged_folder(path: Path, *, durable: bool) -> Iterator[Path]:
    """An empty folder (mode 0700) beside `path` to fill; it takes the place of `path` at the end, as `staged_file`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield scratch
        if durable:
            for entry in (*scratch.rglob("*"), scratch):
                (fsync_folder if entry.is_dir() else fsync_file)(entry)
        take_place(scratch, path, durable=durable)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def ask_free(folder: Path, needed_bytes: int, who: str) -> None:
    """Ask for so much room and some slack; `folder` exists.

    Raises:
        OSError: ENOSPC, when the disk has less.
    """
    needed_bytes, free_bytes = needed_bytes + SLACK_BYTES, shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        what = f"{who} must find {needed_bytes / 2**20:,.0f} MiB of free disk, but got {free_bytes / 2**20:,.0f} MiB"
        raise OSError(errno.ENOSPC, what)


def cache_folder() -> Path:
    """Where what is made of data once for every study lies (features, token ids); not there before something is."""
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(given or Path.home() / ".cache") / "nash-search"
    except RuntimeError:  # a user without a home, as containers have them
        return Path(tempfile.gettempdir()) / f"nash-search-cache-{os.getuid()}"


def stamp(name: str | None) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of a file, or of a folder's files: another stamp, and it was written anew."""
    if not name:
        return ()
    try:
        path = Path(name)
        files = [p for p in (*path.glob("*"), *path.glob("*/*")) if p.is_file()] if path.is_dir() else [path]
        return tuple((str(p), (s := p.stat()).st_size, s.st_mtime_ns) for p in sorted(files))
    except (OSError, ValueError):  # a hub's name; what else cannot be read is said where it is read
        return ()


def mark_used(*entries: Path) -> None:
    """Note that these entries of the cache folder are wanted, whoever made them."""
    for entry in entries:
        with suppress(OSError):  # another user's, or a folder that is only read
            os.utime(entry)


def forget_unused(folder: Path) -> None:
    """Remove the cache folder's entries that nobody has used for `KEPT_S`; a process that maps one keeps it."""
    for entry in folder.glob("*-*"):
        with suppress(OSError):
            if time.time() - entry.stat().st_mtime > KEPT_S:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def csv_cell(value: Any) -> Any:
    """A cell no spreadsheet runs as a formula; numbers stay numbers.

    Text that starts with `= + - @` (blanks before them and full-width forms included) or a control character
    gets a leading apostrophe.
    """
    if not isinstance(value, str) or _NUMBER.match(value):
        return value
    return f"'{value}" if _FORMULA.match(value) else value


def sqlite_url(path: Path, **options: str) -> str:
    """The URL that Optuna opens this file by; `options` are SQLite's own, e.g. `mode="ro"`.

    Two readers stand between a path and SQLite: Optuna takes `{…}` for a template, and SQLAlchemy cuts at `?` and,
    from 2.1 on, decodes `%41`. A path with any of these goes as SQLite's own `file:` URI, percent-encoded.
    """
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
