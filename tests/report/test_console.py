"""The terminal: what it says before, during and after, into a terminal, into a pipe and when quiet."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from nash_search.config import Workload
from nash_search.latency.measurement import rows
from nash_search.latency_record import Latency, Round
from nash_search.report import markdown, plan_text, view
from nash_search.report import text as answer
from nash_search.report.console import RunTable, sparkline
from nash_search.report.words import at_most, format_spread
from nash_search.summaries import Summary


def _plan(summary: Summary) -> dict[str, Any]:
    document = summary.to_json()
    keys = ("study", "task", "device", "workload", "dense", "reference")
    budgets = [
        {"asked": "70%", "budget_ms": 47.7, "fits": {n: [[0, 80]] for n in "123"} | {"4": [[50, 80]]}},
        {"asked": "50%", "budget_ms": 34.1, "fits": {"1": [[0, 80]], "2": [[50, 80]]}},
    ]
    budgets = [budget | {"sparsities_pct": [0, 80]} for budget in budgets]
    rest = {
        "metric": "100-PER",
        "trials": 16,
        "workers": 2,
        "seconds_per_trial": 34,
        "eta_s": 300,
        "decoder_layers": 6,
    }
    return {k: document[k] for k in keys} | {"budgets": budgets} | rest


def _run(study: Any, *, terminal: bool, quiet: bool = False, width: int = 140) -> str:
    records, document, answers = study
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=width, height=60, highlight=False, color_system=None)
    seconds = iter(range(0, 100_000, 20))
    table = RunTable(console=console, quiet=quiet, clock=lambda: float(next(seconds)))
    with table:
        table.on_stage("plan", _plan(document))
        table.on_stage("probe", {"message": "timing 24 shapes"})
        for record in records:
            table.on_progress(record.number, "narrow", 120, 300, 1.25)
            table.on_trial(record, None)
    table.finish(view.build(records, document, answers), ["results/g2p/front.png"])
    return out.getvalue()


def test_plan_says_what_each_budget_admits(study: Any) -> None:
    text = _run(study, terminal=False)
    assert "dense: 68.2 ms ± 0.65, 100-PER 91.50 ± 0.39 (validation)" in text
    assert (
        "50% = 34.1 ms (2.00× faster than dense): admits 1 of 6 decoder blocks with any encoder, 2 only with 50%"
        in text
    )
    assert "16 trials, 2 at a time, about 34 s each, done in about 5 min" in text


WHOLE = [[0, 80]]


@pytest.mark.parametrize(
    ("fits", "sentence"),
    [
        ({}, "nothing in the search space"),
        ({1: WHOLE}, "1 of 8 decoder blocks with any encoder"),
        ({2: [[50, 80]]}, "2 of 8 decoder blocks only with 50% or more of the encoder removed"),
        ({2: WHOLE, 4: WHOLE}, "2 or 4 of 8 decoder blocks with any encoder"),
        ({1: WHOLE, 2: WHOLE, 3: WHOLE, 4: WHOLE}, "1 to 4 of 8 decoder blocks with any encoder"),
        (
            {2: WHOLE, 4: WHOLE, 3: [[10, 80]], 6: [[80, 80]]},
            "2 or 4 of 8 decoder blocks with any encoder, 3 only with 10% or more of the encoder removed, "
            "6 only with 80% of the encoder removed",
        ),
        ({2: [[0, 0], [20, 80]]}, "2 of 8 decoder blocks only with 0% or 20% or more of the encoder removed"),
        ({2: [[0, 30]]}, "2 of 8 decoder blocks only with 0% to 30% of the encoder removed"),
    ],
)
def test_admits_in_a_sentence_names_each_depth_once_and_none_that_is_not_asked_for(
    fits: dict[int, list[list[int]]], sentence: str
) -> None:
    assert plan_text.admits(8, fits, [0, 80]) == f"admits {sentence}"


def _printed(table: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=140, color_system=None).print(table)
    return out.getvalue()


def test_what_only_may_meet_a_budget_is_picked_for_none(study: Any) -> None:
    records, document, answers = study
    open_ = [a.model_copy(update={"verdict": "ambiguous"}) if a.budget.asked == "50%" else a for a in answers.budgets]
    shown = view.build(records, document, answers.model_copy(update={"budgets": tuple(open_)}))
    (number,) = [pick.point.number for pick in shown.picks if pick.asked == "50%" and pick.point]
    (point,) = [p for p in shown.front if p.number == number]
    assert shown.picked_for(point) == () and point not in shown.picked
    assert view.build(records, document, answers).picked_for(point) == ("50%",)
    for drawn in (lambda v: _printed(answer.leaderboard(v, 140)), markdown.table):
        assert drawn(view.build(records, document, answers)).count("50%") == drawn(shown).count("50%") + 1
    for pick in shown.picks:
        assert (shown.loaded == pick.checkpoint) == (pick.verdict == "met"), "nobody is told to load what may be slower"


def test_pipe_gets_plain_lines_without_escape_codes(study: Any) -> None:
    text = _run(study, terminal=False)
    assert "\x1b" not in text
    assert "trial 0 (3 dec · enc 100%): 44.9 ms (1.52×), 100-PER 90.27, meets 70%, on the front" in text
    assert "trial 14 (4 dec · enc 90%): failed, nan: loss is not finite at step 212" in text
    assert "trial 15 (5 dec · enc 100%): infeasible, measured 87% of dense" in text


def test_terminal_keeps_one_live_table(study: Any) -> None:
    text = _run(study, terminal=True)
    for words in ("before spending anything", "14 of 16 trained", "hypervolume ▁", "left", "3 dec · enc 100%", "●"):
        assert words in text


def test_quiet_says_nothing(study: Any) -> None:
    assert _run(study, terminal=True, quiet=True) == ""
    assert _run(study, terminal=False, quiet=True) == ""


def test_answer_names_the_pick_why_and_what_more_buys(study: Any) -> None:
    text = _run(study, terminal=False)
    assert "✓ 50% (34.1 ms) met: 2 dec · enc 60% at 32.5 ms (at most 32.6 with 95% confidence), 2.10× faster" in text
    assert "89.05 ± 0.49 on test (dense 91.10 ± 0.39)" in " ".join(text.split())
    assert "the best of 4 points of the front whose 95% upper bound stays within 34.1 ms" in text
    assert "ms more buys +0.36 (3 dec · enc 50%)" in text
    assert "✗ 25% (17.1 ms) infeasible" in text
    assert "the fastest takes 20.5 ms; the nearest budget that can be met is 30%" in text
    assert "from_pretrained('checkpoints/g2p-4', dtype='float32')" in text


@pytest.mark.parametrize("bounds", [None, (10.0, 2000.0), (40.0, 400.0)])
def test_fits_eighty_columns(study: Any, bounds: tuple[float, float] | None) -> None:
    """Whatever the dense model's interval: words of it once left every other column an ellipsis."""
    records, document, answers = study
    shown = view.build(records, document, answers)
    if bounds is not None:
        shown = replace(shown, dense=replace(shown.dense, low_ms=bounds[0], high_ms=bounds[1]))
    board = answer.leaderboard(shown, 80)
    out = io.StringIO()
    Console(file=out, width=80, color_system=None).print(board)
    lines = out.getvalue().splitlines()
    assert len(lines) == 1 + len(document.front) + 1 and "…" not in out.getvalue(), "no row may wrap or be cut"


def test_progress_within_a_trial_is_told_at_most_once_a_minute_into_a_pipe() -> None:
    out, now = io.StringIO(), [0.0]
    table = RunTable(console=Console(file=out, width=100), clock=lambda: now[0])
    for step in range(100):
        now[0] = float(step)
        table.on_progress(3, "tune", step, 100, 0.5)
    assert out.getvalue().count("trial 3") == 2


def test_sparkline() -> None:
    assert sparkline([]) == ""
    assert sparkline([1.0, 1.0]) == "▄▄"
    assert sparkline([0.0, 1.0]) == "▁█"
    assert len(sparkline(list(map(float, range(100))))) == 24


def test_finalists_are_told_one_by_one_and_leave_the_running_trials() -> None:
    out = io.StringIO()
    table = RunTable(console=Console(file=out, width=200))
    table.on_stage("finalists", {"architectures": 1, "trainings": 2})
    table.on_progress(4, "tune", 10, 20, 0.5)
    table.on_stage("finalist", {"number": 4, "seed": 1, "quality": 90.123, "failure": None})
    assert table.running == {}
    table.on_stage("finalist", {"number": 4, "seed": 2, "quality": None, "failure": "oom"})
    table.on_stage("test", {"models": 3})
    told = out.getvalue()
    assert "training 1 winner with other seeds too, 2 trainings" in told
    assert "trial 4, seed 1: quality 90.12" in told and "trial 4, seed 2: failed (oom)" in told
    assert "scoring 3 models on the sealed test split, once" in told


def test_two_rounds_that_bound_nothing_are_not_a_plus_or_minus():
    """`145 ± 580332` was what two rounds printed."""
    rounds = tuple(Round(runs_ms=(ms, ms), dense_runs_ms=(ms, ms), contended=(False,) * 2) for ms in (110.0, 190.0))
    taken = Latency(rounds=rounds, workload=Workload(input_tokens=4, output_tokens=4), fresh=True)
    low, high = taken.bounds_ms
    assert format_spread(low, high) == " (too few measurements to bound it)" and "too few" in at_most(
        high, taken.median_ms
    )
    assert dict(rows(taken))["latency"] == "150 ms  (95 %: too few rounds to say)"
    assert format_spread(9.0, 11.0) == " ± 1.00" and format_spread(40.0, 400.0) == " (40.0 to 400)"
    assert at_most(11.0, 10.0) == " (at most 11.0 with 95% confidence)"
