"""Joining records and document: one latency scale, one split per comparison, the front, the reasons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nash_search.config import Architecture
from nash_search.records import TrialRecord
from nash_search.report import view, words
from nash_search.summaries import Summary
from nash_search.summary_rows import BudgetRow, DenseRow


def test_points_stand_on_one_scale_the_paired_ratio_of_the_dense_latency(study: Any) -> None:
    records, document, answers = study
    seen = view.build(records, document, answers)
    entry = document.front[0]
    certified = next(p for p in seen.points if p.number == entry.number)
    assert (certified.ms, certified.high_ms) == (entry.latency_ms, entry.upper_ms)
    other = next(p for p in seen.points if p.measured and not p.certified)
    assert other.record.latency is not None and other.ms is not None
    assert other.ms == pytest.approx(other.record.latency.ratio * document.dense.latency_ms)


def test_before_certification_the_front_is_computed_from_complete_trials(study: Any) -> None:
    records, document, answers = study
    seen = view.build(records, document)
    assert {p.number for p in seen.front} == {row.number for row in document.front}
    assert not next(p for p in seen.points if p.status == "stopped").on_front


def test_drop_is_given_only_on_the_same_split(study: Any) -> None:
    records, document, answers = study
    dense = {"validation_quality": None, "validation_standard_error": None}
    seen = view.build(records, document.model_copy(update={"dense": document.dense.model_copy(update=dense)}), answers)
    assert seen.dense is not None and seen.dense.quality is None and seen.dense.test_quality == 91.1
    assert all(p.drop is None for p in seen.points)


def test_minimised_metrics_drop_upwards(record_at: Callable[..., TrialRecord]) -> None:
    good, bad = record_at(0, 3, 0), record_at(1, 2, 0)
    assert good.quality is not None and bad.quality is not None
    flipped = [
        r.model_copy(
            update={"quality": r.quality.model_copy(update={"value": 100 - r.quality.value, "direction": "minimize"})}
        )
        for r in (good, bad)
        if r.quality is not None
    ]
    seen = view.build(flipped, Summary(dense=DenseRow(latency_ms=68.2, quality=8.0, quality_split="validation")))
    assert [p.on_front for p in seen.points] == [True, True]
    assert all(p.drop is not None and p.drop > 0 for p in seen.points)


def test_an_empty_study_is_a_view() -> None:
    seen = view.build([], Summary())
    assert seen.front == () and seen.dense is None and seen.scale is None


def test_hypervolume_grows_and_needs_a_reference(study: Any) -> None:
    records, document, answers = study
    curve = [v for _, v in view.build(records, document, answers).hypervolume]
    assert curve == sorted(curve) and curve[-1] > 0
    assert view.build(records, document.model_copy(update={"reference": None})).hypervolume == ()


def test_more_within_noise_says_so(record_at: Callable[..., TrialRecord]) -> None:
    records = [record_at(4, 2, 40), record_at(11, 2, 20)]
    budget = BudgetRow(asked="34", budget_ms=34.0, verdict="met", architecture=records[0].architecture)
    [pick] = view.build(records, Summary(budgets=(budget,))).picks
    assert "within its noise" in pick.more


def test_a_promised_pick_is_the_point_of_its_architecture(study: Any) -> None:
    records, document, answers = study
    kept = Architecture(encoder_sparsity_pct=40, decoder_layers=2)
    budget = BudgetRow(asked="34", budget_ms=34.0, verdict="met", architecture=kept)
    [pick] = view.build(records, document.model_copy(update={"budgets": (budget,)})).picks
    assert pick.point is not None and pick.point.number == 4


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (48, "48 s"), (200, "3 min 20 s"), (700, "11 min"), (7500, "2 h 05 min")]
)
def test_durations(seconds: float | None, text: str) -> None:
    assert words.format_duration(seconds) == text


def test_numbers() -> None:
    assert [words.format_ms(x) for x in (8.414, 34.13, 341.3, None)] == ["8.41", "34.1", "341", "–"]
    assert [words.format_quality(x) for x in (0.91234, 91.234)] == ["0.9123", "91.23"]
    assert [words.format_count(x) for x in (999, 310_000, 60_506_624, None)] == ["999", "310k", "60.5M", "–"]


def test_an_ambiguous_pick_claims_no_bound(study: Any) -> None:
    records, document, answers = study
    assert any("95% upper bound stays within" in pick.why for pick in view.build(records, document, answers).picks)
    unsure = tuple(a.model_copy(update={"verdict": "ambiguous"}) if a.point else a for a in answers.budgets)
    for pick in view.build(records, document, answers.model_copy(update={"budgets": unsure})).picks:
        assert "stays within" not in pick.why
        assert pick.verdict != "ambiguous" or "none does for certain" in pick.why
