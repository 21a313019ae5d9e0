"""Still and interactive pictures: what is on them, and that meaning never rests on colour alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from nash_search.report import picture, plots, view
from nash_search.summaries import Summary

CLOSE = (("70%", 47.7), ("68%", 46.4), ("66%", 45.0))


def test_front_is_written_in_light_and_dark(study: Any, tmp_path: Path) -> None:
    written = picture.save_front(view.build(*study), tmp_path)
    assert sorted(p.name for p in written) == ["front-dark.png", "front-dark.svg", "front.png", "front.svg"]
    assert all(p.stat().st_size > 10_000 for p in written)
    ElementTree.parse(tmp_path / "front.svg")


def test_equal_studies_make_equal_pictures(study: Any, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = (picture.save_front(view.build(*study), tmp_path / name) for name in "ab")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_labels_do_not_overlap_and_picks_are_labelled(study: Any) -> None:
    figure = picture.draw_front(view.build(*study))
    [axes] = figure.axes
    boxes = [t.get_window_extent() for t in axes.texts if " dec " in t.get_text()]
    assert len(boxes) >= 4
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    said = " ".join(t.get_text() for t in axes.texts)
    assert "2 dec · enc 60%" in said and "3 dec · enc 100%" in said and "dense 68.2 ms" in said
    assert "50% = 34.1 ms" in said and "25% = 17.1 ms, infeasible" in said


@pytest.mark.parametrize(("limits_ms", "digits"), [((100, 400), 1), ((305, 408), 2)])
def test_ticks_close_together_have_speed_ups_that_differ(
    study: Any, limits_ms: tuple[float, float], digits: int
) -> None:
    built = view.build(*study)
    figure = Figure()
    axes = figure.subplots()
    axes.set_xlim(*limits_ms)
    picture._speedups(figure, axes, replace(built, dense=replace(built.dense, ms=403.0)))
    said = [t.get_text().partition("\n")[2] for t in axes.get_xticklabels()]
    assert len(said) > 2 and len(set(said)) == len(said)
    assert all(len(words.strip("×").partition(".")[2]) == digits for words in said)


@pytest.mark.parametrize("lead", [-0.02, 0.02])
def test_the_words_of_the_dense_model_stand_where_the_staircase_does_not_pass(study: Any, lead: float) -> None:
    built = view.build(*study)
    last = built.front[-1].xy[1]
    figure = picture.draw_front(replace(built, dense=replace(built.dense, quality=last + lead, low=None, high=None)))
    [axes] = figure.axes
    [words] = [t.get_window_extent() for t in axes.texts if t.get_text().startswith("dense ")]
    line = axes.transData.transform((0, last))[1]
    assert not words.y0 <= line <= words.y1 and axes.get_window_extent().x1 > words.x1


def test_words_of_budgets_close_together_do_not_overlap(study: Any) -> None:
    records, document, _ = study
    near = tuple(document.budgets[0].model_copy(update={"asked": asked, "budget_ms": ms}) for asked, ms in CLOSE)
    figure = picture.draw_front(view.build(records, document.model_copy(update={"budgets": near})))
    [axes] = figure.axes
    boxes = [t.get_window_extent() for t in axes.texts if " = " in t.get_text()]
    assert len(boxes) == 2, "a third has no room"
    beside = [t.get_window_extent() for t in figure.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in [*boxes[i + 1 :], *beside])


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_small_studies_draw(study: Any, cut: int) -> None:
    records, *_ = study
    picture.draw_front(view.build(records[:cut], Summary(study="tiny")))
    plots.figures(view.build(records[:cut], Summary(study="tiny")))
