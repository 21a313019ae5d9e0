"""The studies' table of trainings: paired differences in closed form, and a killed study goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from scipy import stats

from experiments.baselines import fronts
from experiments.shared.trainings import (
    Arm,
    Line,
    Setting,
    architecture,
    difference,
    influence,
    read,
    seed_deviation,
    trained,
)
from tests.patience import NEVER_S

ROOT = Path(__file__).parents[2]


def line(errors, seed=0):
    arm = Arm(name="a", architecture=architecture(2, 30), seed=seed)
    size = 10 * len(errors)
    return Line(
        key=arm.key, arm=arm, quality=100 - 100 * sum(errors) / size, errors=tuple(errors), size=size,
        heads=(1,), neurons=(1,), parameters=1, train_s=1.0,
    )  # fmt: skip


def test_a_difference_is_paired_by_example_and_knows_both_sources_of_noise():
    random = np.random.default_rng(0)
    ours = [random.integers(0, 5, 400) for _ in range(3)]
    theirs = [o + random.integers(0, 2, 400) for o in ours]
    mean, low, high = difference([line(o) for o in ours], [line(t) for t in theirs], deviation=0.3, freedom=4)
    change = 10.0 * (np.mean(theirs, axis=0) - np.mean(ours, axis=0))
    assert mean == pytest.approx(change.mean())
    half = stats.t.ppf(0.975, 4) * np.sqrt(change.var(ddof=1) / 400 + 0.09 * 2 / 3)
    assert (low, high) == (pytest.approx(mean - half), pytest.approx(mean + half))


def test_what_an_example_adds_is_its_own_score_where_the_metric_is_a_mean_and_a_linear_term_where_it_is_not():
    random = np.random.default_rng(0)
    rows_NK = np.stack([random.integers(0, 5, 300), random.integers(5, 20, 300)], axis=1).astype(float)
    ones_NK = np.stack([rows_NK[:, 0], np.ones(300)], axis=1)

    def share(total):
        return 100 - 100 * total[0] / total[1]

    assert influence(ones_NK, share) == pytest.approx(100 - 100 * rows_NK[:, 0])
    rate = rows_NK[:, 0].sum() / rows_NK[:, 1].sum()
    linear = share(rows_NK.sum(0)) - 100 * (rows_NK[:, 0] - rate * rows_NK[:, 1]) / rows_NK[:, 1].mean()
    assert influence(rows_NK, share) == pytest.approx(linear, abs=2)  # the ratio's own curvature, 1/N


def test_a_difference_in_another_metric_is_paired_by_what_the_examples_add():
    arm = Arm(name="a", architecture=architecture(2, 30))
    words = {"key": arm.key, "arm": arm, "heads": (1,), "neurons": (1,), "parameters": 1, "train_s": 1.0}
    ours, theirs = ([Line(quality=q, influence=i, **words)] for q, i in ((30.0, (20.0, 40.1)), (28.0, (19.0, 37.0))))
    mean, low, high = difference(ours, theirs, deviation=0.0, freedom=4)
    assert mean == 2.0 and (low + high) / 2 == pytest.approx(2.0)
    assert high - mean == pytest.approx(stats.t.ppf(0.975, 4) * np.sqrt(np.var([1.0, 3.1], ddof=1) / 2))


def test_the_deviation_between_seeds_is_pooled_over_cells():
    cells = [[line([1, 2]), line([3, 4])], [line([0, 0]), line([0, 2]), line([2, 2])]]
    qualities = [[85.0, 65.0], [100.0, 90.0, 80.0]]
    squares = sum(np.var(q) * len(q) for q in qualities)
    assert seed_deviation(cells) == (pytest.approx((squares / 3) ** 0.5), 3)


def test_fronts_are_compared_at_equal_latency_with_the_best_that_is_as_fast():
    sft = {(2, 0, "sft"): [line([2, 2])], (3, 0, "sft"): [line([1, 0])]}
    nash = {(2, 0, "grid"): [line([2, 1])], (2, 50, "grid"): [line([4, 4])], (3, 0, "grid"): [line([0, 0])]}
    share = {(2, 0, "sft"): 0.5, (3, 0, "sft"): 0.7, (2, 0, "grid"): 0.5, (2, 50, "grid"): 0.4, (3, 0, "grid"): 0.7}
    two, three = fronts(sft, nash, share, deviation=0.1, freedom=4)
    assert two["nash"] == (2, 0) and two["nash_minus"][0] == pytest.approx(5)
    assert three["nash"] == (3, 0) and three["nash_minus"][0] == pytest.approx(5)


def test_a_setting_changes_only_the_fields_it_names():
    task = Setting(config="multi30k-en-de", task={"data": "elsewhere", "source_column": "source"}).configured().task
    assert (task.data, task.source_column) == ("elsewhere", "source")
    assert (task.name, task.metric, task.max_input_tokens) == ("multi30k-en-de", "bleu", 64)


@pytest.mark.slow
def test_a_killed_study_takes_its_workers_along(tmp_path):
    code = (
        "from pathlib import Path; from experiments.shared.trainings import Arm, Setting, architecture, trained\n"
        "if __name__ == '__main__':\n"
        "    short, long = ({'tune_steps': steps} for steps in (4, 10**6))\n"
        "    changes = (short, long, long | {'narrow_steps': 5})\n"
        "    arms = [Arm(name='a', architecture=architecture(2, 30), changes=c) for c in changes]\n"
        "    trained(arms, Path('lines.jsonl'), Setting(config='smoke'))\n"
    )
    (tmp_path / "study.py").write_text(code)
    study = subprocess.Popen([sys.executable, "study.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    lines = tmp_path / "lines.jsonl"
    while not (lines.exists() and lines.read_text()):
        assert study.poll() is None
        time.sleep(0.1)
    workers = psutil.Process(study.pid).children(recursive=True)
    assert len(workers) >= 2
    study.kill()
    study.wait()
    _, alive = psutil.wait_procs(workers, timeout=NEVER_S)
    assert not alive


@pytest.mark.slow
def test_a_study_trains_only_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    arms = [Arm(name="nash", architecture=architecture(2, 30, "uniform"), seed=seed) for seed in (0, 1)]
    arms.append(Arm(name="scratch", architecture=architecture(2, 30, "uniform"), scratch=True))
    path = tmp_path / "lines.jsonl"
    first = trained(arms[:1], path, Setting(config="smoke"))
    with path.open("a") as file:
        file.write('{"key": "cut sho')  # a kill
    found = trained(arms, path, Setting(config="smoke"))
    assert first.items() <= found.items() and read(path) == found
    assert len({f.errors for f in found.values()}) == 3 and all(len(f.errors) == 48 for f in found.values())
    other = found[arms[0].key].recipe.model_copy(update={"batch_size": 7})
    path.write_text(found[arms[0].key].model_copy(update={"recipe": other}).model_dump_json() + "\n")
    (again,) = trained(arms[:1], path, Setting(config="smoke")).values()
    assert again.recipe == found[arms[0].key].recipe and again.errors == found[arms[0].key].errors
    assert len(path.read_text().splitlines()) == 2, "what another recipe trained is trained again"
