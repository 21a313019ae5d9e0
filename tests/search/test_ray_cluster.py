"""What Ray is started with, and what a worker makes of a job; no cluster is started here."""

import os
from types import SimpleNamespace

import pytest

from nash_search.config import Architecture, SearchConfig, TaskConfig, Workload, WorkloadRequest
from nash_search.errors import Unfinished
from nash_search.records import TrialRecord
from nash_search.search import ray_cluster, ray_runner
from nash_search.trial.cost import worker_count
from nash_search.trial.job import Job


def job_on(device, tmp_path):
    return Job(
        number=3,
        architecture=Architecture(encoder_sparsity_pct=0, decoder_layers=1),
        seed=0,
        share=0.5,
        folder=str(tmp_path),
        question="q",
        device="d",
        workload=Workload(input_tokens=1, output_tokens=1),
        config=SearchConfig(task=TaskConfig(name="rehearsal"), workload=WorkloadRequest(device=device)),
    )


@pytest.mark.parametrize(("asked", "seen"), [("cuda:1", "cuda"), ("cuda", "cuda"), ("auto", "auto"), ("cpu", "cpu")])
def test_a_worker_sees_only_the_gpu_that_ray_gave_it(asked, seen, tmp_path):
    job = job_on(asked, tmp_path)
    found = ray_runner.seen_by_a_worker(job)
    assert found.config.workload.device == seen
    assert found.key == job.key, "the trial is the same"


@pytest.mark.parametrize(
    ("device", "visible", "expected"),
    [("cuda:1", None, "1"), ("cuda:1", "4,7", "7"), ("cuda:0", "GPU-ab", "GPU-ab"), ("cuda", "4,7", "4,7")],
)
def test_a_named_gpu_is_the_only_one_a_cluster_of_ours_has(monkeypatch, device, visible, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with ray_cluster.environment(ray_cluster.worker_environment(device)):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == expected
        assert os.environ["MALLOC_ARENA_MAX"] == "2"
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == visible and "MALLOC_ARENA_MAX" not in os.environ
    assert worker_count(SearchConfig(workload=WorkloadRequest(device="cuda:1")), "cuda:1") == 1


@pytest.mark.parametrize(("gpus", "workers", "share"), [(1, 2, 0.5), (4, 4, 1.0), (8, 4, 1.0), (0, 3, 0.0)])
def test_trials_ask_for_gpus_by_fraction(monkeypatch, gpus, workers, share):
    monkeypatch.setattr(ray_cluster.ray, "cluster_resources", lambda: {"CPU": 8.0} | ({"GPU": gpus} if gpus else {}))
    assert ray_cluster.gpu_share(workers) == share


def test_joining_a_cluster_starts_none(monkeypatch):
    asked = []
    monkeypatch.setattr(ray_cluster.ray, "init", lambda **options: asked.append(options))
    ray_cluster.start_ray(SearchConfig(ray_address="auto"), 2, True)
    assert [one["address"] for one in asked] == ["auto"] and "num_cpus" not in asked[0]


def test_a_worker_that_dies_after_its_record_changes_nothing(tmp_path):
    job, finished = job_on("cpu", tmp_path), []
    scheduler = SimpleNamespace(
        config=job.config, ask=lambda: job, tell=lambda job, record, wall_s: finished.append(record.failure)
    )

    class Shield:
        def shielded(self):
            return ray_cluster.environment({})

    callback = ray_runner.TuneCallback(scheduler, Shield())
    assert callback.next_job("t") is job
    record = TrialRecord(number=3, architecture=job.architecture)
    trial = SimpleNamespace(trial_id="t", error_file=None)
    callback.on_trial_start(0, [], trial)
    callback.on_trial_result(0, [], trial, {"record": record.model_dump_json()})
    callback.on_step_begin(1, [])
    callback.on_trial_error(1, [], trial)
    callback.on_step_begin(2, [])
    assert finished == [None]


def test_a_cluster_that_does_not_start_is_tried_again_and_is_no_bug_of_ours(monkeypatch):
    asked, fails = [], 2

    def init(**options):
        asked.append(options)
        if len(asked) <= fails:
            raise Exception("The current node timed out during startup.")  # Ray's own, word for word

    monkeypatch.setattr(ray_cluster.ray, "init", init)
    ray_cluster.start_ray(SearchConfig(), 2, True)
    assert len(asked) == 3, "a busy machine is given more time"
    asked, fails = [], 9
    with pytest.raises(Unfinished, match="timed out during startup.*--serial"):
        ray_cluster.start_ray(SearchConfig(), 2, True)
    assert len(asked) == ray_cluster.STARTS
