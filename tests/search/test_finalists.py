"""Winners trained again with other seeds: resumable, accounted, exported by validation, no part of the search."""

import json

import optuna
import pytest

from nash_search import intervals
from nash_search.config import LatencyBudget
from nash_search.report import exports, load
from nash_search.results import Terms
from nash_search.search import certify, finalists
from tests.search.test_candidates import trial
from tests.synthetic_evaluator import SyntheticEvaluator


def budgets_of(result):
    return [b for b in result.document["budgets"] if b["verdict"] == "met"]


def rows_of(result):
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{result.folder}/study.db")
    return [(t.number, t.params, t.values) for t in study.trials]


def test_quality_is_a_mean_over_seeds_and_validation_decides_which_is_exported(rehearse):
    result = rehearse(trials=10, finalist_seeds=3)
    assert len(budgets_of(result)) == 2
    certified = certify.read(result.folder)
    exports.write_cards(result.folder, load.load(result.folder))
    cards = {p.key: (result.folder / p.checkpoint / "README.md").read_text() for p in certified.points}
    for budget in budgets_of(result):
        seeds = budget["seeds"]
        (point,) = [p for p in certified.points if str(result.folder / p.checkpoint) == budget["checkpoint"]]
        assert [t.seed for t in point.seeds] == [0, 1, 2] and seeds["n"] == 3 and seeds["split"] == "test"
        best = max(point.seeds, key=lambda t: t.validation.value)
        assert (seeds["exported_seed"], point.key, point.validation) == (best.seed, best.key, best.validation)
        assert budget["quality"] == best.test.value, "the number of what is exported, not of the best on test"
        assert seeds["values"] == [t.test.value for t in point.seeds]
        assert seeds["mean"] == pytest.approx(sum(seeds["values"]) / 3)
        assert (seeds["lower"], seeds["upper"]) == intervals.mean_bounds(seeds["values"])
        assert (result.folder / "best" / f"{budget['asked'][:-1]}pct" / "seed").read_text() == str(best.seed)
        assert (result.folder / point.checkpoint / "seed").read_text() == str(best.seed)
        assert f"seed {best.seed}, the best on validation" in cards[best.key]
        assert "Trained with 3 seeds (0, 1, 2), test quality is" in cards[best.key]
    full = json.loads((result.folder / "summary.json").read_text())
    assert full["sealed_test_openings"] == 1
    trained = len([f for f in full["finalists"] if f["seed"] != 0])
    assert trained == len(list((result.folder / "finalists").iterdir())) == 4
    assert len({(f["number"], f["seed"]) for f in full["finalists"]}) == 6 == trained + 2


def test_finalists_are_no_trials_and_move_no_sampler(rehearse, tmp_path):
    rehearse(trials=10, finalist_seeds=3, results=tmp_path / "a")
    parts = rehearse(trials=12, finalist_seeds=2, results=tmp_path / "a")
    plain = rehearse(trials=12, results=tmp_path / "b")
    assert rows_of(parts) == rows_of(plain)
    assert parts.document["trials"] == plain.document["trials"]
    assert [b["seeds"] for b in plain.document["budgets"]] == [None, None]


def test_training_seconds_include_the_finalists(rehearse):
    plain = rehearse(trials=4, orders="trial_s=0.02").full_document["train_s"]
    full = rehearse(trials=4, orders="trial_s=0.02", finalist_seeds=3).full_document
    again = [f for f in full["finalists"] if f["seed"] != 0]
    assert len(again) == 4
    assert full["train_s"] == pytest.approx(plain + 4 * 0.02) == pytest.approx(plain + sum(f["train_s"] for f in again))


def test_an_interrupted_finalist_continues_and_none_is_trained_twice(rehearse, monkeypatch):
    train, seen = SyntheticEvaluator.train, []

    def counted(self, job, scratch, hooks):
        if job.finalist:
            seen.append(job.key)
            if len(seen) == 3:
                raise KeyboardInterrupt
        return train(self, job, scratch, hooks)

    monkeypatch.setattr(SyntheticEvaluator, "train", counted)
    with pytest.raises(KeyboardInterrupt):
        rehearse(trials=10, finalist_seeds=3)
    result = rehearse(trials=10, finalist_seeds=3)
    assert len(seen) == 5 and len(set(seen)) == 4 and seen[2] == seen[3]
    before = result.document["front"]
    again = rehearse(trials=10, finalist_seeds=3)
    assert len(seen) == 5 and again.document["front"] == before
    assert again.full_document["sealed_test_openings"] == 1
    assert not [p.name for p in (result.folder / "finalists").iterdir() if p.name.startswith(".")]


def test_a_finalist_that_fails_gets_one_more_try_and_the_others_are_the_answer(rehearse, monkeypatch, notebook):
    train, tries = SyntheticEvaluator.train, []

    def failing(self, job, scratch, hooks):
        if job.seed == 1:
            tries.append(job.key)
            raise MemoryError("ordered")
        return train(self, job, scratch, hooks)

    monkeypatch.setattr(SyntheticEvaluator, "train", failing)
    result = rehearse(trials=4, finalist_seeds=3)
    assert len(tries) == 2 * len(set(tries)) == 4
    assert [b["seeds"]["n"] for b in budgets_of(result)] == [2, 2]
    said = [detail for stage, detail in notebook.stages if stage == "finalist"]
    assert [d["failure"] for d in said if d["seed"] == 1] == ["oom"] * 4


def test_an_open_answer_is_timed_again_and_a_new_winner_has_its_seeds(rehearse, monkeypatch):
    time_fresh = SyntheticEvaluator.time_fresh

    def slowed(factors_of):
        def timed(self, folders, budgets, **timing):
            found = time_fresh(self, folders, budgets, **timing | {"before": {}})  # wild rounds pooled decide nothing
            return {name: with_factors(latency, factors_of(name)) for name, latency in found.items()}

        return timed

    def with_factors(latency, factors):
        pairs = zip(latency.rounds, factors, strict=False)
        rounds = [r.model_copy(update={"runs_ms": tuple(ms * factor for ms in r.runs_ms)}) for r, factor in pairs]
        return latency.model_copy(update={"rounds": tuple(rounds)})

    def seeds_trained():
        return {p: p.stat().st_mtime_ns for p in first.folder.glob("finalists/*/record.json")}

    monkeypatch.setattr(SyntheticEvaluator, "time_fresh", slowed(lambda name: (0.1, 10, 0.1, 10, 1)))
    first = rehearse(trials=10, finalist_seeds=2)
    assert {b["verdict"] for b in first.document["budgets"]} == {"ambiguous"}
    before = seeds_trained()
    own = tuple(p.parent.name.partition("-")[0] for p in before)
    monkeypatch.setattr(SyntheticEvaluator, "time_fresh", slowed(lambda name: (1 + name.startswith(own),) * 5))
    again = rehearse(trials=10, finalist_seeds=2)
    assert len(budgets_of(again)) == 2 and [b["seeds"]["n"] for b in budgets_of(again)] == [2, 2]
    assert before.items() < seeds_trained().items(), "one more winner at least; what was trained stays as it is"


def test_a_certificate_is_asked_of_the_few_best_near_a_budget_and_overrules_their_own_clock():
    half = LatencyBudget.parse("50%")
    terms = Terms(budgets=(half,), dense_ms=100.0, floor_share=0.1)
    shares = [(0, 0.30, 70), (1, 0.40, 80), (2, 0.47, 85), (3, 0.505, 88), (4, 0.52, 86), (5, 0.49, 79), (6, 0.46, 84)]
    records = [trial(*row, checkpoint=f"trials/t{row[0]}/weights") for row in shares]
    asked = finalists.undecided(records, terms)
    assert [r.number for r in asked] == [3, 4, 2], "the best three; 5 is worse than 1, which meets it for certain"
    assert [r.number for r in finalists.expected_winners(records, terms)] == [2]
    fresh = {f"t{n}": trial(n, share, 0).latency for n, share in [(3, 0.48), (4, 0.51), (2, 0.47)]}
    twice = {k: v.model_copy(update={"rounds": v.rounds * 2, "fresh": True}) for k, v in fresh.items()}
    assert [r.number for r in finalists.expected_winners(records, terms, twice)] == [3]
