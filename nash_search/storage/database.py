"""Where the study is stored, checked before anything is spent: the URL, its driver, its file.

A storage URL may hold a password: it comes from the environment, and no message repeats more of it
than its scheme and, for SQLite, its path. What lies in it is `study`'s.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from nash_search.errors import InvalidInput, StorageDamaged, message_of, shown, shown_path
from nash_search.files import sqlite_url

WHERE = "NASH_SEARCH_STORAGE"
DIALECTS = ("sqlite", "postgresql", "mysql", "mariadb")
FIX = "give sqlite:///study.db or postgresql+psycopg://user:password@host/name"
_SQLITE = b"SQLite format 3\0"


def check(url: str) -> None:
    """Refuse a URL that cannot hold a study.

    Raises:
        InvalidInput: when it is no URL, its driver is missing, or its file cannot be there.
        StorageDamaged: when its file is there and is no healthy study database.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise InvalidInput("storage must be a URL, but got one that cannot be read", where=WHERE, fix=FIX) from None
    dialect = parsed.get_backend_name()
    if dialect not in DIALECTS:
        what = f"storage must be one of {', '.join(DIALECTS)}, but got {shown(dialect)}"
        raise InvalidInput(what, where=WHERE, fix=FIX)
    try:
        parsed.get_dialect().import_dbapi()
    except Exception:
        what = f"driver of {parsed.drivername} must be installed, but got none"
        fix = "install it, e.g. pip install 'nash-search[postgresql]', and name it: postgresql+psycopg://"
        raise InvalidInput(what, where=WHERE, fix=fix) from None
    if dialect == "sqlite":
        _check_file(parsed.database)


def _check_file(database: str | None) -> None:
    if not database or database == ":memory:" or database.startswith("file:"):
        raise InvalidInput("storage must be a file that stays, but got SQLite in memory", where=WHERE, fix=FIX)
    path = Path(database)
    named = f"{WHERE}: {shown_path(path)}"
    if path.is_dir():
        raise InvalidInput("storage must be a file, but got a folder", where=named)
    if not path.parent.is_dir():
        raise InvalidInput("storage's folder must exist, but got none", where=named, fix="make it first")
    try:
        if not path.exists():
            if not os.access(path.parent, os.W_OK):
                raise InvalidInput("storage's folder must be writable, but got a read-only one", where=named)
            return
        with path.open("rb") as file:
            begin = file.read(len(_SQLITE))
    except OSError as error:
        raise InvalidInput(f"storage must be readable, but got {error.strerror}", where=named) from None
    if begin and begin != _SQLITE:
        raise StorageDamaged("storage must be an SQLite database, but got another file", where=named)
    if not os.access(path, os.W_OK) or path.stat().st_mode & 0o222 == 0:
        raise InvalidInput("storage must be writable, but got a read-only file", where=named)
    if begin:
        _check_whole(path, named)


def look_into(path: Path, mode: str) -> tuple[str, set[str]]:
    """What SQLite's own check says of a database (`ok`, or the damage), and the names of its tables.

    Args:
        path: the file.
        mode: `ro` leaves the file as it is; `rw` rolls back a journal that a kill left behind.

    Raises:
        sqlite3.DatabaseError: when it is no database, or too damaged to be asked.
    """
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=60)
    try:
        verdict = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        return verdict, {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    finally:
        connection.close()


def _check_whole(path: Path, named: str) -> None:
    """SQLite's own check; an Optuna storage of a newer schema is refused by Optuna's words."""
    try:
        verdict, tables = look_into(path, "ro")
    except sqlite3.DatabaseError as error:
        raise StorageDamaged(f"storage must be a whole database, but got: {error}", where=named) from None
    if verdict != "ok":
        raise StorageDamaged(f"storage must be a whole database, but got: {shown(verdict)}", where=named)
    if tables and "studies" not in tables:
        raise StorageDamaged("storage must hold Optuna studies, but got something else", where=named)
    if tables:
        import optuna

        url = sqlite_url(path.resolve(), mode="ro")  # a look must not change the file
        try:
            optuna.storages.RDBStorage(url, skip_table_creation=True).engine.dispose()
        except RuntimeError as error:
            line = message_of(error, 120)
            raise StorageDamaged(f"storage must fit the installed Optuna, but got: {line}", where=named) from None
