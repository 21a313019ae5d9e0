"""Looks, limits and joins on scripted rounds; then real folders in real processes."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from nash_search import device, latency
from nash_search.config import LatencyBudget, Workload
from nash_search.device import lock
from nash_search.errors import InvalidInput
from nash_search.intervals import DEFAULT_OCCASION
from nash_search.latency import fresh, fresh_process, measurement, written_tokens
from nash_search.latency_record import Latency, Round
from tests import test_intervals as simulated
from tests.patience import NEVER_S

WORKLOAD = Workload(input_tokens=5, output_tokens=4, batch_size=2)
HALF = LatencyBudget.parse("50%")


@pytest.fixture
def scripted(monkeypatch):
    """run_job replaced: each name has a true ratio to dense (10 ms) and 2 % noise between rounds."""
    jobs = []

    def make(ratios, seconds=0.0, contended=False, noise=0.02):
        rng = np.random.default_rng(1)
        clock = [0.0]

        def run_job(job, limit_s):
            jobs.append(job)
            clock[0] += min(seconds, limit_s)
            if seconds > limit_s:
                return None
            result = {}
            for name in job["folders"]:
                shift = float(np.exp(noise * rng.standard_normal()))
                runs = Round(
                    runs_ms=(10 * ratios[name] * shift,) * job["pairs"],
                    dense_runs_ms=(10.0,) * job["pairs"],
                    contended=(contended,) * job["pairs"],
                )
                made = Latency(
                    rounds=(runs,),
                    workload=WORKLOAD,
                    fingerprint={"hash": "x"},
                    details={"n": 1} if job["details"] else {},
                )
                result[name] = made.model_dump(mode="json")
            return result

        monkeypatch.setattr(fresh, "run_job", run_job)
        monkeypatch.setattr(fresh.time, "monotonic", lambda: clock[0])
        return jobs, clock

    return make


def measure(ratios, **settings):
    return latency.measure_fresh({n: f"/{n}" for n in ratios}, "/dense", WORKLOAD, **settings)


def test_every_round_draws_other_requests_and_so_does_the_next_asking(scripted):
    jobs, _ = scripted({"a": 0.3})
    found = measure({"a": 0.3}, rounds=3, pairs=7)
    measure({"a": 0.3}, rounds=2, pairs=7, before=found)
    assert [job["turn"] for job in jobs] == [0, 1, 2, 3, 4]


def test_each_round_is_one_process_that_times_the_whole_front_with_dense(scripted):
    ratios = {"a": 0.3, "b": 0.4}
    jobs, _ = scripted(ratios)
    told = []
    found = measure(ratios, rounds=5, pairs=7, on_round=lambda done, planned: told.append((done, planned)))
    assert len(jobs) == 5 and told[-1] == (5, 5)
    assert all(set(job["folders"]) == {"a", "b"} and job["dense"] == "/dense" for job in jobs)
    assert found["a"].fresh and len(found["a"].rounds) == 5 and found["a"].details == {"n": 1}
    assert found["a"].certificate(HALF) == "met" and found["a"].interval_scale == 1.0


def test_only_the_ambiguous_get_more_rounds_and_all_bounds_are_widened(scripted):
    ratios = {"clear": 0.3, "close": 0.499}
    jobs, _ = scripted(ratios)
    found = measure(ratios, budgets=dict.fromkeys(ratios, [HALF]))
    assert len(jobs) == 10 and [set(j["folders"]) for j in jobs[5:]] == [{"close"}] * 5
    assert len(found["clear"].rounds) == 5 and len(found["close"].rounds) == 10
    assert found["clear"].interval_scale == found["close"].interval_scale == 1.15
    assert found["clear"].certificate(HALF) == "met" and found["close"].certificate(HALF) == "ambiguous"


def test_the_stopping_rule_whose_coverage_is_simulated_is_this_one(monkeypatch):
    """`tests/test_intervals.py` simulates thousands of runs of a function; here it meets the shipped rule."""
    rng = np.random.default_rng(5)
    looks = []
    for _ in range(60):
        medians = 10 * np.exp(0.02 * rng.standard_normal(simulated.MORE_ROUNDS))
        budget = LatencyBudget.parse(round(10 * float(np.exp(0.15 * rng.standard_normal())), 3))
        left = iter(medians)

        def run_job(job, limit_s, left=left):
            one = Round(runs_ms=(next(left),), dense_runs_ms=(20.0,))
            made = Latency(rounds=(one,), workload=WORKLOAD, fingerprint={"hash": "x"})
            return {"a": made.model_dump(mode="json")}

        monkeypatch.setattr(fresh, "run_job", run_job)
        found = measure({"a": 1.0}, budgets={"a": [budget]})["a"]
        assert found.bounds_ms == pytest.approx(
            simulated.certified_bounds(medians[:, None], budget.ms, DEFAULT_OCCASION)
        )
        looks.append(len(found.rounds))
    assert set(looks) == {simulated.ROUNDS, simulated.MORE_ROUNDS}, "both looks occur"


def test_missed_is_a_verdict_too(scripted):
    scripted({"a": 0.8})
    assert measure({"a": 0.8}, budgets={"a": [HALF]})["a"].certificate(HALF) == "missed"


@pytest.mark.parametrize(("seconds", "rounds"), [(30.0, 3), (200.0, 0)])
def test_it_ends_within_its_limit_and_says_so(scripted, seconds, rounds):
    _, clock = scripted({"a": 0.3}, seconds=seconds)
    found = measure({"a": 0.3}, limit_s=100.0)["a"]
    assert len(found.rounds) == rounds and clock[0] <= 120
    assert found.status == ("cut_short" if rounds else "no_samples")
    assert found.certificate(HALF) == ("met" if rounds else "ambiguous")


def test_contention_leaves_the_ratio_and_takes_the_absolute_verdict(scripted):
    scripted({"a": 0.3}, contended=True)
    found = measure({"a": 0.3})["a"]
    assert found.status == "contended" and found.certificate(HALF) == "met"
    assert found.certificate(LatencyBudget.parse(100)) == "ambiguous"


def test_one_round_or_a_round_in_process_is_no_certificate(scripted):
    scripted({"a": 0.3})
    one = measure({"a": 0.3}, rounds=1)["a"]
    assert one.verdict(HALF) == "met" and one.certificate(HALF) == "ambiguous"
    five = measure({"a": 0.3})["a"].model_copy(update={"fresh": False})
    assert five.certificate(HALF) == "ambiguous"


def test_rounds_of_different_machines_are_not_joined_in_silence():
    parts = [Latency(rounds=(), workload=WORKLOAD, fingerprint={"hash": h}, fresh=True) for h in "xyx"]
    assert "changed between rounds" in dict(measurement.rows(fresh._joined(parts, WORKLOAD, 3, 1.0)))["warning"]
    assert "warnings" not in fresh._joined(parts[::2], WORKLOAD, 2, 1.0).details


def test_it_refuses_to_wait_for_itself(scripted):
    scripted({"a": 0.3})
    with device.timing_guard("cpu"), pytest.raises(RuntimeError, match="without the device's lock"):
        measure({"a": 0.3})
    assert latency.measure_fresh({}, "/dense", WORKLOAD) == {}
    with pytest.raises(InvalidInput, match="rounds must be at least 1, but got 0"):
        measure({"a": 0.3}, rounds=0)


def test_large_models_are_loaded_a_few_at_a_time(tmp_path):
    for name, size in (("dense", 10), ("a", 30), ("b", 30), ("c", 30)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"0" * size)
    paths = {name: str(tmp_path / name) for name in "abc"}
    assert fresh.side_by_side(paths, str(tmp_path / "dense"), 150) == [["a", "b"], ["c"]]
    assert fresh.side_by_side(paths, str(tmp_path / "dense"), 10**9) == [["a", "b", "c"]]


def test_models_side_by_side_fit_the_device_that_times_them(tmp_path, monkeypatch, scripted):
    scripted({"a": 0.3, "b": 0.4, "c": 0.5})
    free, seen = SimpleNamespace(free_bytes=lambda: 150), []
    monkeypatch.setattr(device, "resolve", lambda name: free)
    split = fresh.side_by_side
    monkeypatch.setattr(fresh, "side_by_side", lambda *given: (seen.append(given[2]), split(*given))[1])
    measure({"a": 0.3, "b": 0.4, "c": 0.5})
    assert seen == [150]


def test_the_json_document_has_exactly_the_promised_keys(scripted):
    scripted({"a": 0.3})
    found = measure({"a": 0.3}, pairs=40)["a"]
    document = measurement.document(found, [HALF])
    promised = "latency_ms lower_ms upper_ms speedup verdict status workload fingerprint dense runs_ms"
    assert list(document) == promised.split() and list(document["dense"]) == ["latency_ms"]
    assert document["verdict"] == "met" and len(document["runs_ms"]) == 200
    assert document["lower_ms"] < document["latency_ms"] < document["upper_ms"]
    empty = measurement.document(Latency(rounds=(), workload=WORKLOAD))
    assert empty["latency_ms"] is None and empty["verdict"] is None and empty["status"] == "no_samples"
    assert dict(measurement.rows(found, [HALF]))["budget"] == "50%: met"
    assert measurement.rows(Latency(rounds=(), workload=WORKLOAD))


def test_a_model_without_reference_is_paired_with_itself_and_claims_no_speedup(scripted):
    scripted({"a": 1.0})
    found = latency.measure_fresh({"a": "/a"}, None, WORKLOAD)["a"]
    document = measurement.document(found)
    assert document["speedup"] is None and document["dense"]["latency_ms"] is None
    assert document["latency_ms"] == pytest.approx(10, rel=0.1)
    assert "speed-up" not in dict(measurement.rows(found))


def test_differing_counts_rows():
    assert written_tokens.differing([[1, 2], [3]], [[1, 2], [4]]) == 1
    assert written_tokens.differing([[1]], []) == 1


# --- real processes ---------------------------------------------------------------------------


def t5(decoder_layers, seed=0):
    torch.manual_seed(seed)
    sizes = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 4, "num_heads": 4}
    config = T5Config(**sizes, num_decoder_layers=decoder_layers, decoder_start_token_id=0)
    return T5ForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for name, layers in (("dense", 4), ("short", 1)):
        t5(layers).save_pretrained(root / name)
    return root


@pytest.mark.slow
def test_a_folder_that_does_not_load_is_named_in_one_line(tmp_path, warm_python):
    with pytest.raises(InvalidInput, match="must be a folder with an encoder-decoder model, but got") as caught:
        latency.measure_fresh({"a": tmp_path / "none"}, tmp_path / "none", WORKLOAD, limit_s=NEVER_S)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_real_rounds_certify_a_real_folder(folders):
    found = latency.measure_fresh(
        {"short": folders / "short", "same": folders / "dense"},
        folders / "dense",
        WORKLOAD,
        rounds=2,
        pairs=15,
        limit_s=NEVER_S,
        budgets={"short": [LatencyBudget.parse("95%")]},
    )
    assert found["short"].ratio < 0.8 and found["short"].certificate(LatencyBudget.parse("95%")) == "met"
    assert 0.8 < found["same"].ratio < 1.25
    assert len(found["same"].rounds) == 2 and found["same"].details["encoder_ms"] > 0
    assert found["short"].fingerprint["hash"] == found["same"].fingerprint["hash"]


@pytest.mark.slow
def test_an_export_is_token_identical_to_what_was_trained_and_a_changed_one_is_not(folders, tmp_path, warm_python):
    rows = [[5 + (i * j) % 50 for j in range(1, 3 + i % 9)] for i in range(70)]
    trained = t5(1)
    exported = latency.fresh_tokens({"m": folders / "short"}, rows, WORKLOAD, max_new_tokens=12)["m"]
    assert len(exported) == 70
    assert written_tokens.differing(written_tokens.tokens_of(trained, rows, WORKLOAD, max_new_tokens=12), exported) == 0
    other = copy.deepcopy(trained)
    other.shared.weight.data.mul_(torch.randn_like(other.shared.weight))
    assert written_tokens.differing(written_tokens.tokens_of(other, rows, WORKLOAD, max_new_tokens=12), exported) > 0
    assert written_tokens.differing(exported[:-1], exported) == 70, "fewer answers are no agreement"


@pytest.mark.slow
def test_a_process_that_outlives_its_limit_is_gone(folders):
    began = time.monotonic()
    latency.measure_fresh({"short": folders / "short"}, folders / "dense", WORKLOAD, rounds=1, pairs=1)
    limit_s = 10 + 2 * (time.monotonic() - began)  # a process must start within it, on this machine, now
    began = time.monotonic()
    found = latency.measure_fresh(
        {"short": folders / "short"}, folders / "dense", WORKLOAD, rounds=1, pairs=10**6, limit_s=limit_s
    )["short"]
    assert time.monotonic() - began <= 1.2 * limit_s + 5
    assert found.cut_short and found.status in ("cut_short", "contended", "no_samples"), "of which the last is luck"


@pytest.mark.slow
def test_a_killed_parent_takes_its_timing_process_along(folders, tmp_path):
    code = f"""
from nash_search import latency
from nash_search.config import Workload
latency.measure_fresh({{'m': {str(folders / "short")!r}}}, None, Workload(input_tokens=5, output_tokens=4), pairs=10**6)
"""
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        children = _wait_for(lambda: _children(parent.pid))
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    _wait_for(lambda: not any(_alive(pid) for pid in children))
    with device.timing_guard("cpu", timeout_s=NEVER_S):
        assert lock.held("cpu") == "exclusive"


@pytest.mark.slow
def test_a_dying_process_says_its_last_words(warm_python):
    job = {"kind": "unknown", "folders": {}}
    with pytest.raises(
        fresh_process.MeasurementFailed, match="must end with a result, but got exit code 1: KeyError: 'unknown'"
    ):
        fresh_process.run_job(job, NEVER_S)


@pytest.mark.parametrize("dying", ["import os; os.kill(os.getpid(), 9)", "raise MemoryError"])
def test_a_process_that_had_too_little_memory_is_told_from_a_broken_one(dying):
    with pytest.raises(fresh_process.OutOfMemory) as caught:
        fresh_process.run_job({"kind": "time"}, NEVER_S, entry=("-c", dying))
    assert caught.value.exit_code == 5, "no bug of ours"
    with pytest.raises(fresh_process.MeasurementFailed) as caught:
        fresh_process.run_job({"kind": "time"}, NEVER_S, entry=("-c", "raise KeyError"))
    assert not isinstance(caught.value, fresh_process.OutOfMemory)


@pytest.mark.parametrize("fit", [1, 2, 3])
def test_models_that_memory_does_not_hold_together_are_timed_in_smaller_companies(scripted, monkeypatch, fit):
    ratios = {name: 0.1 * (i + 1) for i, name in enumerate("abcdefg")}
    jobs, _ = scripted(ratios)
    given, tried = fresh.run_job, []

    def small(job, limit_s):
        tried.append(len(job["folders"]))
        if len(job["folders"]) > fit:
            raise fresh_process.OutOfMemory("killed")
        return given(job, limit_s)

    monkeypatch.setattr(fresh, "run_job", small)
    found = measure(ratios, rounds=5)
    assert all(len(latency.rounds) == 5 and not latency.cut_short for latency in found.values())
    assert max(len(job["folders"]) for job in jobs) <= fit
    assert sum(n > fit for n in tried) <= 6, "what did not fit once is not tried in every round"
    monkeypatch.setattr(
        fresh, "run_job", lambda job, limit_s: (_ for _ in ()).throw(fresh_process.OutOfMemory("killed"))
    )
    with pytest.raises(fresh_process.OutOfMemory):
        measure(ratios, rounds=5)


def _children(pid):
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _wait_for(condition, seconds=NEVER_S):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")
