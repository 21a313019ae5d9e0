"""What does a whole search give on translation (Multi30k en-de), eager, at 70 and 50 % of the latency?

Needs `--data FOLDER` with Multi30k's JSONL files (ARGS="--data FOLDER"). Leaves `results/multi30k` (committed is what
the first run left, in `results/multi30k-en-de`) and goes on after a kill.
"""

from __future__ import annotations

import sys

from nash_search.cli import main as nash_search

BILL = "1 h 50 min"
SEARCH = (
    "--config multi30k-en-de --source-column source --target-column target "
    "--model results/multi30k-en-de/teacher --budget-ms 70% --budget-ms 50% "
    "--study multi30k"
)


def main() -> int:
    """Exit code of the search."""
    return nash_search([*SEARCH.split(), *sys.argv[1:]])
