"""Room on the disk for one trial, asked for before it trains.

A trial keeps its weights and their two moments, beside the copy that is being written, and its export:
seven times the weights at most.
"""

from __future__ import annotations

from pathlib import Path

from nash_search.files import ask_free

COPIES = 7


def check(folder: Path, weights_bytes: int) -> None:
    """Ask for the room that a trial of these weights takes at most; `folder` exists.

    Raises:
        OSError: ENOSPC, when the disk has less.
    """
    ask_free(folder, COPIES * weights_bytes, "a trial")
