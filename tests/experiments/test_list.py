"""Every experiment is listed with its question, bill and verdict, and runs by its name."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from experiments.__main__ import listed
from tests.patience import NEVER_S

ROOT = Path(__file__).parents[2]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=NEVER_S, check=False)


def test_the_readme_has_one_row_per_experiment_with_its_question_bill_verdict_and_place() -> None:
    rows = [line.split(" | ") for line in (ROOT / "experiments/README.md").read_text().splitlines() if "| `" in line]
    assert {row[0].strip("| `"): (row[1], row[2]) for row in rows} == listed()
    for name, *_, verdict, where in rows:
        assert verdict, f"{name} has no verdict"
        for folder in re.findall(r"\((.*?)\)", where):
            assert (ROOT / "experiments" / folder).is_dir(), f"{name}: no {folder}"


def test_every_committed_result_belongs_to_an_experiment_to_make_search_or_to_the_worked_example() -> None:
    tracked = subprocess.run(["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True, check=True)
    folders = {Path(line).parts[1] for line in tracked.stdout.split("\n") if line.count("/") > 1}
    named = set(re.findall(r"\(\.\./results/([a-z0-9-]+)\)", (ROOT / "experiments/README.md").read_text()))
    assert folders == named | {"g2p", "percentiles-multi30k"}


@pytest.mark.parametrize("name", listed())
def test_every_experiment_has_a_main(name: str) -> None:
    assert callable(import_module(f"experiments.{name.replace('-', '_')}").main)


def test_without_a_name_they_are_listed_and_a_wrong_name_is_said() -> None:
    all_of_them, wrong = run(), run("speed")
    assert all_of_them.returncode == 0 and all(name in all_of_them.stdout for name in listed())
    assert wrong.returncode == 2 and "NAME must be one of those below, but got speed" in wrong.stderr
    assert run("vocabulary", "--help").stdout.startswith("usage:")


def test_no_experiment_goes_on_with_a_committed_study() -> None:
    """Its database and weights are not in a clone, so a search refuses to."""
    sources = "".join(path.read_text() for path in (ROOT / "experiments").glob("*.py"))
    named = re.findall(r'--study(?: |", ")([a-z0-9-]+)|^STUDY\b.* = Path\("results/([a-z0-9-]+)"', sources, re.M)
    studies = {name for pair in named for name in pair if name}
    assert {"headline-again", "whisper-prompts-again"} <= studies
    tracked = subprocess.run(
        ["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert not {name for name in studies if f"results/{name}/config.json" in tracked.split()}
