"""Ray: the same scheduler and trial function, side by side; every promise about workers and processes."""

import json
import os
import signal
import time

import psutil
import pytest

from tests.patience import NEVER_S, stretched
from tests.search.test_crash import finish, rows, start

RAY = {"serial": False, "workers": 2}
pytestmark = pytest.mark.slow


def ray_processes():
    """Those of this test process: another one's have another worker's name in their environment."""
    found, ours = set(), os.environ.get("PYTEST_XDIST_WORKER")
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = " ".join(process.info["cmdline"] or [])
        if (process.info["environ"] or {}).get("PYTEST_XDIST_WORKER") != ours:
            continue
        if "raylet" in words or "gcs_server" in words or words.startswith("ray::"):
            found.add(process.pid)
    return found


def wait_for(condition, seconds=NEVER_S):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def trained(results):
    folder = results / "s" / "trials"
    return len(list(folder.glob("[!.]*"))) - 1 if folder.is_dir() else 0


def test_mishaps_of_workers_end_their_trials_only_and_nothing_is_left_behind(tmp_path):
    before = ray_processes()
    process = start(
        tmp_path,
        trials=8,
        seconds=0.2,
        changes=RAY | {"trial_timeout_s": stretched(15)},  # a worker imports all it needs within it
        orders="die=enc0-dec2,hang=enc10-dec1,nan=enc0-dec1,oom=enc40-dec2",
    )
    wait_for(lambda: ray_processes() - before)
    out, err = process.communicate(timeout=NEVER_S)
    assert process.returncode == 0, err
    assert err == "" and len(out.splitlines()) == 1, "Ray is quiet"
    document = json.loads(out)
    assert document["trials"]["complete"] + document["trials"]["stopped"] == 8
    reasons = sorted(
        (r.user_attrs["failure"], json.loads(r.user_attrs["record"])["architecture"]["encoder_sparsity_pct"])
        for r in rows(tmp_path)
        if "failure" in r.user_attrs
    )
    assert reasons == [("nan", 0), ("oom", 40), ("oom", 40), ("timeout", 10), ("worker_died", 0)]
    slugs = [(r.params["encoder_sparsity_pct"], r.params["decoder_layers"]) for r in rows(tmp_path) if r.values]
    assert (0, 2) in slugs, "one more try for a worker's death"
    wait_for(lambda: not ray_processes() - before, stretched(20))


def test_a_full_disk_ends_it_with_its_own_exit_code(tmp_path):
    process = start(tmp_path, trials=6, changes=RAY, orders="disk=enc10-dec1")
    out, err = process.communicate(timeout=NEVER_S)
    assert process.returncode == 5 and out == "" and len(err.strip().splitlines()) == 1, err
    assert finish(tmp_path, trials=6, changes=RAY)["trials"]["failed"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM])  # SIGINT ends the command of cli/test_search
def test_a_signal_ends_it_within_ten_seconds_with_no_child_left(tmp_path, number):
    process = start(tmp_path, seconds=5.0, changes=RAY)
    wait_for(lambda: trained(tmp_path) >= 1)
    children = psutil.Process(process.pid).children(recursive=True)
    began = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=NEVER_S)
    assert time.monotonic() - began < stretched(10)
    assert process.returncode == 128 + number, err
    assert "RUNNING" not in {r.state.name for r in rows(tmp_path)}
    wait_for(lambda: not any(c.is_running() and c.status() != psutil.STATUS_ZOMBIE for c in children), stretched(10))


def test_a_second_signal_leaves_at_once(tmp_path):
    process = start(tmp_path, seconds=20.0, changes=RAY)
    wait_for(lambda: (tmp_path / "s" / "trials").is_dir() and list((tmp_path / "s" / "trials").glob(".work-*")))
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    process.communicate(timeout=NEVER_S)
    # where the first one's clean-up was already done, the signal itself ends the process: a shell says 143 of both
    assert time.monotonic() - began < stretched(2) and process.returncode in (143, -signal.SIGTERM)
    finish(tmp_path, trials=2)


def test_the_cluster_asks_for_a_token(tmp_path):
    process = start(tmp_path, seconds=10.0, changes=RAY)
    wait_for(lambda: any("gcs_server" in " ".join(c.cmdline()) for c in alive_children(process.pid)))
    (server,) = [c for c in alive_children(process.pid) if "gcs_server" in " ".join(c.cmdline())]
    environment = server.environ()
    process.kill()
    process.communicate()
    assert environment["RAY_AUTH_MODE"] == "token" and len(environment["RAY_AUTH_TOKEN"]) >= 32


def alive_children(pid):
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            child.cmdline()
        except psutil.Error:
            continue
        found.append(child)
    return found


def test_finalists_run_side_by_side_like_trials(tmp_path):
    document = finish(tmp_path, trials=3, changes=RAY | {"finalist_seeds": 3})
    seeds = [b["seeds"] for b in document["budgets"] if b["verdict"] == "met"]
    assert seeds and all(s["n"] == 3 for s in seeds)
    assert len(rows(tmp_path)) == 4, "finalists are no rows"
    assert not [path.name for path in (tmp_path / "s" / "finalists").iterdir() if path.name.startswith(".")]
