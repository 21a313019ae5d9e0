"""`measure`, `remeasure` and `probe` through the command line, on real folders in processes of their own."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from nash_search.cli import main
from nash_search.config_loader import load_config
from nash_search.search import search
from nash_search.tasks.g2p import teacher_folder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_python")]

KEYS = {
    "latency_ms", "lower_ms", "upper_ms", "speedup", "verdict", "status", "workload", "fingerprint", "dense", "runs_ms"
}  # fmt: skip
SHORT = ["--rounds", "2", "--pairs", "4"]


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and the JSON document of a command."""
    code = main([*arguments, "--json", "--quiet"])
    (line,) = capsys.readouterr().out.strip().splitlines()
    return code, json.loads(line)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    asked = {"budgets": ["100%"], "serial": True, "trials": 1, "finish_steps": 0, "engines": False, "study": "s"}
    config = load_config("smoke", asked)
    return search(config, results=results).folder


def test_any_folder_is_timed_against_another(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    copy = tmp_path / "twin"
    shutil.copytree(teacher_folder(), copy)
    shape = ["--input-tokens", "5", "--output-tokens", "4", "--batch-size", "2"]
    _, found = document(capsys, "measure", str(copy), "--against", str(teacher_folder()), *shape, *SHORT)
    assert set(found) == KEYS
    assert len(found["runs_ms"]) == 8 and found["lower_ms"] <= found["latency_ms"] <= found["upper_ms"]
    assert (found["workload"]["input_tokens"], found["workload"]["output_tokens"]) == (5, 4)
    code, alone = document(capsys, "measure", str(copy), *shape, *SHORT, "--budget-ms", "100000")
    assert alone["speedup"] is None and alone["dense"] == {"latency_ms": None}
    assert (code, alone["verdict"]) in {(0, "met"), (3, "ambiguous")}, "a contended machine cannot promise milliseconds"
    two = ["--budget-ms", "0.001", "--budget-ms", "100000"]
    code, both = document(capsys, "measure", str(copy), *shape, *SHORT, *two)
    assert code == (0 if "met" in both["verdicts"].values() else 3) and "missed" in both["verdicts"].values()


def test_results_that_cannot_be_written_are_refused_before_anything_is_timed(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").write_text("")
    given = ["--config", "smoke", "--budget-ms", "50%", "--results", str(tmp_path / "file")]
    assert main(["probe", *given]) == 2
    assert "results must be a folder that can be written" in capsys.readouterr().err


def test_an_export_knows_its_workload_and_its_teacher(capsys: pytest.CaptureFixture[str], study: Path) -> None:
    export = next((study / "checkpoints").iterdir())
    _, found = document(capsys, "measure", str(export), *SHORT)
    recorded = json.loads((export / "measurement.json").read_text())["workload"]
    assert found["workload"] == recorded and found["dense"]["latency_ms"] > 0
    _, wider = document(capsys, "measure", str(export), *SHORT, "--batch-size", "3")
    assert wider["workload"] == recorded | {"batch_size": 3}


def test_a_front_is_timed_again(capsys: pytest.CaptureFixture[str], study: Path) -> None:
    _, found = document(capsys, "remeasure", "s", "--results", str(study.parent))
    certified = json.loads((study / "certification.json").read_text())["points"]
    assert len(found["front"]) == len(certified) and found["same_fingerprint"] is True
    assert list(study.glob("remeasured-*.png"))


def test_a_probe_names_the_floor_and_is_known_to_the_next_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = ["probe", "--config", "smoke", "--budget-ms", "0.001", "--results", str(tmp_path)]
    assert main([*asked, "--json", "--quiet"]) == 3
    told = capsys.readouterr()
    found = json.loads(told.out)
    floor = r"nash-search: no architecture meets 0.001 ms \(the floor is [0-9.]+ ms\): try --budget-ms [0-9.]+\n"
    assert re.fullmatch(floor, told.err)
    assert found["remembered"] == 0 and found["floor_ms"] < found["dense"]["latency_ms"]
    assert found["dense"]["lower_ms"] <= found["dense"]["latency_ms"] <= found["dense"]["upper_ms"]
    assert len(list((tmp_path / ".latencies").glob("*.json"))) == len(found["shapes"])
    assert main([*asked, "--json", "--budget-ms", "100%"]) == 0, "one of two budgets is feasible"
    told = capsys.readouterr()
    again = json.loads(told.out)
    if again["remembered"]:  # else the dense model has drifted: the machine is busy, and that is said
        assert again["remembered"] == len(again["shapes"])
        assert [row["share"] for row in again["shapes"]] == [row["share"] for row in found["shapes"]]
    else:
        assert "has drifted" in told.err
    assert "decoder blocks" in told.err and "encoder whole" in told.err
