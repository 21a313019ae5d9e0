"""The real evaluator on the shipped teacher: trained, cut, timed, scored, exported, killed and resumed."""

import itertools
import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest

from nash_search.config import Architecture, SearchConfig, SearchSpace, TaskConfig, WorkloadRequest
from nash_search.recipes import PruningRecipe
from nash_search.storage import artifacts
from nash_search.storage.recovery import TUNE
from nash_search.trial import shared_training
from nash_search.trial.evaluator import open_evaluator
from nash_search.trial.job import Hooks, Job
from nash_search.trial.run import run_trial
from tests.patience import NEVER_S
from tests.search.test_ray_runner import ray_processes, wait_for

pytestmark = pytest.mark.slow

ASKED = {
    "task": {"name": "g2p", "train_examples": 2000, "validation_examples": 48, "test_examples": 48},
    "search_space": {"encoder_sparsity_pct": [0, 60, 30], "decoder_layers": [1, 2, 3]},
    "recipe": {"narrow_steps": 6, "tune_steps": 6, "batch_size": 16, "rungs": 3},
    "workload": {"batch_size": 8, "threads": 1, "device": "cpu"},
    "budgets": [{"asked": "80%", "share": 0.8}],
    "certify_rounds": 2,
    "certify_pairs": 5,
    "study": "s",
    "trials": 5,
    "finish_steps": 0,
    "workers": 2,
}
DRIVER = """
import json, sys
from nash_search.config import SearchConfig
from nash_search.search import search
result = search(SearchConfig.model_validate_json(sys.argv[2]), results=sys.argv[1])
print(json.dumps(result.document))
sys.exit(result.exit_code)
"""


def start(results, **changes):
    command = [sys.executable, "-c", DRIVER, str(results), json.dumps(ASKED | changes)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def whole(results):
    folder = results / "s" / "trials"
    return len(list(folder.glob("[!.]*"))) if folder.is_dir() else 0


def test_kills_with_ray_and_real_trials_lose_nothing(tmp_path):
    before = ray_processes()
    for kills in range(2):  # twenty moments are tried with synthetic trials (tests/search/test_crash.py)
        process = start(tmp_path, trials=3)
        began = time.monotonic()
        while whole(tmp_path) < kills + 1 and process.poll() is None and time.monotonic() - began < 150:
            time.sleep(0.2)
        process.kill()
        process.communicate()
    process = start(tmp_path, trials=3)
    out, err = process.communicate(timeout=NEVER_S)
    assert process.returncode in (0, 3), err
    document = json.loads(out.splitlines()[-1])
    assert document["trials"]["complete"] + document["trials"]["stopped"] == 3
    assert document["trials"]["failed"] == 0
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/s/study.db")
    rows = optuna.load_study(study_name="s", storage=storage).trials
    storage.engine.dispose()
    assert all(row.state.is_finished() for row in rows)
    decided = [tuple(row.params.values()) for row in rows if row.state.name in ("COMPLETE", "PRUNED")]
    assert len(set(decided)) == len(decided) == 3  # the dense model lies outside this space
    assert not (tmp_path / "s" / TUNE).exists(), "what a killed scheduler's Tune wrote is gone too"
    wait_for(lambda: not ray_processes() - before)  # Ray's agents look for their raylet now and then
    for point in document["front"]:
        assert point["same_tokens"] and (Path(point["checkpoint"]) / "model.safetensors").is_file()
        assert (Path(point["checkpoint"]) / "measurement.json").is_file()


def test_the_teachers_answers_are_priced_once_per_example_of_the_study(monkeypatch):
    evaluator = open_evaluator(SearchConfig.model_validate(ASKED))
    few, many = (evaluator.task.train_batches(size, 0) for size in (500, 16))
    recipe = PruningRecipe(**ASKED["recipe"])
    assert few.steps_per_epoch == 4 and many.steps_per_epoch > recipe.trial_steps == 12
    assert shared_training.answers_s(evaluator.teacher, many, recipe, nullcontext) == 0.0
    recipe = recipe.model_copy(update={"labels": "teacher"})
    ticks = itertools.count(step=0.25)
    monkeypatch.setattr(shared_training, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    priced = [shared_training.answers_s(evaluator.teacher, data, recipe, nullcontext) for data in (few, many)]
    assert priced == [4 * 0.25, 12 * 0.25]


class Interrupting(Hooks):
    """Ends the process's patience between the first rung and the second."""

    def progress(self, job, stage, step, steps, loss):
        if step > steps // job.config.recipe.rungs:
            raise KeyboardInterrupt


def test_an_interrupted_trial_continues_to_the_same_result(tmp_path):
    config = SearchConfig(
        task=TaskConfig(**ASKED["task"]),
        search_space=SearchSpace(**ASKED["search_space"]),
        recipe=PruningRecipe(**ASKED["recipe"]),
        workload=WorkloadRequest(**ASKED["workload"]),
    )
    architecture = Architecture(encoder_sparsity_pct=30, decoder_layers=2)

    def job(name):
        (tmp_path / name / "trials").mkdir(parents=True)
        return Job(
            number=1, architecture=architecture, seed=0, question="q", config=config,
            workload=open_evaluator(config).workload(), share=0.6, folder=str(tmp_path / name),
        )  # fmt: skip

    undisturbed, disturbed = job("a"), job("b")
    one = run_trial(undisturbed)
    assert one.status == "complete", one.message
    with pytest.raises(KeyboardInterrupt):
        run_trial(disturbed, Interrupting())
    assert disturbed.work.is_dir() and not disturbed.final.exists()
    two = run_trial(disturbed)
    assert two.status == "complete", two.message
    assert [p.value for p in two.curve] == [p.value for p in one.curve] and len(two.curve) == 3
    assert two.quality == one.quality and two.shapes == one.shapes
    tokens = [(j.final / "tokens.json").read_text() for j in (undisturbed, disturbed)]
    assert tokens[0] == tokens[1]
    assert artifacts.read(disturbed.final) is not None and not disturbed.work.exists()
    assert run_trial(disturbed).created == two.created, "a whole folder is not run again"


def test_a_search_needs_no_test_split_until_its_one_opening_and_finalists_differ_by_seed(tmp_path, monkeypatch):
    from nash_search.search import search
    from nash_search.tasks.task import SealedTest

    class Sealed(Exception):
        pass

    def closed(self):
        raise Sealed

    config = SearchConfig.model_validate(ASKED | {"serial": True, "trials": 2, "finalist_seeds": 2})
    openings, opened = [], SealedTest.open
    with monkeypatch.context() as patched:
        patched.setattr(SealedTest, "open", closed)
        with pytest.raises(Sealed):
            search(config, results=tmp_path)
    certified = json.loads((tmp_path / "s" / "certification.json").read_text())
    assert certified["opened"] == 1 and not any(p["test"] for p in certified["points"])

    def stamps():
        return {p: p.stat().st_mtime_ns for p in tmp_path.glob("s/*/*/record.json")}

    before = stamps()
    monkeypatch.setattr(SealedTest, "open", lambda self: (openings.append(1), opened(self))[1])
    result = search(config, results=tmp_path)
    assert openings == [1], "once for winners, their seeds and the dense model"
    assert before.items() <= stamps().items(), "nothing is trained again"
    if all(a.verdict != "ambiguous" for a in result.answers.budgets):
        assert before == stamps(), "an open answer is timed again, and another winner has seeds of its own; no other"
    if result.exit_code == 0:  # so little training may meet no budget
        (budget,) = result.document["budgets"]
        seeds = budget["seeds"]
        assert seeds["n"] == 2 and seeds["split"] == "test" and len(set(seeds["values"])) > 1
        assert seeds["lower"] <= seeds["mean"] <= seeds["upper"]
        # so few rounds may let the certificate overrule the expected winner: then both have seeds
        finalists = result.full_document["finalists"]
        architectures = {f["number"]: f["architecture"] for f in finalists}
        own = [f for f in finalists if architectures[f["number"]] == budget["architecture"]]
        (exported,) = [f for f in own if f["exported"]]
        assert exported["meets"] == ["80%"]
        assert exported["test"] == budget["quality"] and exported["seed"] == seeds["exported_seed"]
        assert exported == max(own, key=lambda f: (len(f["meets"]), f["validation"]))
        again = [f["train_s"] for f in own if f["seed"] != 0]
        assert len(again) == 1 and min(again) > 0
