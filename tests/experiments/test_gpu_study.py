"""The GPU study, rehearsed where there is no GPU: every part runs, and a part that is done is not run again."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from experiments import gpu_study
from experiments.gpu import __main__ as gpu_parts
from experiments.gpu import wheels

ROOT = Path(__file__).parents[2]


def study(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments", "gpu-study", "--device", "cpu", "--tiny", "--out", str(out), *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_part_of_the_gpu_study_runs_on_a_cpu(tmp_path):
    done = study(tmp_path, "--seconds", "1400")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ERROR" not in done.stdout and "ok a shorter decoder is faster" in done.stdout
    parts = gpu_study.RUNS["A"][1]
    assert all(gpu_study.done(tmp_path, part) for part in parts) and len(list(tmp_path.iterdir())) <= 8
    eager = [json.loads(line) for line in (tmp_path / "eager.jsonl").read_text().splitlines()]
    assert {row["what"].split()[0] for row in eager} >= {"g2p", "t5-base", "bart-large"}
    with tarfile.open(tmp_path / "search.tgz") as tar:
        assert "gpu/certification.json" in tar.getnames()
    more = study(tmp_path / "b", "--run", "B", "--parts", "batches")
    assert more.returncode == 0 and "ERROR" not in more.stdout and "TensorRT-LLM's 280 ms" in more.stdout
    again = study(tmp_path)
    assert "== parts: ;" in again.stdout and "ceilings" not in again.stderr, "what is done stays done"


def test_a_part_that_did_not_end_whole_is_run_again(tmp_path):
    (tmp_path / "machine.jsonl").write_text('{"what": "imports"}\n')
    assert not gpu_study.done(tmp_path, "machine") and not gpu_study.done(tmp_path, "search")
    (tmp_path / "machine.jsonl").write_text('{"what": "imports"}\n{"what": "machine", "whole": true}\n')
    assert gpu_study.done(tmp_path, "machine")


def test_wheels_are_asked_for_in_the_versions_of_the_constraints():
    constraints = "Mako==1.3.10\npydantic-core==2.41.5\npydantic==2.12.5\nrouge-score==0.1.2\n"
    asked = [wheels.pinned(name, constraints) for name in ("Mako", "pydantic_core", "pydantic", "rouge_score", "nltk")]
    assert asked == ["Mako==1.3.10", "pydantic-core==2.41.5", "pydantic==2.12.5", "rouge-score==0.1.2", "nltk"]


@pytest.mark.parametrize("run", ["B", "C"])
def test_every_part_of_a_run_has_a_limit_and_a_process(run):
    seconds, parts = gpu_study.RUNS[run]
    assert set(parts) <= set(gpu_parts.PARTS) and all(gpu_study.LIMIT_S[part] for part in parts) and seconds <= 480
