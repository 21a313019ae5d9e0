"""A device whose clock moves only when a fake session says so."""

from __future__ import annotations

import pytest

from nash_search import latency
from nash_search.config import Workload
from nash_search.device import Sample
from nash_search.latency import runtimes, timing


class FakeDevice:
    """Time is what sessions spend; `disturb` decides which calls something else disturbs."""

    name = lock_id = "fake"

    def __init__(self, retries=0, disturb=lambda call: False):
        self.seconds, self.calls, self.retries, self.disturb = 0.0, 0, retries, disturb

    def time(self, call):
        before = self.seconds
        result = call()
        self.calls += 1
        disturbed = ("gpu shared",) if self.disturb(self.calls) else ()
        wall_ms = (self.seconds - before) * 1e3
        return Sample(wall_ms=wall_ms, cpu_ms=wall_ms, disturbed=disturbed, notes={"sm_mhz": 1980.0}), result

    def now_s(self):
        return self.seconds

    def synchronize(self):
        pass

    def surroundings(self):
        return {"involuntary_switches": float(self.calls)}

    def peak_bytes(self, call):
        call()
        return 1000

    def most_bytes(self, call):
        return call(), 1000

    def total_bytes(self):
        return 2**31

    def free_bytes(self):
        return 2**30

    def release(self):
        pass

    def fingerprint(self):
        return {"device": "Fake", "memory_gib": 1.0, "cores": 1}


class FakeSession:
    """A model that takes `cost_s(call number)` on a fake device and writes its name into a log."""

    natural_s, encode_s = 0.002, 0.001

    def __init__(self, name, device, cost_s, tokens=4, log=None):
        self.name, self.device, self.tokens, self.calls = name, device, tokens, 0
        self.cost_s = cost_s if callable(cost_s) else lambda _call: cost_s
        self.log = [] if log is None else log

    def generate(self):
        self.calls += 1
        self.device.seconds += self.cost_s(self.calls)
        self.log.append(self.name)
        return self.tokens

    def generated_tokens(self, output):
        return output

    def encode(self):
        self.device.seconds += self.encode_s

    def natural(self):
        self.device.seconds += self.natural_s
        return 3

    def weight_bytes(self):
        return 500

    def facts(self):
        return {"inputs": "random"}

    def warnings(self):
        return []

    def close(self):
        self.log.append(f"closed {self.name}")


class FakeRuntime:
    """Builds fake sessions: a 'model' is (name, cost_s)."""

    outside_torch = False

    natural_s, encode_s = 0.002, 0.001

    def __init__(self, device, tokens=4):
        self.device, self.tokens, self.log = device, tokens, []

    def build(self, model, workload, inputs):
        session = FakeSession(model[0], self.device, model[1], self.tokens, self.log)
        session.natural_s, session.encode_s = self.natural_s, self.encode_s
        return session

    def fingerprint(self, workload):
        return {"fake_runtime": 1}


@pytest.fixture
def fake(monkeypatch):
    """measure_many on a fake device and runtime; returns (run, runtime)."""

    def make(retries=0, disturb=lambda call: False, tokens=4):
        device = FakeDevice(retries, disturb)
        runtime = FakeRuntime(device, tokens)
        monkeypatch.setattr(timing, "runtime_of", lambda workload: runtime)
        monkeypatch.setattr(runtimes, "runtime_of", lambda workload: runtime)

        def run(candidates, dense_s=0.010, **settings):
            models = {name: (name, cost) for name, cost in candidates.items()}
            settings = {"details": False, "exclusive": False, "device": device} | settings
            return latency.measure_many(
                models, ("dense", dense_s), Workload(input_tokens=5, output_tokens=4), **settings
            )

        return run, runtime, device

    return make
