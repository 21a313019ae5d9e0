"""The two studies run (small), judge by their own rules, and keep every sample."""

from __future__ import annotations

import gzip
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from nash_search.config import Workload
from nash_search.records import Latency, Round

STUDIES = Path(__file__).parent.parent / "studies"


def load(name):
    spec = importlib.util.spec_from_file_location(f"studies_{name}", STUDIES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def latency(ratio, shift=0.0, contended=False):
    rounds = [
        Round(
            runs_ms=(10 * ratio * (1 + shift) * wobble,) * 4,
            dense_runs_ms=(10.0 * (1 + shift),) * 4,
            contended=(contended,) * 4,
        )
        for wobble in (0.99, 0.995, 1.0, 1.005, 1.01)
    ]
    workload = Workload(input_tokens=1, output_tokens=1)
    return Latency(rounds=tuple(rounds), workload=workload, fresh=True, fingerprint={"hash": "here"})


def test_the_clock_study_judges_its_promises():
    clock = load("clock")
    good = {
        "half": [latency(0.67, shift=0.1 * i) for i in range(20)],
        "twin": [latency(1.0)] * 20,
        "plus5": [latency(1.05)] * 20,
        "plus10": [latency(1.10)] * 20,
    }
    rows = clock.judged(good, latency(0.67, contended=True), 10, 5)
    assert all(holds for _, _, holds in rows)
    bad = good | {"twin": [latency(1.1)] * 20, "plus10": [latency(1.0)] * 20, "plus5": [latency(1.0)] * 20}
    verdicts = [holds for _, _, holds in clock.judged(bad, latency(0.67), 10, 5)]
    assert verdicts == [True, True, False, False, False, False]


@pytest.mark.slow
def test_the_clock_study_runs(tmp_path):
    keep = tmp_path / "clock.json.gz"
    command = [sys.executable, str(STUDIES / "clock.py"), "--runs", "1", "--rounds", "1", "--pairs", "6"]
    done = subprocess.run(
        [*command, "--batch-size", "4", "--keep", str(keep)], capture_output=True, text=True, timeout=400, check=False
    )
    assert "| promise | seen | holds |" in done.stdout, done.stderr
    assert done.stdout.count("| 2 | ") == 2, "each run is printed when it is done and in the table at the end"
    kept = json.loads(gzip.open(keep, "rt").read())
    assert len(kept["plus10"]) == 2 and len(kept["plus10"][0]["rounds"]) == 1
    planted = Latency.model_validate(kept["plus10"][0]).ratio
    assert planted > 0.8  # six pairs beside whatever else runs: only its order of size is certain
    again = subprocess.run(
        [*command, "--batch-size", "4", "--keep", str(keep)], capture_output=True, text=True, timeout=400, check=False
    )
    assert "has 2 of 2 runs" in again.stdout
    assert json.loads(gzip.open(keep, "rt").read())["plus10"] == kept["plus10"]


@pytest.mark.slow
def test_the_gpu_smoke_rehearses_on_a_cpu(tmp_path):
    keep = tmp_path / "smoke.json"
    command = [sys.executable, str(STUDIES / "gpu_smoke.py"), "--device", "cpu", "--no-compile", "--keep", str(keep)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert "ok  a shorter decoder is faster" in done.stdout, done.stdout + done.stderr
    kept = json.loads(keep.read_text())
    assert len(kept["fresh half"]["rounds"]) == 3 and kept["bfloat16 twin"]["workload"]["dtype"] == "bfloat16"


def test_without_a_gpu_the_smoke_ends_with_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert load("gpu_smoke").main(["--keep", str(tmp_path / "smoke.json")]) == 2
    told = capsys.readouterr()
    assert told.err == "gpu-smoke: device must exist on this machine (0 CUDA devices found), but got cuda\n"
    assert not told.out and not list(tmp_path.iterdir())


def test_a_killed_clock_study_goes_on_after_its_last_whole_run(tmp_path):
    clock, keep = load("clock"), tmp_path / "clock.json.gz"
    workload = Workload(input_tokens=1, output_tokens=1)
    found = {name: [latency(1.0)] * 3 for name in ("half", *clock.PLANTED)}
    clock.save(keep, found)
    nothing = {name: [] for name in found}
    assert clock.kept(keep, 5, 4, workload, "here") == found
    assert clock.kept(keep, 5, 40, workload, "here") == nothing
    assert clock.kept(keep, 5, 4, workload, "another machine") == nothing
    whole = keep.read_bytes()
    for damaged in (b"torn", whole[: len(whole) // 2], b""):
        keep.write_bytes(damaged)
        assert clock.kept(keep, 5, 4, workload, "here") == nothing
