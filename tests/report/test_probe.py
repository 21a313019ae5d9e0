"""The probe's table and plot, and a front timed again: every number shown, and two machines never in silence."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nash_search.report.probe import BAR_COLUMNS, bars, draw_staircase, probe_table, save_staircase
from nash_search.survey import Survey


@pytest.fixture
def survey() -> dict[str, Any]:
    shapes = [
        {
            "architecture": {"decoder_layers": n, "encoder_sparsity_pct": s, "decoder_selection": "uniform"},
            "latency_ms": 10.0 * n - s / 10,
            "share": (10.0 * n - s / 10) / 20,
            "status": "clean",
        }
        for n in (1, 2)
        for s in (0, 50)
    ]
    workload = {"device": "cpu", "threads": 1, "batch_size": 4, "input_tokens": 8, "output_tokens": 7, "beams": 1}
    budget = {"asked": "70%", "budget_ms": 14.0, "feasible": True, "fits": {"1": [[0, 50]]}, "nearest_feasible": "30%"}
    budget |= {"verdict": "", "floor_ms": 5.0, "sparsities_pct": [0, 50]}
    missed = {"asked": "2", "budget_ms": 2.0, "feasible": False, "nearest_feasible": "6", "verdict": "infeasible"}
    return {
        "task": "g2p",
        "workload": workload | {"dtype": "float32", "runtime": "eager"},
        "device": "cpu",
        "decoder_layers": 2,
        "dense": {"latency_ms": 20.0, "lower_ms": 19.0, "upper_ms": 21.0},
        "ms_per_decoder_block": 10.0,
        "floor_ms": 5.0,
        "floor_share": 0.25,
        "fastest": "enc50-dec1",
        "shapes": shapes,
        "budgets": [budget, budget | missed | {"fits": {}}],
    }


def shown(survey: dict[str, Any]) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=80).print(probe_table(Survey(**survey)))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_the_table_names_every_shape_the_floor_and_what_budgets_admit(survey: dict[str, Any]) -> None:
    lines = shown(survey)
    words = " ".join(lines)
    assert {"dense: 20.0 ms ± 1.00", "one decoder block: 10.0 ms", "device: cpu"} <= set(lines)
    assert "one call: batch 4, 8 tokens in, 7 out, float32, eager, 1 thread" in lines
    assert "floor: 5.00 ms, 25% of dense (enc50-dec1)" in lines
    assert "budget: 70% = 14.0 ms (1.43× faster than dense): admits 1 of 2 decoder" in words
    assert "below the floor of 5.00 ms, the nearest that fits is 6 ms" in words
    assert "             2   20.0 ms 100%  15.0 ms  75%" in lines
    assert max(map(len, lines)) <= 80


def test_shapes_timed_before_and_contended_ones_are_said(survey: dict[str, Any]) -> None:
    assert "contended" not in str(shown(survey)) and "before" not in str(shown(survey))
    survey["shapes"][0]["status"] = "contended"
    words = " ".join(shown(survey | {"remembered": 3, "timed_again": 2}))
    assert "timed again: 2 shapes whose time did not grow with depth" in words
    assert "contended: 1 of 4 shapes: shares hold, milliseconds may be too high" in words
    assert "timed before: 3 of 4 shapes; the dense model, timed again, has not drifted" in words


def test_bars_stand_on_one_scale_in_plain_ascii(survey: dict[str, Any]) -> None:
    two, one, scale, legend = bars(Survey(**survey))
    assert all(line.isascii() and len(line) <= 80 for line in (two, one, scale, legend))
    start = scale.index("0%")
    at = {share: start + round(share * (BAR_COLUMNS - 1)) for share in (0.1, 0.25, 0.5, 0.7, 0.75, 1.0)}
    assert (two.index("="), two.rindex("=")) == (at[0.75], at[1.0])
    assert (one.index("="), one.rindex("=")) == (at[0.25], at[0.5])
    assert two[at[0.7]] == one[at[0.7]] == two[at[0.1]] == ":" and scale.index("75%") == at[0.75]
    assert ":" not in "".join(bars(Survey(**survey | {"budgets": []}))), "no budget, no mark"
    slow = [row | {"share": 2 * row["share"]} for row in survey["shapes"]]
    assert max(map(len, bars(Survey(**survey | {"shapes": slow})))) <= 80


def test_the_plot_has_a_line_per_depth_and_a_dashed_one_per_budget(survey: dict[str, Any], tmp_path: Path) -> None:
    (axes,) = draw_staircase(Survey(**survey)).axes
    drawn = [list(map(float, line.get_ydata())) for line in axes.get_lines()]
    assert [10.0, 5.0] in drawn and [20.0, 15.0] in drawn and [14.0, 14.0] in drawn and [2.0, 2.0] in drawn
    for name, begin in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml")):
        save_staircase(Survey(**survey), tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(begin)
