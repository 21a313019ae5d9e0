"""How fast is a g2p model that keeps 99 or 95 % of the quality, served by CTranslate2?

One search on the embedded task with three times the training; certified. It leaves `results/headline-again` (committed
is what the first run left, in `results/headline`) and goes on after a kill.
"""

from __future__ import annotations

import sys

from nash_search.cli import main as nash_search

BILL = "25 minutes"
SEARCH = "--runtime ctranslate2 --profile thorough --trials 8 --budget-ms 55% --budget-ms 40% --study headline-again"


def main() -> int:
    """Exit code of the search."""
    return nash_search([*SEARCH.split(), *sys.argv[1:]])
