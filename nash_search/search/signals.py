"""SIGINT and SIGTERM: the first ends the search cleanly, the second leaves at once.

Ray Tune ignores SIGTERM and answers SIGINT by its own lights, so the handlers are ours. Where work can be
cut at any instruction (`interruptible`: training, waiting, timing) the first signal raises there; elsewhere,
in the middle of a commit say, it is noted and raised at the next `check`. A second signal ends the process;
the kernel frees the lock, and the next start puts right what is left.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HANDLED = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """The user, or the system, asked us to end; `exit_code` is 130 or 143."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class Interruption:
    """The handlers, for the length of a `with`; in other threads than the main one, nothing."""

    def __init__(self) -> None:
        self._noted: int | None = None
        self._open = False
        self._raised = False

    @contextmanager
    def handled(self) -> Iterator[Interruption]:
        """Install the handlers, and put the old ones back."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {n: signal.getsignal(n) for n in HANDLED}
        self.install()
        try:
            yield self
        except KeyboardInterrupt as error:
            if self._noted is not None and not isinstance(error, Interrupted):  # Ray makes a plain one of ours
                raise Interrupted(self._noted) from None
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def install(self) -> None:
        """Take the signals (again: a library may have taken them for itself)."""
        if threading.current_thread() is threading.main_thread():
            for number in HANDLED:
                signal.signal(number, self._on_signal)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """In here a first signal raises at once."""
        self.check()
        before, self._open = self._open, True
        try:
            yield
        finally:
            self._open = before

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """In here, inside an interruptible stretch, a first signal waits until the end."""
        before, self._open = self._open, False
        try:
            yield
        finally:
            self._open = before
        if before:
            self.check()

    def check(self) -> None:
        """Raise if a signal was noted.

        Raises:
            Interrupted: once per signal.
        """
        if self._noted is not None and not self._raised:
            self._raised = True
            raise Interrupted(self._noted)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._noted is not None:
            os._exit(128 + number)
        self._noted = number
        if self._open:
            self._raised = True
            raise Interrupted(number)
