"""The device's locks against real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from nash_search import device
from nash_search.device import lock
from nash_search.errors import InvalidInput, Locked
from tests.device.holders import end, holder
from tests.patience import NEVER_S


def test_trainers_share_and_a_timing_waits_for_them():
    trainer = holder("shared")
    try:
        with device.training_guard("cpu"):
            assert lock.held("cpu") == "shared"
        with pytest.raises(Locked, match="device cpu must be free for a timing, but other processes still use it"):
            with device.timing_guard("cpu", timeout_s=0.05):
                pass
        assert lock.held("cpu") == "free"
    finally:
        end(trainer)


@pytest.mark.parametrize("mode", ["shared", "exclusive"])
def test_the_kernel_frees_the_device_of_a_killed_holder(mode):
    other = holder(mode)
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    other.stdout.close()
    with device.timing_guard("cpu", timeout_s=NEVER_S):
        assert lock.held("cpu") == "exclusive"


def test_a_timing_does_not_starve_behind_overlapping_trainers():
    stop = threading.Event()
    steps = [0, 0, 0]

    def train(index):
        while not stop.is_set():
            with device.training_guard("cpu"):
                steps[index] += 1
                time.sleep(0.01)

    trainers = [threading.Thread(target=train, args=(i,)) for i in range(3)]
    for thread in trainers:
        thread.start()
    try:
        for _ in range(5):
            with device.timing_guard("cpu", timeout_s=NEVER_S):
                before = list(steps)
                time.sleep(0.03)
                assert steps == before
            time.sleep(0.02)
    finally:
        stop.set()
        for thread in trainers:
            thread.join()
    assert min(steps) > 0


def test_guards_nest_in_every_order():
    training, timing = device.training_guard("cpu"), device.timing_guard("cpu", timeout_s=NEVER_S)
    with training, training:
        with timing, training, timing:
            assert lock.held("cpu") == "exclusive"
        assert lock.held("cpu") == "shared"
    assert lock.held("cpu") == "free"


def test_a_timing_inside_a_step_that_fails_to_start_leaves_the_step_its_share():
    other = holder("shared")
    try:
        with device.training_guard("cpu"):
            with pytest.raises(Locked):
                with device.timing_guard("cpu", timeout_s=0.02):
                    pass
            assert lock.held("cpu") == "shared"
    finally:
        end(other)


def test_two_threads_that_time_inside_their_steps_do_not_wait_for_each_other():
    done = []

    def work():
        for _ in range(20):
            with device.training_guard("cpu"), device.timing_guard("cpu", timeout_s=NEVER_S):
                done.append(1)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(NEVER_S)
    assert len(done) == 40


def test_a_forked_child_does_not_keep_the_lock_of_its_parent():
    code = """
import os, time
from nash_search.device.lock import DeviceGuard
with DeviceGuard('cpu', 'exclusive'):
    if os.fork() == 0:
        print(os.getpid(), flush=True); time.sleep(600); os._exit(0)
    time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    try:
        end(parent)
        with device.timing_guard("cpu", timeout_s=NEVER_S):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_training_step_pays_microseconds_for_the_guard():
    guard = device.training_guard("cpu")
    with guard:
        pass
    start = time.thread_time()
    for _ in range(1000):
        with guard:
            pass
    assert (time.thread_time() - start) / 1000 < 1e-3


def test_a_lock_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setenv("NASH_SEARCH_LOCKS", str(tmp_path / "link"))
    with pytest.raises(InvalidInput, match="lock folder must be a folder of your own, but got"):
        lock.lock_folder()


def test_announced_processes_cooperate_until_they_end(locks):
    lock.announce("GPU-1")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (locks / "GPU-1.pids" / str(dead.pid)).touch()
    assert lock.cooperating_pids("GPU-1") == {os.getpid()}
    assert not (locks / "GPU-1.pids" / str(dead.pid)).exists()
