"""What is said before anything is spent: device, workload, dense model, what each budget admits, the cost.

The same rows serve a terminal (a panel) and a pipe (plain lines).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from nash_search.report import engines, escape
from nash_search.report.picture import caption
from nash_search.report.view import StudyView, build
from nash_search.report.words import (
    certifies_words,
    copied,
    data_words,
    format_duration,
    format_ms,
    format_scored,
    format_spread,
    is_share,
    named,
    ranges,
    twice_words,
)
from nash_search.summaries import FittedLength, Plan
from nash_search.summary_rows import PlannedBudget, PlannedCalibration


def admits(total_layers: int, fits: Mapping[int, Sequence[Sequence[int]]], grid: Sequence[int]) -> str:
    """What a budget leaves possible, in one sentence.

    Args:
        total_layers: decoder blocks of the dense model.
        fits: decoder blocks -> runs [lowest, highest] of percent of the encoder removed that fit.
        grid: the search space's own [lowest, highest] percent.
    """
    groups: dict[str, list[int]] = {}
    for layers, runs in sorted(fits.items()):
        groups.setdefault(_encoders(runs, grid), []).append(layers)
    if not groups:
        return "admits nothing in the search space"
    blocks = f" of {total_layers} decoder blocks"
    said = [f"{ranges(depths)}{'' if i else blocks} {words}" for i, (words, depths) in enumerate(groups.items())]
    return f"admits {', '.join(said)}"


def _encoders(runs: Sequence[Sequence[int]], grid: Sequence[int]) -> str:
    """`with any encoder`, or `only with 20% or more of the encoder removed`."""
    if [list(run) for run in runs] == [list(grid)]:
        return "with any encoder"
    parts = [
        f"{low}% or more" if high == grid[-1] > low else f"{low}%" if low == high else f"{low}% to {high}%"
        for low, high in runs
    ]
    return f"only with {' or '.join(parts)} of the encoder removed"


def plan_rows(plan: Plan, dashboard: str = "") -> list[tuple[str, str]]:
    """(label, words) pairs of everything known before spending; `dashboard` is where the run can be watched."""
    view = build([], plan.begun())
    rows = [("study", escape.plain(view.study))] if view.study else []
    if plan.model:
        rows.append(("model", escape.plain(plan.model)))
    if plan.data is not None:
        rows.append(("data", data_words(plan.data)))
    if view.device or view.workload:
        rows.append(("device", escape.plain(view.device)))
        rows.append(("one call", caption(view).rpartition(" · ")[0]))
    if view.dense:
        words = (
            f"{view.percentile} {format_ms(view.dense.ms)} ms".lstrip()
            + f"{format_spread(view.dense.low_ms, view.dense.high_ms)}"
        )
        if plan.dense is not None and plan.dense.validation_quality is not None:
            scored = format_scored(plan.dense.validation_quality, plan.dense.validation_standard_error)
            words += f", {escape.plain(view.metric, 30)} {scored} (validation)"
        rows.append(("dense", words))
    rows += [("budget", _budget_words(budget, view, plan)) for budget in plan.budgets]
    if plan.width_worth_pct is not None:
        rows.append(("encoder", _width_words(plan.width_worth_pct, whole=plan.whole_encoders)))
    if plan.requests is not None:
        units = plan.workload.units if plan.workload is not None else "requests"
        words = f"by {plan.requests} {units} of each point, {view.percentile} and others of the same ones"
        if plan.certify_times is not None:
            words += f"; {plan.certify_times:.1f} times the decoding of a certificate of one call"
        rows.append(("certifies", words))
    if plan.certifies is not None:
        rows.append(("certifies", certifies_words(plan.certifies)))
    goes_on = plan.workload.runtime if plan.trials and plan.workload is not None else ""
    rows += engines.rows(plan.engines, goes_on)
    if plan.fitted is not None:
        rows.append(("time", _fitted_words(plan.fitted)))
    if plan.calibration is not None:
        rows.append(("recipe", _calibration_words(plan.calibration)))
    rows += _cost_rows(plan)
    if dashboard:
        rows.append(("dashboard", escape.plain(dashboard)))
    return rows


def _memory_words(trial_gib: float, device_gib: float, beside: int) -> str:
    """What a trial needs, and whether so many fit side by side."""
    words = f"a trial takes about {trial_gib:.1f} of the device's {device_gib:.1f} GiB"
    if beside * trial_gib <= device_gib:
        return words
    fitting = max(1, int(device_gib / trial_gib))
    return f"{words}: {beside} side by side do not fit, give --workers {fitting}" if beside > 1 else words


def _width_words(worth_pct: float, *, whole: bool) -> str:
    """What narrowing the encoder can bring, and what follows."""
    words = f"on this device and workload encoder width is worth at most {worth_pct:.1f} %"
    return f"{words}: whole encoders alone are trained" if whole else words


def _cost_rows(plan: Plan) -> list[tuple[str, str]]:
    """Trials, seconds, and how the seconds are known."""
    cost = []
    if plan.trials:
        cost.append(f"{plan.trials} trials")
    if plan.workers:
        cost.append(f"{plan.workers} at a time")
    if plan.seconds_per_trial:
        cost.append(f"about {format_duration(plan.seconds_per_trial)} each")
    if plan.eta_s:
        cost.append(f"done in about {format_duration(plan.eta_s)}")
    rows = [("cost", ", ".join(cost))] if cost else []
    if plan.memory_gib is not None and plan.device_memory_gib is not None:
        rows.append(("memory", _memory_words(plan.memory_gib, plan.device_memory_gib, plan.beside)))
    if plan.finish is not None:
        about = format_duration(plan.finish.seconds)
        words = f"each budget's winner is trained anew over {plan.finish.steps:,} steps, about {about} together"
        if plan.finish.most_steps > plan.finish.steps:
            words += f"; over up to {plan.finish.most_steps:,} if the trials end before their time"
        rows.append(("finish", words))
    if plan.train_s is not None and plan.device_s is not None:
        words = f"{format_duration(plan.train_s)} of training, the device busy for {format_duration(plan.device_s)}"
        if plan.estimated:
            words += f"; estimated {escape.plain(plan.estimated)}"
        rows.append(("spends", words))
    return rows


def _fitted_words(fitted: FittedLength) -> str:
    """What a time budget has made of the trials."""
    asked = f"the recipe's {fitted.asked_trials} of {fitted.asked_steps:,} steps would take"
    time = format_duration(fitted.time_budget_s)
    kept = f"{fitted.trials} trial{'' if fitted.trials == 1 else 's'} of {fitted.steps:,} steps"
    room = f"{kept} fit into {time}" if fitted.fits else f"{time} have no room for {kept}, which are the least"
    return f"{room} ({asked} about {format_duration(fitted.asked_eta_s)})"


def _calibration_words(planned: PlannedCalibration) -> str:
    """How the recipe will be found, and what that may take."""
    if planned.known:
        told = "learning rates and labels as found before", twice_words("a trial's steps", planned.twice)
        return "; ".join(filter(None, told))
    if planned.steps is None:
        return "too few trials for a calibration: rates and labels as the recipe says (give more trials)"
    short, long = planned.steps
    share = f"at most {planned.share:.0%} of the trials' training seconds"
    return f"found by up to {planned.trainings} short trainings of {short} and {long} steps, {share}"


def plan_lines(plan: Plan, dashboard: str = "") -> list[str]:
    """The plan for a pipe."""
    return [f"{label}: {words}" for label, words in plan_rows(plan, dashboard)]


def panel(plan: Plan, dashboard: str = "") -> Group:
    """The plan for a terminal; commands stand below the box, where they can be copied."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    rows = plan_rows(plan, dashboard)
    for label, words in rows:
        if label != engines.COMMAND:
            grid.add_row(label, Text(words))
    box = Panel(grid, title="before spending anything", title_align="left", border_style="dim", expand=False)
    return Group(box, *(copied(f"{label}: {words}") for label, words in rows if label == engines.COMMAND))


def _budget_words(budget: PlannedBudget, view: StudyView, plan: Plan) -> str:
    words = named(budget.asked)
    if is_share(budget.asked):
        words += f" = {format_ms(budget.budget_ms)} ms"
    if dense_ms := budget.dense_ms or (view.dense.ms if view.dense else None):
        words += f" ({dense_ms / budget.budget_ms:.2f}× faster than dense)"
    if budget.fits is not None:
        layers = {int(depth): runs for depth, runs in budget.fits.items()}
        total = plan.decoder_layers or max(layers, default=0)
        words += ": " + admits(total, layers, budget.sparsities_pct)
    if budget.verdict == "infeasible":
        words += f": below the floor of {format_ms(budget.floor_ms)} ms"
    return words
