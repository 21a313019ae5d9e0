"""The replay is faithful: on a table of the analytic evaluator it does what a search there does."""

from pathlib import Path

import pytest

from experiments.shared import replay
from nash_search.config import LatencyBudget, SearchConfig, SearchSpace
from nash_search.files import sqlite_url
from nash_search.latency_table import LatencyTable
from nash_search.search import sampler
from nash_search.storage.study import Study, open_storage

BUDGETS = (LatencyBudget.parse("70%"), LatencyBudget.parse("50%"))
BEFORE = {8: 98.48, 16: 99.73}
"""Percent of the feasible architectures' hypervolume after so many trials."""
SPACE = SearchSpace(encoder_sparsity_pct=(0, 80, 20))


@pytest.fixture(scope="module")
def table(rehearse_once, tmp_path_factory):
    result = rehearse_once(
        trials=500,
        sampler="grid",
        budgets=(LatencyBudget.parse("100%"),),
        search_space=SPACE,
        orders="trial_s=0.001",
    )
    study = Study(open_storage(sqlite_url(result.folder / "study.db")), "s", result.folder, None)
    known = LatencyTable.model_validate_json((result.folder / "probe.json").read_bytes())
    found = replay.table_of(study.records(), known, study.facts, 500)
    study.close()
    file = tmp_path_factory.mktemp("table") / "table.json.gz"
    replay.write(found, file)
    assert replay.read(file) == found
    return found


def test_a_replayed_search_trains_the_same_architectures_as_a_real_one(table, rehearse, notebook):
    before = len(notebook.trials)
    config = SearchConfig(budgets=BUDGETS, trials=9, sampler="tpe")
    progress = replay.replay(table, config, seed=0)
    real = rehearse(trials=9, search_space=SPACE, study="other")
    assert real.document["trials"]["complete"] == 9 == len(progress)
    trained = notebook.trials[before + 1 :]
    shares = {e.architecture: e for e in table.entries}
    seen = [shares[r.architecture] for r in trained]
    assert progress[-1].hypervolume == pytest.approx(table.hypervolume(seen), rel=0.02)


def test_whole_grid_is_the_limit_of_every_strategy(table):
    limit = table.hypervolume(table.within(0.7))
    config = SearchConfig(budgets=BUDGETS, trials=500, sampler="tpe")
    assert replay.replay(table, config, seed=1)[-1].hypervolume == pytest.approx(limit, rel=0.02)
    random = replay.at_random(table, 0.7, seed=1)
    assert random[-1].hypervolume == pytest.approx(limit)
    assert [p.train_s for p in random] == sorted(p.train_s for p in random)
    assert replay.seconds_to(random, limit * 2) is None


@pytest.mark.slow
@pytest.mark.parametrize(("trials", "anchors"), [(8, 4), (16, 5)])
def test_the_sampler_finds_no_less_than_chance_did(monkeypatch, trials, anchors):
    """On the trained grid; `BEFORE` are means of 20 seeds when a proposal that was taken was replaced by chance."""
    table = replay.read(Path(__file__).parents[2] / "results" / "search-strategies" / "search-table.json.gz")
    limit = table.hypervolume(table.within(0.7))
    proposed = []
    ask = Study.ask

    def counted(self, sampler):
        proposed.append(sampler._planned is not None)
        return ask(self, sampler)

    monkeypatch.setattr(Study, "ask", counted)
    monkeypatch.setattr(sampler.np.random, "default_rng", lambda *a: pytest.fail("left to chance"))
    config = SearchConfig(budgets=BUDGETS, trials=trials)
    progress = replay.replay(table, config, seed=0)
    assert proposed == [True] * anchors + [False] * (trials - anchors), "the sampler's are all but the anchors"
    assert all(100 * progress[n - 1].hypervolume / limit >= BEFORE[n] for n in (8, trials))


def test_a_ratio_comes_with_its_interval():
    ratio, low, high = replay.ratio_bounds([10, 11, 12], [40, 44, 48])
    assert low <= ratio == 4 <= high
