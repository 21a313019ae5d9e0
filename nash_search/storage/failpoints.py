"""Named places at which a test may kill this process, so that crash tests are exact instead of lucky.

`NASH_SEARCH_FAILPOINT=tell` kills at the first `hit("tell")`, `tell:3` at the third. SIGKILL, because that is what a
power cut looks like: no handler, no `finally`. Without the variable a hit costs one dictionary look-up. It is part of
the package because the places are.
"""

from __future__ import annotations

import os
import signal

STEPS = ("ask", "artefact", "manifest", "rename", "tell", "backup", "export")
"""The commit order of a trial, and what follows it."""

_hits: dict[str, int] = {}


def hit(name: str) -> None:
    """Die here if the environment says so."""
    wanted = os.environ.get("NASH_SEARCH_FAILPOINT")
    if not wanted:
        return
    place, _, nth = wanted.partition(":")
    if place == name:
        _hits[name] = _hits.get(name, 0) + 1
        if _hits[name] >= int(nth or 1):
            os.kill(os.getpid(), signal.SIGKILL)
