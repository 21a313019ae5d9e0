"""An evaluator of somebody's own is found by the environment, here and in every process of a search."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nash_search.config import SearchConfig, SearchSpace
from nash_search.config_loader import load_config
from nash_search.errors import InvalidInput
from nash_search.trial import evaluator
from tests.patience import NEVER_S

OWN = """
from tests.synthetic_evaluator import SyntheticEvaluator

class Mine(SyntheticEvaluator):
    def facts(self):
        return {"model": "mine", "data": "mine", "protocol": 1}
"""


def test_a_named_evaluator_is_asked_in_place_of_the_real_one(monkeypatch):
    monkeypatch.setenv("NASH_SEARCH_EVALUATOR", "tests.synthetic_evaluator:SyntheticEvaluator")
    config = SearchConfig()
    found = evaluator.open_evaluator(config)
    assert found.facts()["model"] == "rehearsal"
    assert evaluator.open_evaluator(config) is found, "what it has loaded stays loaded"
    longer = config.recipe.model_copy(update={"learning_rate": 1e-5, "labels": "teacher", "tune_steps": 9})
    assert evaluator.open_evaluator(config.model_copy(update={"recipe": longer})) is found, "for other jobs of a study"
    other = config.recipe.model_copy(update={"widths": "uniform"})
    assert evaluator.open_evaluator(config.model_copy(update={"recipe": other})) is not found


def test_another_space_or_data_written_anew_are_another_evaluator(monkeypatch, tmp_path):
    monkeypatch.setenv("NASH_SEARCH_EVALUATOR", "tests.synthetic_evaluator:SyntheticEvaluator")
    data = tmp_path / "data.jsonl"
    data.write_text("one\n")
    config = load_config(None, {"task.data": str(data), "task.name": "mine"})
    found = evaluator.open_evaluator(config)
    assert evaluator.open_evaluator(config) is found
    depth = config.model_copy(update={"search_space": SearchSpace(encoder_sparsity_pct=(0, 0, 10))})
    assert evaluator.open_evaluator(depth) is not found, "an encoder that is not searched is frozen"
    found = evaluator.open_evaluator(config)
    data.write_text("one, two\n")
    assert evaluator.open_evaluator(config) is not found


@pytest.mark.parametrize("named", ["nowhere:Mine", "json:Mine", "json", ":", "no module:x"])
def test_an_evaluator_that_cannot_be_imported_is_refused(named, monkeypatch):
    monkeypatch.setenv("NASH_SEARCH_EVALUATOR", named)
    with pytest.raises(InvalidInput, match="must be an importable module:Class, but got .*NASH_SEARCH_EVALUATOR"):
        evaluator.open_evaluator(SearchConfig())


@pytest.mark.slow
def test_a_command_finds_an_evaluator_on_the_python_path(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-m", "nash_search", "--config", "smoke", "--budget-ms", "50%", "--serial", "--trials", "1",
         "--results", "results", "--study", "s", "--json", "--quiet"],
        cwd=tmp_path, env={**os.environ, "NASH_SEARCH_EVALUATOR": "mine:Mine", "PYTHONPATH": path},
        capture_output=True, text=True, timeout=NEVER_S,
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["trials"]["failed"] == 0
    config = json.loads((tmp_path / "results" / "s" / "config.json").read_text())
    assert config["study"] == "s"
