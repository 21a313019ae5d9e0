"""The studies' table of trainings: paired differences in closed form, and a killed study goes on."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent / "studies"))

from trainings import Arm, Line, architecture, difference, read, seed_deviation, trained


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


def test_the_deviation_between_seeds_is_pooled_over_cells():
    cells = [[line([1, 2]), line([3, 4])], [line([0, 0]), line([0, 2]), line([2, 2])]]
    qualities = [[85.0, 65.0], [100.0, 90.0, 80.0]]
    squares = sum(np.var(q) * len(q) for q in qualities)
    assert seed_deviation(cells) == (pytest.approx((squares / 3) ** 0.5), 3)


@pytest.mark.slow
def test_a_study_trains_only_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    arms = [Arm(name="nash", architecture=architecture(2, 30, "uniform"), seed=seed) for seed in (0, 1)]
    arms.append(Arm(name="scratch", architecture=architecture(2, 30, "uniform"), scratch=True))
    path = tmp_path / "lines.jsonl"
    first = trained(arms[:1], path, config="smoke")
    with path.open("a") as file:
        file.write('{"key": "cut sho')  # a kill
    found = trained(arms, path, config="smoke")
    assert first.items() <= found.items() and read(path) == found
    assert len({f.errors for f in found.values()}) == 3 and all(len(f.errors) == 48 for f in found.values())
