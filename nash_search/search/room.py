"""Is there room on the disk? Asked before each trial and before certification, so that none is lost half-way.

A trial keeps its weights and their two moments, beside the copy that is being written, and its export:
seven times the weights at most. This module refuses to know what is trained.
"""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

COPIES = 7
SLACK_BYTES = 64 << 20
"""Records, logs and the study's database and backups."""


def check(folder: Path, weights_bytes: int) -> None:
    """Ask for the room that a trial of these weights takes at most; `folder` exists.

    Raises:
        OSError: ENOSPC, when the disk has less.
    """
    ask(folder, COPIES * weights_bytes, "a trial")


def ask(folder: Path, needed_bytes: int, who: str) -> None:
    """Ask for so much room and some slack; `folder` exists.

    Raises:
        OSError: ENOSPC, when the disk has less.
    """
    needed_bytes, free_bytes = needed_bytes + SLACK_BYTES, shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        what = f"{who} must find {needed_bytes / 2**20:,.0f} MiB of free disk, but got {free_bytes / 2**20:,.0f} MiB"
        raise OSError(errno.ENOSPC, what)
