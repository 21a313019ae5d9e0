"""What a search will spend, and how long its trials may train within a time budget.

one trial    a few timed steps of the middle architecture that a budget admits, or what the study's trials took
the search   calibration, trials side by side, winners at length, certification (`trial.cost`)
fitted       where the recipe finds itself (`recipe: auto`) and a time budget has no room for all of that: fewer
             trials first, then shorter ones. Kept in the study's folder, for all its trials take the same steps.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nash_search.config import Frozen, SearchConfig
from nash_search.files import write_atomic
from nash_search.records import TrialRecord
from nash_search.search import calibration, short_trainings
from nash_search.search.case import Case
from nash_search.search.scheduler import Scheduler
from nash_search.summaries import FittedLength
from nash_search.trial import cost
from nash_search.trial.cost import TrialCost

log = logging.getLogger(__name__)

FILE = "length.json"
"""The study's fitted length, in its folder."""
WINNERS_FILE = "winners_length.json"
"""How long its winners are trained, in the same place."""
COST_LIMIT_S = 2.0
"""Seconds of training steps that the estimate may take, before any trial."""
FEW = 8
"""Trials that suffice for a front (`make search` has so many): below that, shorter trainings are the smaller loss."""
LEAST_STEPS = 9 * short_trainings.LEAST_STEPS
"""A calibration's shortest training is a ninth of a trial; less than this, and it tells no rates apart."""
DIGITS = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
"""A fitted length is a round number, so that two studies of a day share what a calibration found."""


class Spending(NamedTuple):
    """What is known of the cost before it is spent."""

    trial: TrialCost | None
    """Seconds of a trial, as long as the study's trials train."""
    length: FittedLength | None


def length_and_cost(case: Case, records: Sequence[TrialRecord], load_s: float, spent_s: float | None) -> Spending:
    """A trial's cost, and the length that the study's trials have or, where it is yet to begin, are given.

    Args:
        case: what is known.
        records: the study's trials so far.
        load_s: seconds a process takes to load libraries, model and data.
        spent_s: seconds of the time budget that are gone; None: the study has begun.
    """
    one, length = trial_cost(case, records), of_study(case.folder)
    if length is not None or spent_s is None or one is None:
        return Spending(one, length)
    length = fitted(case, one, load_s, spent_s)
    return Spending(one if length is None else one.of_steps(length.steps / length.asked_steps), length)


def trial_cost(case: Case, records: Sequence[TrialRecord]) -> TrialCost | None:
    """Seconds of one trial by the case's recipe; None where no architecture is feasible, or a step cannot be taken.

    Args:
        case: what is known.
        records: the study's trials so far; where there are any, they are believed.
    """
    if not short_trainings.trainable_by_latency(case.facts, case.table, case.config):
        return None
    threads = cost.train_threads(case.workers)
    middle = short_trainings.middle(case.facts, case.table, case.config)
    try:
        one = case.evaluator.trial_cost(case.config, middle, threads, COST_LIMIT_S)
    except Exception as error:  # whatever training may fail of: the trial will say so, the plan does without
        log.warning("no estimate of what a trial costs: %s: %s", type(error).__name__, error)
        return None
    return cost.as_recorded(one, records)


def estimate(
    case: Case, config: SearchConfig, one: TrialCost | None, records: Sequence[TrialRecord] = (), load_s: float = 0.0
) -> dict[str, Any]:
    """What the search will cost (keys as `trial.cost.of_search`); nothing where a trial's cost is not known.

    Args:
        case: what is known.
        config: how much is asked: trials, steps, certification.
        one: a trial of the configuration.
        records: the study's trials so far.
        load_s: seconds a process takes to load libraries, model and data.
    """
    if one is None:
        return {}
    baseline = case.facts.baseline
    done = sum(r.status in ("complete", "stopped") and r.architecture != baseline for r in records)
    trials = max(
        0, min(config.trials, len(short_trainings.trainable_by_latency(case.facts, case.table, case.config))) - done
    )
    devices = 1 if config.ray_address is None else case.workers  # taken to be: a cluster's workers have one each
    known: dict[str, Any] = {"dense_ms": case.table.call_ms, "load_s": load_s, "devices": devices}
    before_s = calibration.most_s(case, config, one.train_s)
    return cost.of_search(one, config, trials=trials, workers=case.workers, calibration_s=before_s, **known)


def of_study(folder: Path) -> FittedLength | None:
    """The length that a study's trials were fitted to; None where it was not."""
    path = folder / FILE
    return FittedLength.model_validate_json(path.read_bytes()) if path.exists() else None


def within(config: SearchConfig, length: FittedLength | None) -> SearchConfig:
    """The configuration with the trials and steps that were fitted to its time budget; the study's name stays as asked.

    A study that goes on with another time budget keeps the fitted steps, but not the lower number of trials.
    """
    if length is None:
        return config
    changes: dict[str, Any] = {"recipe": config.recipe.at_length(length.steps), "study": config.study_name}
    if (config.time_budget_s, config.trials) == (length.time_budget_s, length.asked_trials):
        changes["trials"] = length.trials
    return config.model_copy(update=changes)


def fitted(case: Case, one: TrialCost, load_s: float, spent_s: float) -> FittedLength | None:
    """Cut trials (to `FEW`), then steps, then trials again until the time budget suffices; kept in the study's folder.

    Args:
        case: what is known, its configuration as it was asked.
        one: a trial by the recipe as it was asked.
        load_s: seconds a process takes to load libraries, model and data.
        spent_s: seconds of the budget that are gone.

    Returns:
        None where nothing must be given up: no budget, room for all, or a recipe whose steps were named to be kept.
    """
    config = case.config
    if not config.recipe.calibrate or config.time_budget_s is None:
        return None
    asked = config.recipe.trial_steps
    for_trials_s = cost.for_trials_s(config, case.table.call_ms, load_s)
    assert for_trials_s is not None
    left_s = for_trials_s - spent_s

    def needed_s(trials: int, steps: int) -> float:
        """Calibration, trials and winners at length."""
        alike = config.model_copy(update={"trials": trials, "recipe": config.recipe.at_length(steps)})
        trial, dense_ms = one.of_steps(steps / asked), case.table.call_ms
        finish = cost.finalists(alike, cost.finish_steps(alike, None, case.workers, None))
        worked_s = cost.work_s(trial, trials, workers=case.workers, dense_ms=dense_ms)
        worked_s += cost.work_s(trial, *finish, workers=case.workers, dense_ms=dense_ms)
        return worked_s + calibration.most_s(case, alike, trial.train_s) / case.workers

    if needed_s(config.trials, asked) <= left_s:
        return None
    few = min(config.trials, FEW)
    lengths = [asked, *(steps for steps in _round_numbers(asked) if LEAST_STEPS <= steps < asked)]
    shorter = [(few, steps) for steps in lengths] + [(trials, lengths[-1]) for trials in range(few - 1, 0, -1)]
    fitting = next((both for both in shorter if needed_s(*both) <= left_s), None)
    trials, steps = fitting or shorter[-1]
    found = FittedLength(
        trials=trials,
        steps=steps,
        fits=fitting is not None,
        asked_trials=config.trials,
        asked_steps=asked,
        asked_eta_s=estimate(case, config.model_copy(update={"time_budget_s": None}), one, (), load_s)["eta_s"],
        time_budget_s=config.time_budget_s,
    )
    write_atomic(case.folder / FILE, found.model_dump_json(indent=1))
    return found


class WinnersLength(Frozen):
    """Steps of the winners' trainings, decided when the trials had ended."""

    steps: int
    trained: int
    """Trials by then: with more of them it is decided anew."""
    time_budget_s: float | None


def winners_steps(scheduler: Scheduler) -> int:
    """Steps over which a study's winners are trained anew, the same at each later start of the same search.

    Args:
        scheduler: its trials have ended.
    """
    path = scheduler.study.folder / WINNERS_FILE
    config, limit_s = scheduler.config, scheduler.limit_s
    if limit_s is None or config.finish_steps is not None:
        return scheduler.finish_steps()
    trained, budget_s = scheduler.trained(scheduler.study.rows()), config.time_budget_s
    kept = WinnersLength.model_validate_json(path.read_bytes()) if path.exists() else None
    if kept is not None and (kept.trained, kept.time_budget_s) == (trained, budget_s):
        return kept.steps
    steps = cost.steps_left(config, scheduler.trial_wall_s, scheduler.workers, limit_s - scheduler.elapsed_s)
    found = WinnersLength(steps=steps, trained=trained, time_budget_s=budget_s)
    write_atomic(path, found.model_dump_json(indent=1))
    return found.steps


def _round_numbers(most: int) -> list[int]:
    """Two significant digits at most, the largest first."""
    powers = range(len(str(most)))
    return sorted({round(digit * 10**power) for power in powers for digit in DIGITS if digit * 10**power <= most})[::-1]
