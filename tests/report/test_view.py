"""Joining records and document: one latency scale, one split per comparison, the front, the reasons."""

from __future__ import annotations

from typing import Any

import pytest

from nash_search.report import view, words
from nash_search.summaries import Summary


def test_drop_is_given_only_on_the_same_split(study: Any) -> None:
    records, document, answers = study
    dense = {"validation_quality": None, "validation_standard_error": None}
    seen = view.build(records, document.model_copy(update={"dense": document.dense.model_copy(update=dense)}), answers)
    assert seen.dense is not None and seen.dense.quality is None and seen.dense.test_quality == 91.1
    assert all(p.drop is None for p in seen.points)


def test_an_empty_study_is_a_view() -> None:
    seen = view.build([], Summary())
    assert seen.front == () and seen.dense is None and seen.scale is None


def test_hypervolume_grows_and_needs_a_reference(study: Any) -> None:
    records, document, answers = study
    curve = [v for _, v in view.build(records, document, answers).hypervolume]
    assert curve == sorted(curve) and curve[-1] > 0
    assert view.build(records, document.model_copy(update={"reference": None})).hypervolume == ()


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (48, "48 s"), (200, "3 min 20 s"), (700, "11 min"), (7500, "2 h 05 min")]
)
def test_durations(seconds: float | None, text: str) -> None:
    assert words.format_duration(seconds) == text


def test_numbers() -> None:
    assert [words.format_ms(x) for x in (8.414, 34.13, 341.3, None)] == ["8.41", "34.1", "341", "–"]
    assert [words.format_quality(x) for x in (0.91234, 91.234)] == ["0.9123", "91.23"]
    assert [words.format_count(x) for x in (999, 310_000, 60_506_624, None)] == ["999", "310k", "60.5M", "–"]
