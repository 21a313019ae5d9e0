"""One driver per study: locks that free themselves when their holder dies.

    folder      flock on a file of the study's folder                    freed by the kernel
    storage     PostgreSQL's advisory lock, held by an idle connection   freed by the server, for other machines

Both name the holder (pid, host, start), so whoever is refused can say who works. Only the locks count, never
the text: a text outlives its writer.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from nash_search.config import digest
from nash_search.errors import Locked


@contextmanager
def only_driver(folder: Path) -> Iterator[None]:
    """Hold the study's lock.

    Raises:
        Locked: when a live process holds it; the message names the holder.
    """
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal(holder(handle), folder.name) from None
        started = datetime.now(UTC).isoformat(timespec="seconds")
        os.ftruncate(handle, 0)
        os.pwrite(
            handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": started}).encode(), 0
        )
        yield
    finally:
        os.close(handle)


@contextmanager
def only_driver_in(storage: str | None, name: str) -> Iterator[None]:
    """Hold the lock of a study of this name in a storage that several machines share (PostgreSQL; else nothing).

    Raises:
        Locked: when a live connection holds it; the message names the holder.
    """
    if storage is None or not storage.startswith("postgresql"):
        yield
        return
    import sqlalchemy
    from sqlalchemy.pool import NullPool

    key = int.from_bytes(bytes.fromhex(digest(["nash-search", name])[:16]), signed=True)
    engine = sqlalchemy.create_engine(storage, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:

            def ask(asked: sqlalchemy.Executable) -> object:
                return connection.execute(asked).scalar()

            sql, started = sqlalchemy.func, datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
            ask(sqlalchemy.select(sql.set_config("application_name", f"{me()} (since {started})", False)))
            if not ask(sqlalchemy.select(sql.pg_try_advisory_lock(key))):
                # PostgreSQL's own catalogues, which SQLAlchemy has no names for
                raise refusal(str(ask(sqlalchemy.text(HOLDER).bindparams(key=key)) or "another process"), name)
            yield
    finally:
        engine.dispose()


HOLDER = """
SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND (classid::bigint << 32) | objid::bigint = :key
"""
"""Name of the connection that holds a 64-bit advisory lock."""


def me() -> str:
    """This process, short enough for a connection's name (63 bytes with the start)."""
    return f"pid {os.getpid()} on {socket.gethostname()[:22]}"


def refusal(holder: str, name: str) -> Locked:
    """What the second driver is told."""
    return Locked(f"study must have one driver, but {holder} runs it ({name})")


def holder(handle: int) -> str:
    """Who wrote the lock file."""
    try:
        found = json.loads(os.pread(handle, 4096, 0))
        return f"pid {found['pid']} on {found['host']} (since {found['started']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
