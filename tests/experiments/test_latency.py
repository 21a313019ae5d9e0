"""The experiments on latency run (small), judge by their own rules, and keep every sample."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import clock, scaling
from experiments.shared import drawing
from nash_search.config import Workload
from nash_search.latency_record import Latency, Round
from tests.patience import NEVER_S

ROOT = Path(__file__).parents[2]


def study(name, *arguments):
    """What `make study NAME=name ARGS=arguments` runs."""
    command = [sys.executable, "-m", "experiments", name, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=NEVER_S, check=False)


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
    done = study("clock", *"--runs 1 --rounds 1 --pairs 6 --batch-size 4 --keep".split(), keep)
    assert "| promise | seen | holds |" in done.stdout, done.stderr
    assert done.stdout.count("| 2 | ") == 2, "each run is printed when it is done and in the table at the end"
    kept = json.loads(gzip.open(keep, "rt").read())
    assert len(kept["plus10"]) == 2 and len(kept["plus10"][0]["rounds"]) == 1
    planted = Latency.model_validate(kept["plus10"][0]).ratio
    assert planted > 0.8  # six pairs beside whatever else runs: only its order of size is certain


def test_a_killed_clock_study_goes_on_after_its_last_whole_run(tmp_path):
    keep = tmp_path / "clock.json.gz"
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


def test_a_picture_shows_the_interval_it_was_given(tmp_path):
    def drawn(high, series=("one", "two")):
        path = tmp_path / "picture.png"
        drawing.forest(path, "title", "unit", {"row": [(1.0, 0.9, 1.1), (1.5, 1.2, high)]}, series, 1)
        return path.read_bytes()

    assert drawn(1.8) == drawn(1.8)
    assert len({drawn(1.8), drawn(1.7), drawn(1.8, ("one", "another"))}) == 3


@pytest.mark.slow
def test_the_study_of_shapes_runs_and_goes_on(tmp_path):
    keep = tmp_path / "shapes.jsonl.gz"
    small = "--rounds 1 --pairs 3 --batches 1 --engines eager --lengths 4:4 8:24 --out".split()
    done = study("depth-and-width", *small, keep)
    assert done.stdout.count("| eager | 1 | ") == 2, done.stderr
    kept = [json.loads(line) for line in gzip.open(keep, "rt")]
    assert all("skeleton" in one["found"] for one in kept)
    longest = {name: Latency.model_validate(value) for name, value in kept[-1]["found"].items()}
    assert longest["sixth depth"].ratio < longest["half depth"].ratio < 1
    assert (tmp_path / "shapes.png").read_bytes().startswith(b"\x89PNG")
    again = study("depth-and-width", *small, keep)
    assert again.stdout == done.stdout


@pytest.mark.slow
def test_the_operations_of_a_training_step_are_those_of_its_matrix_products():
    shape = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4, "num_layers": 4, "vocab_size": 100}
    count, into, out = 2, 16, 8
    attention, ffn = 4 * 32 * 32, 2 * 32 * 64

    def forward(decoder_layers):
        encoder = 4 * into * (attention + ffn + 2 * into * 32)
        cross = (2 * out + 2 * into) * 32 * 32  # keys and values are the encoder's
        decoder = decoder_layers * (out * (attention + ffn) + cross + out * 2 * (out + into) * 32)
        return 2 * count * (encoder + decoder + out * 32 * 100)

    assert scaling.operations(shape, count, into, out) == pytest.approx(forward(4) + 3 * forward(2), rel=0.05)
    alone, many = (scaling.projected(scaling.LARGE["T5-base"], 0.5, 100, gpus) for gpus in (1, 32))
    assert 10 < alone["eta_s"] / many["eta_s"] < 32, "certification and loading are not shared out"
