"""Each budget's winner is trained at length before it is certified; validation chooses between it and the short one."""

import io
import json

import pytest
from rich.console import Console

from nash_search.cli.studies import picked
from nash_search.config import LatencyBudget
from nash_search.report import exports, load, markdown, page, text
from nash_search.search import certify, finalists, run
from nash_search.search.pick import pick
from nash_search.trial import cost
from tests.synthetic_evaluator import SyntheticEvaluator

STEPS = 1800


def budgets_of(result):
    return [b for b in result.document["budgets"] if b["verdict"] == "met"]


def printed(answer):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(answer)
    return console.export_text()


def trained_steps(folder):
    """Of every finished training in the study, by its folder's name."""
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("finalists/*/record.json"))]
    return [(r["finish_steps"], sum(stage["steps"] for stage in r["stages"].values())) for r in records]


def test_the_answer_is_the_model_that_was_trained_at_length(rehearse):
    short = rehearse(trials=10, study="short")
    long = rehearse(trials=10, study="long", finish_steps=STEPS)
    assert trained_steps(long.folder) == [(STEPS, STEPS)] * 2, "one model per budget"
    assert not (short.folder / "finalists").exists()
    certified = {p.key: p for p in certify.read(long.folder).points}
    for before, after in zip(budgets_of(short), budgets_of(long), strict=True):
        assert after["architecture"] == before["architecture"] and after["quality"] > before["quality"] + 1
        (point,) = [p for p in certified.values() if str(long.folder / p.checkpoint) == after["checkpoint"]]
        assert point.finish_steps == STEPS and point.key.endswith(f"-0-{STEPS}")
        assert point.searched.value == pytest.approx(point.validation.value - 2), "the search's own number is kept"
        assert after["seeds"] is None, "a short and a long training are no two seeds"
    assert long.document["trials"] == short.document["trials"], "a finish is no trial"
    assert long.full_document["sealed_test_openings"] == 1


def test_a_limit_on_the_lost_quality_is_asked_of_the_answer_not_of_the_short_training_before_it(rehearse):
    """Every short training lies below the floor; at length the winners rise above it (the fault: all infeasible)."""
    dense = 92.6
    short = rehearse(trials=10, study="short")
    best = max(b["quality"] for b in budgets_of(short))
    drop = 100 * (1 - (best + 1) / dense)
    assert not budgets_of(rehearse(trials=10, study="limited", max_drop_pct=drop))
    long = rehearse(trials=10, study="long", max_drop_pct=drop, finish_steps=STEPS)
    found = budgets_of(long)
    assert found and all(b["finish_steps"] == STEPS for b in found)
    assert all(b["quality"] >= dense * (1 - drop / 100) - 0.5 for b in found)


def test_a_pick_that_was_not_trained_at_length_offers_to_even_where_a_limit_shuts_it_out(rehearse):
    wide = rehearse(trials=10, budgets=(LatencyBudget.parse("70%"),), finish_steps=STEPS)
    tight = LatencyBudget.parse("45%")
    [found] = pick(wide.folder, tight).budgets
    assert found.verdict == "met" and not found.finish_steps
    assert found.finish == f"nash-search resume {wide.folder} --budget-ms 45%"
    [shut] = pick(wide.folder, tight, limits={"max_drop_pct": 1.0}).budgets
    assert shut.verdict == "infeasible" and shut.finish == found.finish
    assert f"{found.finish} trains it at length and certifies it" in picked(wide.summary, shut)[-1]
    [done] = pick(wide.folder, LatencyBudget.parse("70%")).budgets
    assert done.finish == "" and done.finish_steps == STEPS
    short = rehearse(trials=10, study="short", finish_steps=0)
    assert pick(short.folder, tight).budgets[0].finish == "", "at length was not asked for"


def test_validation_chooses_the_short_model_where_the_long_one_is_worse(rehearse, monkeypatch):
    train = SyntheticEvaluator.train

    def spoilt(self, job, scratch, hooks):
        record = train(self, job, scratch, hooks)
        if not job.finish_steps:
            return record
        return record.model_copy(update={"quality": record.quality.model_copy(update={"value": 50.0})})

    monkeypatch.setattr(SyntheticEvaluator, "train", spoilt)
    result = rehearse(trials=10, finish_steps=STEPS)
    for budget in budgets_of(result):
        (point,) = [
            p for p in certify.read(result.folder).points if str(result.folder / p.checkpoint) == budget["checkpoint"]
        ]
        assert point.finish_steps == 0 and [t.finish_steps for t in point.seeds] == [0, STEPS]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("ordered"),
        *(
            pytest.param(e, marks=pytest.mark.slow)
            for e in (OSError(28, "No space left on device"), RuntimeError("ours"))
        ),
    ],
)
def test_a_finish_that_fails_leaves_the_short_answer_standing(rehearse, monkeypatch, error):
    train = SyntheticEvaluator.train

    def failing(self, job, scratch, hooks):
        if job.finish_steps:
            raise error
        return train(self, job, scratch, hooks)

    short = rehearse(trials=10, study="short")
    with monkeypatch.context() as patched:
        patched.setattr(SyntheticEvaluator, "train", failing)
        result = rehearse(trials=10, finish_steps=STEPS)
    assert result.exit_code == 0
    assert [b["quality"] for b in budgets_of(result)] == [b["quality"] for b in budgets_of(short)]
    again = rehearse(trials=10, finish_steps=STEPS)
    assert all(b["quality"] > s["quality"] + 1 for b, s in zip(budgets_of(again), budgets_of(short), strict=True))


def test_a_killed_finish_goes_on_and_none_is_trained_twice(rehearse, monkeypatch):
    train, seen = SyntheticEvaluator.train, []

    def counted(self, job, scratch, hooks):
        seen.append((job.key, job.finish_steps))
        if job.finish_steps and len([s for s in seen if s[1]]) == 2:
            raise KeyboardInterrupt
        return train(self, job, scratch, hooks)

    monkeypatch.setattr(SyntheticEvaluator, "train", counted)
    with pytest.raises(KeyboardInterrupt):
        rehearse(trials=10, finish_steps=STEPS)
    result = rehearse(trials=10, finish_steps=STEPS)
    finished = [key for key, steps in seen if steps]
    assert len(finished) == 3 and finished[1] == finished[2] and len(budgets_of(result)) == 2
    assert rehearse(trials=10, finish_steps=STEPS).document["front"] == result.document["front"]
    assert len([s for s in seen if s[1]]) == 3


def test_certificates_decide_which_architectures_are_trained_at_length(rehearse, notebook):
    result = rehearse(trials=6, finish_steps=STEPS)
    trained = {json.loads(p.read_text())["number"] for p in result.folder.glob("finalists/*/record.json")}
    winners = [p for p in certify.read(result.folder).points if p.finish_steps]
    assert {p.number for p in winners} == trained and len(trained) == 2, "trials' own clocks would have trained a third"
    said = [stage for stage, _ in notebook.stages if stage in ("certify", "finalists")]
    assert said == ["certify", "finalists", "certify"]
    assert not list((result.folder / "checkpoints").glob(".tmp-*"))
    notebook.stages.clear()
    assert rehearse(trials=6, finish_steps=STEPS).document["front"] == result.document["front"]
    assert not {"certify", "finalists"} & {stage for stage, _ in notebook.stages}, "a later start asks nothing again"


def test_what_certification_decides_otherwise_is_finished_too(rehearse, monkeypatch):
    monkeypatch.setattr(finalists, "undecided", lambda records, terms: [])
    monkeypatch.setattr(run, "unbeaten", lambda records, finished, budgets: records)
    result = rehearse(trials=6, finish_steps=STEPS)
    assert len(trained_steps(result.folder)) == 3, "the trials' own timings promised another winner of 70%"
    assert {p["finish_steps"] for p in budgets_of(result)} == {STEPS}


def test_a_budget_that_is_added_has_its_winner_finished_and_nothing_else_is_trained(rehearse):
    first = rehearse(trials=10, finish_steps=STEPS)
    before = {p.parent.name for p in first.folder.glob("finalists/*/record.json")}
    budgets = tuple(LatencyBudget.parse(b) for b in ("70%", "50%", "45%"))
    trials = len(list(first.folder.glob("trials/*/record.json")))
    again = rehearse(trials=10, finish_steps=STEPS, budgets=budgets)
    after = {p.parent.name for p in first.folder.glob("finalists/*/record.json")}
    assert before < after and len(after) == 3 and len(budgets_of(again)) == 3
    assert len(list(first.folder.glob("trials/*/record.json"))) == trials


def test_seeds_of_a_finalist_are_trained_at_length_too(rehearse):
    result = rehearse(trials=10, finish_steps=STEPS, finalist_seeds=3)
    assert trained_steps(result.folder) == [(STEPS, STEPS)] * 6
    for budget in budgets_of(result):
        assert budget["seeds"]["n"] == 3 and min(budget["seeds"]["values"]) > budget["quality"] - 1


def test_by_default_a_winner_takes_three_trials_steps_and_a_time_budget_cuts_it(rehearse):
    result = rehearse(trials=4, finish_steps=None)
    assert trained_steps(result.folder) == [(1800, 1800)] * 2
    hurried = rehearse(trials=100, finish_steps=None, study="hurried", orders="trial_s=0.5", time_budget_s=5.5)
    assert all(steps < 1800 for steps, _ in trained_steps(hurried.folder)), "less than three times, or not at all"


def test_a_search_that_ends_early_gives_its_winners_the_time_left_and_keeps_to_it(rehearse, notebook):
    asked = {"trials": 4, "finish_steps": None, "study": "ample", "time_budget_s": 3600.0}
    result = rehearse(**asked)
    longest = cost.LONGEST_TIMES * 600
    assert trained_steps(result.folder) == [(longest, longest)] * 2, "an hour for four trials of no time"
    (told,) = [detail for stage, detail in notebook.stages if stage == "plan"]
    assert told["finish"] == told["finish"] | {"steps": 1800, "most_steps": longest}, "said before it is spent"
    notebook.stages.clear()
    assert rehearse(**asked).document["front"] == result.document["front"]
    assert "finalists" not in {stage for stage, _ in notebook.stages}, "a later start has more time, and trains nothing"


def test_the_card_and_the_summary_tell_the_search_s_number_from_the_finished_one(rehearse):
    result = rehearse(trials=10, finish_steps=STEPS)
    view = load.load(result.folder)
    exports.write_cards(result.folder, view)
    for budget in budgets_of(result):
        assert budget["finish_steps"] == STEPS
        assert budget["searched_quality"] < budget["quality"]
        card = (result.folder / "best" / f"{budget['asked'][:-1]}pct" / "README.md").read_text()
        assert "1,800 optimizer steps" in card and "600 steps of the search" in card
    assert {p.record.finish_steps for p in view.picked} == {STEPS} and {p.record.finish_steps for p in view.points} == {
        0
    }
    assert "1,800 steps (600: " in markdown.render(view) and "1,800 steps (600: " in page.render(view)
    assert "1,800 steps (600: " in printed(text.answer(view))
    rows = json.loads((result.folder / "summary.json").read_text())["front"]
    assert {row["finish_steps"] for row in rows} == {0, STEPS}
