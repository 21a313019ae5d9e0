"""One device, many trainers, one clock: trainers share a device, a timing owns it.

    training step:  gate shared -> device shared -> gate free      (a few microseconds)
    timing:         gate exclusive -> device exclusive             (new steps wait at the gate)

The gate keeps a timing from starving behind trainers that always overlap. Both are `flock`s on
files outside every study, one pair per CPU or GPU UUID, so that all studies of a user on a machine
agree, and the kernel frees them when a holder dies, also by kill -9.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal

from nash_search.errors import InvalidInput, Locked

Mode = Literal["free", "shared", "exclusive"]
POLL_S = 0.002

_seats = threading.local()
_open_files: set[int] = set()


def lock_folder() -> Path:
    """Where this user's device locks live; made private, refused when somebody else made it.

    `NASH_SEARCH_LOCKS` overrides it, for machines whose temporary folder is not shared.
    """
    asked = os.environ.get("NASH_SEARCH_LOCKS")
    folder = Path(asked) if asked else Path(tempfile.gettempdir()) / f"nash-search-locks-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=bool(asked), exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.getuid():
        raise InvalidInput(f"lock folder must be a folder of your own, but got {folder}")
    return folder


class DeviceGuard:
    """A reusable, re-entrant context manager over one device's pair of locks.

    Nesting is per thread: a step inside a timing is covered by it; a timing inside a step lets the
    step's share go first, so that two such threads cannot wait for each other.

    Args:
        lock_id: name of the pair.
        mode: `shared` among trainers, `exclusive` for a timing.
        timeout_s: how long a timing waits for the others (None: as long as it takes).
        drain: called before the lock is let go, so that nothing launched under it runs on without it.
    """

    def __init__(
        self,
        lock_id: str,
        mode: Literal["shared", "exclusive"],
        timeout_s: float | None = None,
        drain: Callable[[], None] | None = None,
    ) -> None:
        self.lock_id, self._drain = lock_id, drain
        self.mode: Literal["shared", "exclusive"] = mode
        self.timeout_s = timeout_s

    def __enter__(self) -> None:
        _seat(self.lock_id).enter(self.mode, self.timeout_s)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seat = _seat(self.lock_id)
        try:
            if self._drain is not None and seat.outermost:
                self._drain()
        finally:
            seat.leave()


def held(lock_id: str) -> Mode:
    """How this thread holds the device right now."""
    return _seat(lock_id).mode


def announce(lock_id: str) -> None:
    """Say that this process works on the device under these locks, so that it is not foreign to it."""
    folder = lock_folder() / f"{_safe(lock_id)}.pids"
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / str(os.getpid())).touch()


def cooperating_pids(lock_id: str) -> set[int]:
    """Live processes that announced themselves, this one included."""
    found = {os.getpid()}
    folder = lock_folder() / f"{_safe(lock_id)}.pids"
    for path in folder.iterdir() if folder.is_dir() else ():
        if Path(f"/proc/{path.name}").exists():
            found.add(int(path.name))
        else:
            path.unlink(missing_ok=True)
    return found


class _Seat:
    """One thread's own pair of open files for one device (a lock belongs to the open file)."""

    def __init__(self, lock_id: str) -> None:
        self.lock_id = lock_id
        self.pid = os.getpid()
        folder = lock_folder()
        self.gate = _open(folder / f"{_safe(lock_id)}.gate")
        self.device = _open(folder / f"{_safe(lock_id)}.device")
        self.mode: Mode = "free"
        self.outer: list[Mode] = []

    def enter(self, mode: Literal["shared", "exclusive"], timeout_s: float | None) -> None:
        outer = self.mode
        if outer == "free" or (outer == "shared" and mode == "exclusive"):
            try:
                self._take(mode, timeout_s)
            except BaseException:
                if outer == "shared":
                    self._take("shared", None)
                raise
        self.outer.append(outer)

    @property
    def outermost(self) -> bool:
        """Does leaving let the device go?"""
        return len(self.outer) <= 1

    def leave(self) -> None:
        outer = self.outer.pop() if self.outer else self.mode  # empty: entered before a fork
        if outer == self.mode:
            return
        if outer == "shared":
            self._take("shared", None)
        else:
            self._free()

    def _take(self, mode: Literal["shared", "exclusive"], timeout_s: float | None) -> None:
        """From nothing, or from the other mode (let go first), to `mode`."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._free()
        kind = fcntl.LOCK_SH if mode == "shared" else fcntl.LOCK_EX
        try:
            self._flock(self.gate, kind, deadline)
            self._flock(self.device, kind, deadline)
            if mode == "shared":
                fcntl.flock(self.gate, fcntl.LOCK_UN)
        except BaseException:
            self._free()
            raise
        self.mode = mode

    def _flock(self, file: int, kind: int, deadline: float | None) -> None:
        if deadline is None:
            fcntl.flock(file, kind)
            return
        while True:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Locked(
                        f"device {self.lock_id} must be free for a timing, but other processes still use it"
                    ) from None
                time.sleep(POLL_S)

    def _free(self) -> None:
        self.mode = "free"
        fcntl.flock(self.device, fcntl.LOCK_UN)
        fcntl.flock(self.gate, fcntl.LOCK_UN)

    def __del__(self) -> None:
        for file in (self.gate, self.device):
            if self.pid == os.getpid() and file in _open_files:
                _open_files.discard(file)
                os.close(file)


def _seat(lock_id: str) -> _Seat:
    seats: dict[str, _Seat] = _seats.__dict__.setdefault("by_id", {})
    seat = seats.get(lock_id)
    if seat is None:
        seat = seats[lock_id] = _Seat(lock_id)
    return seat


def _open(path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    _open_files.add(file)
    return file


def _safe(lock_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "_", lock_id)


def _forget_after_fork() -> None:
    """A forked child shares its parent's open files and would keep a dead parent's lock alive."""
    global _seats
    for file in _open_files:
        os.close(file)
    _open_files.clear()
    _seats = threading.local()


os.register_at_fork(after_in_child=_forget_after_fork)
