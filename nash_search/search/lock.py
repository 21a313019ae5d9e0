"""One driver per study: a file lock that the kernel frees when its holder dies.

The lock file names the holder (pid, host, start), so whoever is refused can say who works. Only `flock`
counts, never the text: a text outlives its writer. This module refuses to know what the lock protects.
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
            raise Locked(f"study must have one driver, but {holder(handle)} runs it ({folder.name})") from None
        started = datetime.now(UTC).isoformat(timespec="seconds")
        os.ftruncate(handle, 0)
        os.pwrite(
            handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": started}).encode(), 0
        )
        yield
    finally:
        os.close(handle)


def holder(handle: int) -> str:
    """Who wrote the lock file."""
    try:
        found = json.loads(os.pread(handle, 4096, 0))
        return f"pid {found['pid']} on {found['host']} (since {found['started']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
