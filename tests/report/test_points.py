"""Trials as points: one latency scale, the front before and after certification, drops in the metric's direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nash_search.records import TrialRecord
from nash_search.report import view
from nash_search.summaries import Summary
from nash_search.summary_rows import DenseRow


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
