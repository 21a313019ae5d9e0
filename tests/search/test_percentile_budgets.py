"""A search whose budgets are percentiles over requests, on the analytic evaluator: every number has a closed form."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

from nash_search.budget import LatencyBudget
from nash_search.config import Architecture, SearchConfig
from nash_search.errors import InvalidInput
from nash_search.report import card, load, markdown, page, plots, text
from nash_search.report.plan_text import plan_lines
from nash_search.report.words import format_ms
from nash_search.results import Certification
from nash_search.search.pick import pick
from nash_search.search.remeasure import pairs_again
from nash_search.storage.facts import StudyFacts
from nash_search.storage.study import Study, open_storage
from nash_search.summaries import Plan
from nash_search.terms import Terms, Yardstick
from nash_search.workload import Workload
from tests.synthetic_evaluator import DENSE_MS, LAYERS, TRAFFIC, part_of

DENSE = Architecture(encoder_sparsity_pct=0, decoder_layers=LAYERS)


def budgets(*asked: str) -> dict[str, tuple[LatencyBudget, ...]]:
    return {"budgets": tuple(map(LatencyBudget.parse, asked))}


def percentile_ms(architecture: Architecture, percentile: float) -> float:
    """Over the whole traffic."""
    calls = [Workload(**request._asdict()) for request in TRAFFIC.requests]
    return DENSE_MS * float(np.percentile([part_of(architecture, call) for call in calls], percentile))


def share(architecture: Architecture, percentile: float) -> float:
    return percentile_ms(architecture, percentile) / percentile_ms(DENSE, percentile)


@pytest.fixture(scope="module")
def result(rehearse_once):
    return rehearse_once(trials=8, **budgets("55%@p95", "120@p99", "60%"))


def test_every_stage_speaks_of_the_first_budget_s_percentile_and_judges_each_at_its_own(result):
    summary = json.loads((result.folder / "summary.json").read_text())
    assert summary["percentile"] == 95 and set(summary["yardsticks"]) == {"50", "99"}
    assert summary["probe_dense_ms"] == pytest.approx(percentile_ms(DENSE, 95), rel=0.05)
    assert summary["yardsticks"]["99"]["dense_ms"] == pytest.approx(percentile_ms(DENSE, 99), rel=0.05)
    rows = {row["asked"]: row for row in summary["budgets"]}
    assert rows["120@p99"]["budget_ms"] == 120
    assert rows["55%@p95"]["budget_ms"] == pytest.approx(0.55 * percentile_ms(DENSE, 95), rel=0.05)
    for asked, at in (("55%@p95", 95), ("120@p99", 99), ("60%", 50)):
        assert rows[asked]["verdict"] == "met" and rows[asked]["upper_ms"] <= rows[asked]["budget_ms"]
        winner = Architecture.model_validate(rows[asked]["architecture"])
        assert rows[asked]["latency_ms"] == pytest.approx(percentile_ms(winner, at), rel=0.05)
        assert rows[asked]["speedup"] == pytest.approx(1 / share(winner, at), rel=0.03)
    for row in summary["front"]:
        point = Architecture.model_validate(row["architecture"])
        assert row["share"] == pytest.approx(share(point, 95), rel=0.03)
    assert (result.folder / "best" / "55pct-p95").is_dir() and (result.folder / "best" / "120ms-p99").is_dir()


def test_the_constraint_is_of_the_budget_that_admits_most_each_at_its_own_percentile(result):
    study = Study(open_storage(f"sqlite:///{result.folder / 'study.db'}"), "s", result.folder, None)
    facts: StudyFacts = study.facts
    assert facts.limits == {
        95: 0.55,
        99: pytest.approx(120 / percentile_ms(DENSE, 99), rel=0.05),
        50: 0.6,
    }
    trained = [row for row in study.trials() if row.state.name == "COMPLETE"]
    assert len(trained) >= 8
    for row, record in zip(trained, [r for r in study.records() if r.latency], strict=True):
        expected = min(share(record.architecture, at) / limit for at, limit in facts.limits.items()) - 1
        assert row.system_attrs["constraints"][0] == pytest.approx(expected, abs=0.06)
        assert row.values[0] == pytest.approx(percentile_ms(record.architecture, 95), rel=0.05)
        assert record.architecture == DENSE or expected < 0.06, "only what some budget admits is trained"
    study.close()


def test_the_certificate_has_as_many_requests_as_its_highest_percentile_needs_and_dense_answered_the_same(result):
    for point in Certification.stored(result.folder).points:
        assert point.latency.percentile == 95 and [len(r.runs_ms) for r in point.latency.rounds] == [78] * 5
        assert all(len(r.runs_ms) == len(r.dense_runs_ms) for r in point.latency.rounds)
        low, high = point.latency.ratio_bounds
        assert low <= share(point.architecture, 95) <= high
        assert pairs_again(point.latency) == 78, "timed again, p99 is bounded too"


def test_another_percentile_is_picked_from_the_same_samples(result):
    found = pick(result.folder, LatencyBudget.parse("80%@p90"))
    [row] = found.budgets
    assert row.verdict == "met" and row.asked == "80%@p90"
    assert row.budget_ms == pytest.approx(0.8 * percentile_ms(DENSE, 90), rel=0.05)
    assert row.latency_ms == pytest.approx(percentile_ms(row.architecture, 90), rel=0.05)
    [none] = pick(result.folder, LatencyBudget.parse("5%@p99")).budgets
    assert none.verdict == "infeasible" and none.nearest_feasible.endswith("%@p99")


def test_the_study_is_found_again_and_another_percentile_of_the_front_is_another_question(rehearse, notebook):
    asked = budgets("55%@p95", "70%")
    first = rehearse(trials=3, **asked)
    again = rehearse(trials=3, **asked)
    assert [r.number for r in first.front] == [r.number for r in again.front]
    assert json.loads((again.folder / "config.json").read_text())["budgets"][0]["percentile"] == 95
    with pytest.raises(InvalidInput, match="percentile: 95.0 -> 99.0"):
        rehearse(trials=3, **budgets("50%@p99"))
    with pytest.raises(InvalidInput, match="the loosest budget must stay within the study's 55.0% of the dense p95"):
        rehearse(trials=3, **budgets("65%@p95"))


def test_too_few_requests_are_refused_before_anything_is_written(rehearse, tmp_path):
    with pytest.raises(InvalidInput, match=r"p99 needs at least 390 requests, but got 5 rounds of 40 .--certify"):
        rehearse(**budgets("50%@p99"), certify_pairs=40)
    assert not (tmp_path / "s").exists()


def test_a_study_of_one_call_is_as_it_was():
    asked = SearchConfig(**budgets("50%"))
    assert not asked.of_requests and "traffic" not in asked.question()["workload"]
    named = SearchConfig(**budgets("50%@p95"))
    assert named.question()["workload"]["percentile"] == 95 and named.question_hash != asked.question_hash
    terms = Terms(budgets=asked.budgets, dense_ms=40.0, floor_share=0.2)
    assert terms.yardstick(asked.budgets[0]) == Yardstick(dense_ms=40.0, floor_share=0.2)


def test_every_report_names_the_percentile_and_the_page_draws_both_distributions(result):
    view = load.load(result.folder)
    drawn = plots.figures(view)["distribution"]
    [first, *picks] = drawn.data
    said = re.search(r"At p50, p95, p99: dense (.+?) ms; ", page.render(view))
    served = view.certified[0].latency
    assert said and said[1] == ", ".join(format_ms(served.at(p).dense_ms) for p in (50, 95, 99))
    assert first.name == "dense (390)" and 1 <= len(picks) <= 3
    answers = Certification.stored(result.folder).points[0].latency.rounds
    assert list(first.x) == sorted(x for r in answers for x in r.dense_runs_ms) and first.y[-1] == 100
    assert "How long requests take" in page.render(view) and "| p95 ms |" in markdown.render(view)
    for found in view.picks:  # a budget of another percentile stands at its share of the dense model's
        budget, dense_ms = LatencyBudget.parse(found.asked), view.summary.probe_dense_ms
        expected = budget.share_of(percentile_ms(DENSE, budget.percentile)) * dense_ms
        assert found.drawn_ms == pytest.approx(expected, rel=0.05)
    said = io.StringIO()
    Console(file=said, width=160).print(text.answer(view))
    assert (
        "55% at p95 (" in said.getvalue() and "120 ms at p99 met" in said.getvalue() and " p95 ms " in said.getvalue()
    )
    [winner] = {p.key: p for p in view.certified if p.number == view.picks[0].point.number}.values()
    told = card.card(view, card.Export(name="x", point=winner))
    assert "p95 latency over requests (n = 390) |" in told and "| p50 |" in told and "each of its own length" in told
    assert view.summary.front[0].to_json()["percentiles"]["99"]["share"] == pytest.approx(
        share(Architecture.model_validate(view.summary.front[0].architecture), 99), rel=0.03
    )


def test_the_plan_says_how_many_requests_certify_and_each_budget_s_own_dense_model(rehearse, notebook):
    rehearse(trials=1, **budgets("55%@p95", "120@p99"))
    plan = Plan.model_validate(dict(notebook.stages)["plan"])
    lines = plan_lines(plan)
    assert plan.requests == 390 and any(
        line.startswith("certifies: by 390 requests of each point, p95 and others of the same ones; 3.7 times")
        for line in lines
    )
    [faster] = [line for line in lines if line.startswith("budget: 55% at p95 = ")]
    assert "(1.82× faster than dense)" in faster
    assert any(line.startswith("dense: p95 ") for line in lines)
    assert 0.01 < plan.certifies.share_margin < 0.2 and list(plan.certifies.needs_ms) == ["120@p99"]
    assert 60 < plan.certifies.needs_ms["120@p99"] < 110
    assert any(line.startswith("certifies: 120 ms at p99 needs one of at most ") for line in lines)
