"""The probe's table and plot, and a front timed again: every number shown, and two machines never in silence."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nash_search.report.remeasured import caption, save_remeasured
from nash_search.report.staircase import draw_staircase, probe_table, save_staircase


@pytest.fixture
def survey() -> dict[str, Any]:
    shapes = [
        {
            "architecture": {"decoder_layers": n, "encoder_sparsity_pct": s, "decoder_selection": "uniform"},
            "latency_ms": 10.0 * n - s / 10,
            "share": (10.0 * n - s / 10) / 20,
        }
        for n in (1, 2)
        for s in (0, 50)
    ]
    workload = {"device": "cpu", "threads": 1, "batch_size": 4, "input_tokens": 8, "output_tokens": 7, "beams": 1}
    budget = {"asked": "70%", "budget_ms": 14.0, "feasible": True, "admits": {"1": 0}, "nearest_feasible": "30%"}
    return {
        "task": "g2p",
        "workload": workload | {"dtype": "float32", "runtime": "eager"},
        "dense": {"latency_ms": 20.0, "lower_ms": 19.0, "upper_ms": 21.0},
        "ms_per_decoder_block": 10.0,
        "floor_ms": 5.0,
        "floor_share": 0.25,
        "fastest": "enc50-dec1",
        "shapes": shapes,
        "budgets": [budget, budget | {"asked": "10%", "budget_ms": 2.0, "feasible": False}],
    }


def test_the_table_names_every_shape_the_floor_and_what_budgets_admit(survey: dict[str, Any]) -> None:
    out = io.StringIO()
    Console(file=out, width=120).print(probe_table(survey))
    shown = out.getvalue()
    for words in ("dense 20 ms (19 to 21)", "10 ms per decoder block", "floor 5 ms (25% of dense) at enc50-dec1"):
        assert words in shown
    assert "70% admits 1 of 2 decoder blocks with any encoder" in shown
    assert "10%: no shape fits, the nearest is 30%" in shown
    assert all(f"{row['latency_ms']:.4g} ms" in shown for row in survey["shapes"])


def test_the_plot_has_a_line_per_depth_and_a_dashed_one_per_budget(survey: dict[str, Any], tmp_path: Path) -> None:
    (axes,) = draw_staircase(survey).axes
    drawn = [list(map(float, line.get_ydata())) for line in axes.get_lines()]
    assert [10.0, 5.0] in drawn and [20.0, 15.0] in drawn and [14.0, 14.0] in drawn and [2.0, 2.0] in drawn
    for name, begin in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml")):
        save_staircase(survey, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(begin)


def test_two_machines_in_one_picture_are_said(tmp_path: Path) -> None:
    row = {"share": 0.5, "share_bounds": [0.48, 0.52], "quality": 90.0, "before": {"share": 0.55}}
    found: dict[str, Any] = {
        "study": "s", "device": "cpu", "same_fingerprint": True, "front": [row],
        "fingerprint": {"hash": "abcdef012345", "cpu_model": "new"}, "before": {"fingerprint": {}, "device": "old"},
    }  # fmt: skip
    assert "same device" in caption(found)
    other = caption(found | {"same_fingerprint": False})
    assert "two different machines" in other and "new" in other and "old" in other
    names = [path.name for path in save_remeasured(tmp_path, found)]
    assert names == ["remeasured-abcdef01.json", "remeasured-abcdef01.png"]
