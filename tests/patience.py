"""Time limits of tests that hold on a busy machine too."""

import os

NEVER_S = 600.0
"""For a condition that comes on any machine: who waits for it waits no longer than it takes."""


def stretched(seconds: float) -> float:
    """What may take so many seconds on an idle machine, as this one is loaded now (queued processes per core)."""
    return seconds * max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))
