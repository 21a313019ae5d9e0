"""The whole search on the analytic evaluator, in this process."""

import json
from pathlib import Path

import pandas as pd
import pytest

from nash_search.config import Architecture, LatencyBudget
from nash_search.search.pick import pick
from tests.synthetic_evaluator import SyntheticEvaluator

KEYS = {
    "study", "task", "device", "workload", "dense", "budgets", "front", "trials", "hypervolume", "elapsed_s",
    "data",
    "engines",
}  # fmt: skip
BUDGET_KEYS = {
    "asked", "budget_ms", "floor_ms", "verdict", "latency_ms", "upper_ms", "speedup", "quality", "quality_split",
    "checkpoint", "architecture",
}  # fmt: skip


def test_the_document_holds_what_is_promised(rehearse, notebook):
    result = rehearse(trials=10)
    document = json.loads(json.dumps(result.document, allow_nan=False))
    assert set(document) == KEYS and result.exit_code == 0
    assert set(document["workload"]) == {
        "batch_size", "input_tokens", "output_tokens", "beams", "dtype", "threads", "runtime"
    }  # fmt: skip
    assert set(document["dense"]) == {"latency_ms", "quality", "quality_split", "checkpoint"}
    assert document["dense"]["quality_split"] == "test"
    for budget in document["budgets"]:
        assert BUDGET_KEYS <= set(budget) and budget["verdict"] == "met"
        assert budget["upper_ms"] <= budget["budget_ms"] and budget["quality_split"] == "test"
        assert budget["speedup"] == pytest.approx(document["dense"]["latency_ms"] / budget["latency_ms"], rel=1e-6)
    counts = document["trials"]
    assert counts["complete"] + counts["stopped"] == 10 and counts["infeasible"] == 1  # the dense model
    files = {"trials.csv", "front.csv", "front.json", "summary.json", "study.db", "config.json", "probe.json"}
    assert files <= {p.name for p in result.folder.iterdir()}
    assert [s for s, _ in notebook.stages][:4] == ["workload", "probe", "plan", "search"]
    assert notebook.stages[-1][0] == "done"
    assert notebook.states[-1].trained == 10 and notebook.states[-1].eta_s == 0


def test_the_driver_leaves_the_device_to_its_workers_and_workers_keep_model_and_data(rehearse, monkeypatch):
    from nash_search.search import ray_runner, serial_runner

    log = []
    monkeypatch.setattr(SyntheticEvaluator, "release", lambda evaluator: log.append("release"))

    def beside(jobs, folder, interruption):
        log.append("workers")
        serial_runner.run(jobs, interruption)

    monkeypatch.setattr(ray_runner, "run", beside)
    rehearse(trials=2, serial=False, finish_steps=100)
    assert log[:2] == ["release", "workers"] and log.count("release") == log.count("workers") >= 2


def test_the_winner_is_the_best_certified_quality_under_each_budget(rehearse):
    result = rehearse(trials=14)
    for asked in ("70%", "50%", "35%"):
        met = [p for p in result.front if p.verdict(LatencyBudget.parse(asked)) == "met"]
        best = max(met, key=lambda p: p.validation.value)
        assert result.best_under(asked) == best
        assert pick(result.folder, LatencyBudget.parse(asked)).budgets[0].checkpoint.endswith(best.checkpoint)
    assert result.best_under("20%") is None
    assert (result.folder / "best" / "50pct" / "model.json").exists()
    winner = Architecture.model_validate_json((result.folder / "best" / "50pct" / "model.json").read_bytes())
    assert winner == result.best_under("50%").architecture


def test_the_front_is_exported_and_dominated_weights_are_dropped(rehearse):
    result = rehearse(trials=12)
    exported = {p.name for p in (result.folder / "checkpoints").iterdir()}
    assert exported == {p.checkpoint.split("/")[1] for p in result.front}
    kept = {p.parent.name for p in (result.folder / "trials").glob("*/weights")}
    assert kept >= {p.key for p in result.front}
    assert len(kept) < len(list((result.folder / "trials").iterdir()))
    summary = json.loads((result.folder / "summary.json").read_text())
    assert summary["sealed_test_openings"] == 1  # for two winners and the dense model
    trials = pd.read_csv(result.folder / "trials.csv")
    assert len(trials) == 13 and trials.status.value_counts()["infeasible"] == 1


def test_one_feasible_budget_is_an_answer(rehearse):
    result = rehearse(trials=3, budgets=(LatencyBudget.parse("70%"), LatencyBudget.parse("10%")))
    assert result.exit_code == 0
    assert [b["verdict"] for b in result.document["budgets"]] == ["met", "infeasible"]


def test_the_same_command_finds_its_study_again_and_more_trials_go_on(rehearse, notebook):
    first = rehearse(trials=4)
    before = len(notebook.trials)
    again = rehearse(trials=4)
    assert len(notebook.trials) == before and again.document["front"] == first.document["front"]
    assert not [s for s, _ in notebook.stages[-6:] if s in ("probe", "test", "certify")], "nothing is measured again"
    rehearse(trials=6)
    assert len(notebook.trials) == before + 2
    tighter = rehearse(trials=6, budgets=(LatencyBudget.parse("60%"),))
    assert tighter.document["budgets"][0]["asked"] == "60%"


def test_max_drop_is_a_quality_floor_for_every_answer(rehearse):
    result = rehearse(trials=10, max_drop_pct=6.0)
    limit = result.quality_floor
    assert limit == pytest.approx(92.29 * 0.94, abs=0.1)
    verdicts = {b["asked"]: (b["verdict"], b["quality"]) for b in result.document["budgets"]}
    assert verdicts["70%"][0] == "met" and verdicts["50%"][0] == "infeasible"


def test_a_profile_scales_trials_and_steps_and_so_asks_another_question():
    from nash_search.config import SearchConfig

    balanced = SearchConfig(trials=8)
    thorough, quick = balanced.profiled("thorough"), balanced.profiled("quick")
    assert (quick.trials, balanced.trials, thorough.trials) == (4, 8, 24)
    assert thorough.recipe.tune_steps == 3 * balanced.recipe.tune_steps
    assert balanced.profiled("balanced") == balanced
    assert thorough.question_hash != balanced.question_hash != quick.question_hash
    assert balanced.profiled("thorough", keep_trials=True).trials == 8


def test_training_and_device_time_are_accounted_for(rehearse):
    full = rehearse(trials=4, orders="trial_s=0.05", finalist_seeds=2).full_document
    table = pd.read_csv(Path(full["front"][0]["checkpoint"]).parents[1] / "trials.csv")
    assert full["device_s"] == pytest.approx(table["device_s"].sum()) and full["device_s"] > full["train_s"] / 2
    assert full["train_steps"] == table["train_steps"].sum() + sum(f["train_steps"] for f in full["finalists"][1::2])
