"""The CUDA timer against a fake that records every call."""

from __future__ import annotations

import os
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from nash_search import device
from nash_search.config import Workload, digest
from nash_search.device import lock
from nash_search.device.cuda import THROTTLE_BITS
from nash_search.errors import InvalidInput
from nash_search.latency import cache, runtimes, timing
from nash_search.latency.measurement import rows
from nash_search.latency_record import Latency, Round
from nash_search.trial import nash_evaluator
from tests.device.holders import end, holder


class NVMLError(Exception):
    pass


class FakeNvml:
    """NVML that records what is asked and would raise on anything it does not know."""

    NVMLError = NVMLError
    NVML_CLOCK_SM = 1

    def __init__(self, log, bits=0, pids=(), unsupported=(), slice_of=""):
        self.log, self.bits, self.pids, self.unsupported = log, bits, pids, unsupported
        self.known = f"{slice_of or 'GPU'}-1234"

    def __getattr__(self, name):
        self.log.append(name)  # also what is only looked up, so that no setter goes unseen
        raise AttributeError(name)

    def _say(self, name, value):
        self.log.append(name)
        if name in self.unsupported:
            raise NVMLError("not supported")
        return value

    def nvmlInit(self):
        return self._say("nvmlInit", None)

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid != self.known:
            raise NVMLError("not found")
        return self._say("nvmlDeviceGetHandleByUUID", "handle")

    def nvmlSystemGetDriverVersion(self):
        return self._say("nvmlSystemGetDriverVersion", b"575.57")

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle):
        return self._say("nvmlDeviceGetCurrentClocksEventReasons", self.bits)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
        return self._say("nvmlDeviceGetCurrentClocksThrottleReasons", self.bits)

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return self._say("nvmlDeviceGetComputeRunningProcesses", [SimpleNamespace(pid=p) for p in self.pids])

    def nvmlDeviceGetClockInfo(self, handle, kind):
        assert kind == 1
        return self._say("nvmlDeviceGetClockInfo", 1980)


class FakeCuda:
    """torch.cuda as a log: what was called, in which order."""

    def __init__(self, log, uuids=("1234",)):
        self.log, self.uuids = log, uuids

    def get_device_properties(self, index):
        return SimpleNamespace(uuid=self.uuids[index], name="Fake GPU", total_memory=80 * 2**30, major=9, minor=0)

    def memory_allocated(self, index):
        return 1000

    def mem_get_info(self, index):
        return 3 * 2**30, 80 * 2**30

    def empty_cache(self):
        self.log.append("empty cache")

    def set_device(self, index):
        self.log.append(f"set device {index}")

    def current_stream(self, index):
        return f"stream of {index}"

    def reset_peak_memory_stats(self, index):
        self.log.append("reset peak")

    def max_memory_allocated(self, index):
        return 1700

    def max_memory_reserved(self, index):
        return 2000

    def synchronize(self, index):
        assert index == 0
        self.log.append("synchronize")

    def Event(self, enable_timing):
        log = self.log
        return SimpleNamespace(record=lambda stream: log.append(f"event on {stream}"), elapsed_time=lambda end: 3.5)


def fake_gpu(**nvml):
    log: list[str] = []

    def clock():
        log.append("clock")
        return 5_000_000 * log.count("clock")

    gpu = device.CudaDevice(0, cuda=FakeCuda(log), nvml=FakeNvml(log, **nvml), clock_ns=clock)
    return gpu, log


def test_no_host_clock_is_read_between_launch_and_synchronisation():
    gpu, log = fake_gpu()
    sample, _ = gpu.time(lambda: log.append("launch"))
    window = log[log.index("clock") - 1 : len(log) - log[::-1].index("clock")]
    event = "event on stream of 0"
    assert window == ["synchronize", "clock", event, "launch", event, "synchronize", "clock"]
    assert log[0] == "set device 0"
    assert sample.wall_ms == 5.0 and sample.device_ms == 3.5 and sample.disturbed == ()
    assert sample.notes["sm_mhz"] == 1980


class Launching:
    """A runtime whose sessions only launch something."""

    outside_torch = False

    def __init__(self, log):
        self.log = log

    def build(self, model, workload, inputs):
        def launch():
            self.log.append("launch")
            return workload.output_tokens

        quiet = {"weight_bytes": lambda: 5, "facts": dict, "warnings": list, "close": lambda: None}
        return SimpleNamespace(generate=launch, encode=launch, natural=launch, generated_tokens=int, **quiet)

    def fingerprint(self, workload):
        return {}


@pytest.mark.parametrize("bits", [0, 0x40])
def test_a_whole_measurement_synchronises_every_launch_and_only_reads_nvml(monkeypatch, bits):
    gpu, log = fake_gpu(bits=bits)
    runtime = Launching(log)
    monkeypatch.setattr(timing, "runtime_of", lambda workload: runtime)
    monkeypatch.setattr(runtimes, "runtime_of", lambda workload: runtime)
    workload = Workload(device="cuda:0", dtype="bfloat16", input_tokens=3, output_tokens=2)
    models = {"a": None, "b": None}
    found = timing.measure_many(models, None, workload, pairs=4, limit_s=1e6, device=gpu, exclusive=False)["a"]
    launches = [i for i, name in enumerate(log) if name == "launch"]
    assert len(launches) >= 3 * (3 + 4) + 3 * 11, "warm-up, pairs, details"
    for i in launches:
        before = next(name for name in reversed(log[:i]) if name in ("synchronize", "launch", "reset peak"))
        after = next(name for name in log[i + 1 :] if name in ("synchronize", "launch", "clock"))
        assert before != "launch" and after == "synchronize"
    asked = {name for name in log if name.startswith("nvml")}
    assert asked and not [name for name in asked if name != "nvmlInit" and not re.match("nvml(Device|System)Get", name)]
    assert found.details["peak_memory_bytes"] == 705 and len(found.rounds[0].device_ms) == 4
    assert found.fingerprint["device"] == "Fake GPU" and found.fingerprint["dtype"] == "bfloat16"
    assert found.status == ("contended" if bits else "clean")
    assert found.rounds[0].surroundings["discarded"] == (5 * 3 * 4 if bits else 0)
    if bits:
        assert found.rounds[0].surroundings["disturbed_by"] == ["thermal slowdown (hardware)"]


def test_the_throttle_bits_are_those_of_the_protocol():
    assert sorted(THROTTLE_BITS) == [0x4, 0x8, 0x20, 0x40, 0x80]


@pytest.mark.parametrize("bit", [0x8, 0x20, 0x40, 0x80])
def test_each_throttle_bit_disturbs_the_sample(bit):
    gpu, _ = fake_gpu(bits=bit | 0x1 | 0x2)
    sample, _ = gpu.time(lambda: None)
    assert sample.disturbed == (THROTTLE_BITS[bit],)
    assert sample.notes["throttle_bits"] == bit | 0x3


def test_a_power_cap_that_stays_is_the_cards_state_and_one_that_comes_or_goes_disturbs():
    gpu, _ = fake_gpu(bits=0x4)
    always = [gpu.time(lambda: None)[0] for _ in range(3)]
    assert [s.disturbed for s in always] == [(), (), ()] and {s.notes["throttle_bits"] for s in always} == {4.0}

    def calls(*bits):
        found = []
        for gpu._nvml.bits in bits:
            found.append(gpu.time(lambda: None)[0].disturbed)
        return found

    assert calls(0, 0, 0x4, 0x4) == [("power cap",), (), ("power cap",), ()]


def test_a_card_that_is_capped_only_while_it_works_is_in_one_state():
    gpu, _ = fake_gpu()

    def work():
        gpu._nvml.bits = 0x4

    found = []
    for _ in range(3):
        gpu._nvml.bits = 0x1  # idle
        found.append(gpu.time(work)[0].disturbed)
    assert found == [(), (), ()]


def test_a_gpu_step_keeps_its_share_until_its_kernels_have_run(monkeypatch):
    gpu, log = fake_gpu()
    monkeypatch.setattr(device, "resolve", lambda name: gpu)
    device.lock_name.cache_clear()
    device._drain.cache_clear()
    freed = lock._Seat._free
    monkeypatch.setattr(lock._Seat, "_free", lambda seat: (log.append("free"), freed(seat))[1])
    with device.training_guard("cuda:0"):
        log.clear()
        with device.training_guard("cuda:0"):
            log.append("launch")
        log.append("launch")
    assert log == ["launch", "launch", "synchronize", "free"], "one wait, and before the others may time"
    log.clear()
    with pytest.raises(ValueError), device.training_guard("cuda:0"):
        raise ValueError
    assert log[-2:] == ["synchronize", "free"] and lock.held("GPU-1234") == "free"
    device.lock_name.cache_clear()
    device._drain.cache_clear()


def test_a_gpu_s_free_memory_is_the_card_s_and_what_was_freed_is_given_back():
    gpu, log = fake_gpu()
    assert gpu.free_bytes() == 3 * 2**30
    gpu.release()
    assert log[-1] == "empty cache"
    assert gpu.most_bytes(lambda: log.append("launch") or "done") == ("done", 2000)
    assert log[-3:] == ["reset peak", "launch", "synchronize"] and gpu.total_bytes() == 80 * 2**30


def test_a_driver_leaves_the_card_to_its_workers_and_to_the_processes_that_certify(monkeypatch):
    gpu, log = fake_gpu()
    teacher = SimpleNamespace(to=lambda where: (log.append(f"teacher to {where}"), teacher)[1], eval=lambda: teacher)
    evaluator = object.__new__(nash_evaluator.NashEvaluator)
    evaluator.dense = SimpleNamespace(teacher=teacher, folder=Path("dense"))
    evaluator.device, evaluator._dense_served, evaluator._workload = gpu, teacher, None
    evaluator._deployment = SimpleNamespace(place=lambda model, own: nullcontext(own))
    monkeypatch.setattr(nash_evaluator.fresh, "measure_fresh", lambda *given, **more: log.append("fresh"))
    log.clear()
    evaluator.time_fresh({}, {})
    assert log == ["teacher to cuda:0", "teacher to cpu", "empty cache", "fresh"]
    assert "_dense_served" not in vars(evaluator), "a copy in another precision would stay"
    assert evaluator.teacher is teacher and log[-1] == "teacher to cuda:0", "asked again, it goes back"


def test_a_gpu_tells_of_the_host_that_launches_its_kernels():
    assert fake_gpu()[0].surroundings().keys() == device.CpuDevice().surroundings().keys() | {"nvml"}


def test_idle_and_application_clock_bits_are_no_disturbance():
    assert fake_gpu(bits=0x1 | 0x2 | 0x10 | 0x100)[0].time(lambda: None)[0].disturbed == ()


def test_a_foreign_process_on_the_gpu_disturbs_and_one_that_takes_our_locks_does_not():
    mine, foreign = os.getpid(), 2**22 + 1
    assert fake_gpu(pids=(mine,))[0].time(lambda: None)[0].disturbed == ()
    assert fake_gpu(pids=(mine, foreign))[0].time(lambda: None)[0].disturbed == ("gpu shared",)
    friend = holder("shared")
    try:
        (lock.lock_folder() / "GPU-1234.pids").mkdir()
        (lock.lock_folder() / "GPU-1234.pids" / str(friend.pid)).touch()
        assert fake_gpu(pids=(mine, friend.pid))[0].time(lambda: None)[0].disturbed == ()
    finally:
        end(friend)


def test_in_a_container_only_a_surplus_of_processes_is_foreign():
    assert fake_gpu(pids=(900001,))[0].time(lambda: None)[0].disturbed == ()
    assert fake_gpu(pids=(900001, 900002))[0].time(lambda: None)[0].disturbed == ("gpu shared",)


def test_nvml_is_only_read():
    gpu, log = fake_gpu(bits=0x4)
    gpu.time(lambda: None)
    gpu.fingerprint()
    asked = {name for name in log if name.startswith("nvml")}
    assert asked and all(name == "nvmlInit" or "Get" in name for name in asked)
    assert not any("Set" in name or "Reset" in name for name in asked)


def test_what_a_driver_does_not_support_is_unknown_not_fatal():
    gpu, _ = fake_gpu(unsupported={"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetClockInfo"}, bits=0x40)
    sample, _ = gpu.time(lambda: None)
    assert sample.disturbed == ("thermal slowdown (hardware)",)  # through the older name
    assert "sm_mhz" not in sample.notes
    assert fake_gpu(unsupported={"nvmlInit"})[0].surroundings()["nvml"] == 0.0


def test_without_nvml_a_gpu_is_timed_and_the_reader_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    log: list[str] = []
    ticks = iter(range(0, 10**9, 10**6))
    gpu = device.CudaDevice(0, cuda=FakeCuda(log), clock_ns=lambda: next(ticks))
    sample, _ = gpu.time(lambda: None)
    assert sample.wall_ms > 0 and sample.disturbed == () and gpu.fingerprint()["driver"] is None
    one = Round(runs_ms=(1.0,), dense_runs_ms=(1.0,), surroundings={"nvml": bool(gpu.surroundings()["nvml"])})
    told = dict(rows(Latency(rounds=(one,), workload=Workload(input_tokens=1, output_tokens=1))))
    assert "NVML does not see this GPU" in told["warning"]


def test_a_slice_of_a_gpu_is_watched_by_its_own_handle():
    gpu, _ = fake_gpu(slice_of="MIG", unsupported={"nvmlDeviceGetClockInfo", "nvmlDeviceGetCurrentClocksEventReasons"})
    assert gpu.surroundings()["nvml"] == 1.0 and gpu.time(lambda: None)[0].disturbed == ()
    assert fake_gpu(slice_of="other")[0].surroundings()["nvml"] == 0.0


def test_visible_devices_change_a_gpus_index_and_not_its_lock():
    log: list[str] = []
    whole = [device.CudaDevice(i, cuda=FakeCuda(log, ("1234", "5678")), nvml=FakeNvml(log)) for i in (0, 1)]
    only_second = device.CudaDevice(0, cuda=FakeCuda(log, ("5678",)), nvml=FakeNvml(log))
    assert whole[1].lock_id == only_second.lock_id != whole[0].lock_id
    with lock.DeviceGuard(whole[0].lock_id, "exclusive", 0.0), lock.DeviceGuard(whole[1].lock_id, "exclusive", 0.0):
        assert lock.held(only_second.lock_id) == "exclusive"


def test_a_gpus_locks_are_named_after_its_uuid():
    gpu, _ = fake_gpu()
    assert gpu.lock_id == "GPU-1234"
    found = gpu.fingerprint()
    assert found["driver"] == "575.57" and found["device"] == "Fake GPU" and found["memory_gib"] == 80


@pytest.mark.parametrize("runtime", ["eager", "compile", "ctranslate2", "onnxruntime"])
def test_every_field_of_a_gpu_s_fingerprint_is_part_of_what_the_cache_asks(runtime):
    engine = runtime in ("ctranslate2", "onnxruntime")  # built for the CPU here
    where = {"device": "cpu", "dtype": "float32"} if engine else {"device": "cuda:0", "dtype": "bfloat16"}
    call = Workload(runtime=runtime, input_tokens=3, output_tokens=2, **where)
    try:
        found = runtimes.fingerprint(fake_gpu()[0], call)
    except InvalidInput as absent:
        pytest.skip(str(absent))
    named = {"device", "memory_gib", "capability", "driver", "cuda", "cpu", "float32_matmul", "dtype", "torch"}
    modes = {"eager": set(), "compile": {"compile_mode", "cache"}}
    assert found.keys() >= named | modes.get(runtime, {runtime})
    if runtime == "compile":
        assert found["compile_mode"] == "reduce-overhead (CUDA graphs)" and found["cache"] == "static"
    asked = digest(cache.key(found, call, {}, {}))
    for name in found.keys() - {"hash"}:
        assert digest(cache.key(found | {name: "another"}, call, {}, {})) != asked, name
