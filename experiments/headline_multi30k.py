"""How fast is a Multi30k model that keeps 99 or 95 % of the BLEU, served by CTranslate2?

Needs `--data FOLDER` with Multi30k's JSONL files (ARGS="--data FOLDER"). Leaves `results/headline-multi30k-again` and
goes on after a kill.
"""

from __future__ import annotations

import sys

from nash_search.cli import main as nash_search

BILL = "70 minutes"
SEARCH = (
    "--config results/multi30k-en-de/headline.yaml --source-column source "
    "--target-column target --model results/multi30k-en-de/teacher "
    "--budget-ms 60% --budget-ms 55% --budget-ms 40% --study headline-multi30k-again"
)


def main() -> int:
    """Exit code of the search."""
    return nash_search([*SEARCH.split(), *sys.argv[1:]])
