"""Before anything is spent: budgets below the floor, and a study that belongs to another question."""

import json

import pytest

from nash_search.config import LatencyBudget, SearchConfig
from nash_search.config_loader import load_config
from nash_search.errors import InvalidInput, StorageDamaged
from tests.search.test_run import KEYS


def test_budgets_below_the_floor_train_nothing_and_name_the_floor(rehearse, notebook):
    result = rehearse(budgets=(LatencyBudget.parse("10%"), LatencyBudget.parse("20ms")))
    assert result.exit_code == 3 and notebook.trials == []
    assert [b["verdict"] for b in result.document["budgets"]] == ["infeasible", "infeasible"]
    assert result.document["budgets"][0]["floor_ms"] == pytest.approx(27.6, abs=0.5)
    assert result.document["trials"] == {"complete": 0, "stopped": 0, "infeasible": 0, "failed": 0}
    assert not (result.folder / "study.db").exists()
    assert set(result.document) == KEYS


def test_a_study_without_its_folder_is_refused_in_one_line(rehearse):
    result = rehearse(trials=2)
    (result.folder / "probe.json").unlink()
    with pytest.raises(StorageDamaged, match="study s must have its folder, but .* has no probe.json"):
        rehearse(trials=3)


def test_a_study_whose_database_is_elsewhere_is_not_begun_anew(rehearse, notebook):
    result = rehearse(trials=2)
    for path in result.folder.glob("study.db*"):
        path.unlink()
    before = (result.folder / "probe.json").read_bytes()
    with pytest.raises(StorageDamaged, match="must have its database.*set NASH_SEARCH_STORAGE"):
        rehearse(trials=2)
    assert not (result.folder / "study.db").exists() and (result.folder / "probe.json").read_bytes() == before


def test_a_study_of_a_retired_sampler_is_read_and_its_continuation_refused_in_one_line(rehearse, monkeypatch):
    asked = SearchConfig.question
    monkeypatch.setattr(SearchConfig, "question", lambda self: asked(self) | {"sampler": "nsga2"})
    folder = rehearse(trials=1, sampler="gp").folder
    monkeypatch.undo()
    stored = json.loads((folder / "config.json").read_text()) | {"sampler": "nsga2"}
    assert SearchConfig.stored(json.dumps(stored)).sampler == "gp"
    with pytest.raises(InvalidInput, match='sampler: "nsga2" -> "gp"'):
        rehearse(trials=2, sampler="gp")
    with pytest.raises(InvalidInput, match="sampler must be 'gp', 'tpe', 'random' or 'grid', but got 'nsga2'"):
        load_config(None, {"sampler": "nsga2"})
