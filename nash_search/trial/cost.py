"""What a search will cost, said before it is spent.

    one trial   = training (a few timed steps x the recipe's, or what this study's trials took)
                + its part of the teacher's answers, where those are the labels
                + scoring (the dense model's time, at each rung and at the end) + timing (pairs x dense latency)
    the search  = start of the workers + trials / workers, timings one after the other on each device
                + the winners' trainings at length
                + certification (rounds x (a process's start + pairs x the front))

An estimate from above: students are smaller than the dense model, the teacher's pass in stage 4 is counted in every
trial though the study keeps what the first one made, and trials that end early are not foreseen;
workers that slow each other down are not either. `timed_steps` is handed the step.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nash_search.budget import MEDIAN
from nash_search.config import Frozen, PruningRecipe, SearchConfig
from nash_search.percentiles import pairs_of
from nash_search.records import TrialRecord

RAY_START_S = 8.0
"""`ray.init`, seconds (measured on 2 cores)."""
LOAD_LEAST_S = 3.0
"""A process never loads faster than this, even where ours had everything in memory."""
FINISH_TIMES = 3
"""Default length of a winner's training, as a multiple of a trial's steps."""
LONGEST_TIMES, LEAST_TIMES = 9, 1.5
"""Where a search ends before its time budget, its winners are trained over at most and at least so many times a trial's
steps. Three times close three quarters of the gap that length closes on g2p (`results/rates`); where to stop beyond
that was not measured."""
SHARING = 4
"""Points that share one call of the dense model (`latency.timing_round.GROUP`)."""
FRONT = 8
"""Points of the front that certification is expected to time at most."""


class TrialCost(Frozen):
    """Seconds of one trial, alone on the device."""

    train_s: float
    score_s: float
    """All scorings of one trial."""
    pairs: int
    """Calls of it and of the dense model that its timing takes, with the device to itself."""
    how: str
    """In words, how this is known."""
    memory_bytes: int | None = None
    """Most that its process holds on the device while it trains; None: not known."""

    def of_steps(self, times: float) -> TrialCost:
        """The same of a trial that trains over so many times the steps."""
        return self.model_copy(update={"train_s": times * self.train_s})


def worker_count(config: SearchConfig, device: str) -> int:
    """Trials side by side: as asked, else one per GPU, or one per CPU core of this process."""
    if config.workers is not None:
        return config.workers
    if config.workload.device.startswith("cuda:"):
        return 1
    if device != "cpu":
        import torch

        return max(1, torch.cuda.device_count())
    return len(os.sched_getaffinity(0))


def on_one_device(config: SearchConfig, device: str, workers: int) -> int:
    """How many of the workers share a device's memory; a cluster's are taken to have one each."""
    if device == "cpu" or config.workload.device.startswith("cuda:"):
        return workers
    if config.ray_address is not None:
        return 1
    import torch

    return math.ceil(workers / max(1, torch.cuda.device_count()))


def train_threads(workers: int) -> int:
    """CPU threads of one trial's training where so many train side by side."""
    return max(1, len(os.sched_getaffinity(0)) // workers)


def timed_steps(
    train: Callable[[PruningRecipe], Mapping[str, Mapping[str, float]]], recipe: PruningRecipe, limit_s: float
) -> tuple[float, int]:
    """Training seconds of a whole recipe, from one step of each stage to warm up and up to four more.

    Args:
        train: trains a shortened recipe; steps and seconds of each stage.
        recipe: the whole one.
        limit_s: no second look where the first has taken this long.

    Returns:
        Seconds, what precedes the first step included, and the steps per stage that were timed.
    """
    began, steps, timed, seconds = time.monotonic(), 1, 0, 0.0
    while steps:
        start = time.monotonic()
        stages = train(recipe.model_copy(update={"narrow_steps": steps, "tune_steps": steps, "rungs": 1}))
        wall_s = time.monotonic() - start
        step_s = {name: stage["seconds"] / max(1.0, stage["steps"]) for name, stage in stages.items()}
        rest_s = max(0.0, wall_s - sum(stage["seconds"] for stage in stages.values()))
        narrow_s = step_s.get("narrow", step_s["tune"])
        seconds = rest_s + narrow_s * recipe.narrow_steps + step_s["tune"] * recipe.tune_steps
        left_s = limit_s - (time.monotonic() - began) - rest_s
        timed, steps = steps, 0 if timed else max(0, min(4, int(left_s / max(sum(step_s.values()), 1e-3))))
    return seconds, timed


def as_recorded(cost: TrialCost, records: Sequence[TrialRecord]) -> TrialCost:
    """Training as the trials of this study took it, where there are any."""
    spent = [r.train_s for r in records if r.train_s and r.status in ("complete", "stopped")]
    if not spent:
        return cost
    how = f"from the {len(spent)} trial{'s' if len(spent) > 1 else ''} of this study"
    return cost.model_copy(update={"train_s": sum(spent) / len(spent), "how": how})


def mean_wall_s(records: Sequence[TrialRecord]) -> float | None:
    """Seconds of a trial's process, as complete trials took them; None where there is none."""
    spent = [r.wall_s for r in records if r.status == "complete"]
    return sum(spent) / len(spent) if spent else None


def certified_pairs(config: SearchConfig, longer: float = 1.0, percentile: float = MEDIAN) -> int:
    """Timed pairs of a point in each certifying process; of requests, as many as the highest percentile needs.

    Args:
        config: rounds, budgets, and the pairs where they were named.
        longer: `Workload.longer`; by default as many requests as there are at most, for an estimate from above.
        percentile: another that is asked for too.
    """
    if config.certify_pairs is not None:
        return config.certify_pairs
    highest = max(config.highest, percentile) if config.of_requests else None
    return pairs_of(highest, config.certify_rounds, longer)


def certification_s(config: SearchConfig, dense_ms: float, load_s: float, front: int = FRONT) -> float:
    """Seconds that timing a front of this many points in fresh processes takes."""
    calls = front + math.ceil(front / SHARING)
    return config.certify_rounds * (max(load_s, LOAD_LEAST_S) + certified_pairs(config) * calls * dense_ms / 1000)


def for_trials_s(config: SearchConfig, dense_ms: float, load_s: float) -> float | None:
    """Seconds of the time budget for trainings; certification takes the rest, at most half. None without one."""
    limit_s = config.time_budget_s
    if limit_s is None:
        return None
    certified_s = certification_s(config, dense_ms, load_s)
    if config.finish_steps != 0:  # before winners are trained at length, certificates decide which meet the budgets
        certified_s += certification_s(config, dense_ms, load_s, len(config.budgets))
    return limit_s - min(limit_s / 2, certified_s)


def finish_steps(config: SearchConfig, trial_s: float | None, workers: int, limit_s: float | None) -> int:
    """Steps over which each budget's winner is trained anew; 0: none is.

    By default a multiple of a trial's, the largest of which all winners together take half of what a time budget
    leaves at most: the search has the other half.

    Args:
        config: how much is asked.
        trial_s: seconds of one trial (None: not known yet).
        workers: trainings side by side.
        limit_s: what a time budget leaves for trials and these (None: there is none).
    """
    steps = config.recipe.trial_steps
    if config.finish_steps is not None:
        return config.finish_steps
    times = FINISH_TIMES
    if limit_s is not None and trial_s:
        times = min(times, int(limit_s / 2 / (_in_turn(config, workers) * trial_s)))
    return times * steps if times > 1 else 0


def steps_left(config: SearchConfig, trial_s: float | None, workers: int, left_s: float) -> int:
    """Steps over which each winner is trained anew when the trials have ended; 0: none is.

    Two digits of what is left of a time budget, between `LEAST_TIMES` and `LONGEST_TIMES` a trial's.

    Args:
        config: how much is asked; steps that are named there are kept to.
        trial_s: seconds of one trial (None: no trial says).
        workers: trainings side by side.
        left_s: seconds until certification must begin.
    """
    if config.finish_steps is not None or trial_s is None:
        return finish_steps(config, trial_s, workers, None)
    times = min(LONGEST_TIMES, left_s / (_in_turn(config, workers) * trial_s))
    if times < LEAST_TIMES:
        return 0
    steps = int(times * config.recipe.trial_steps)
    unit = 10 ** max(0, len(str(steps)) - 2)
    return steps // unit * unit


def _in_turn(config: SearchConfig, workers: int) -> int:
    """How many of the winners' trainings follow one another when `workers` run side by side."""
    return math.ceil(len(config.budgets) * config.finalist_seeds / workers)


def at_length(config: SearchConfig, steps: int) -> SearchConfig:
    """What a training over so many steps is asked: the recipe and, where there is one, the timeout are stretched."""
    times = steps / max(1, config.recipe.trial_steps)
    timeout_s = config.trial_timeout_s
    changes: dict[str, Any] = {"recipe": config.recipe.at_length(steps)}
    if timeout_s is not None:
        changes["trial_timeout_s"] = timeout_s * max(1.0, times)
    return config.model_copy(update=changes)


def finalists(config: SearchConfig, steps: int) -> tuple[int, float]:
    """How many trainings the winners are given after the search, and how many times a trial each of them takes.

    Args:
        config: budgets and seeds.
        steps: of a training at length; 0: winners are trained with other seeds alone.
    """
    seeds = config.finalist_seeds - (0 if steps else 1)
    return len(config.budgets) * seeds, steps / max(1, config.recipe.trial_steps) if steps else 1.0


def work_s(
    cost: TrialCost, trainings: int, times: float = 1.0, *, workers: int, dense_ms: float, devices: int = 1
) -> float:
    """Seconds until so many trainings are done, each a trial's or `times` as long.

    They train and are scored side by side; on each device they are timed one after the other.
    """
    side_by_side = min(workers, max(trainings, 1))
    trained_s = times * cost.train_s + cost.score_s
    timed_s = cost.pairs * 2 * dense_ms / 1000
    return trainings * (trained_s / side_by_side + timed_s / min(devices, side_by_side))


def of_search(
    cost: TrialCost,
    config: SearchConfig,
    *,
    trials: int,
    workers: int,
    dense_ms: float,
    load_s: float,
    devices: int = 1,
    calibration_s: float = 0.0,
) -> dict[str, Any]:
    """The plan's estimate.

    Args:
        cost: one trial's.
        config: how much is asked.
        trials: how many are left to train.
        workers: trials side by side.
        dense_ms: one call of the dense model, milliseconds.
        load_s: seconds a process takes to load libraries, model and data.
        devices: that trials train and are timed on; certification has one of them.
        calibration_s: training seconds that come before the first trial, side by side.

    Returns:
        seconds_per_trial; train_s, all training seconds; device_s, seconds the device is busy; eta_s, seconds until
        the answer; estimated, how it is known in words; finish, where winners are trained at length: steps (and
        most_steps, if the trials leave time), models and seconds of that.
    """
    load_s = max(load_s, LOAD_LEAST_S)
    time_s = 2 * cost.pairs * dense_ms / 1000
    limit_s = for_trials_s(config, dense_ms, load_s)
    steps = finish_steps(config, cost.train_s + cost.score_s + time_s, workers, limit_s)
    models, times = finalists(config, steps)
    started = (1 if trials else 0) + (1 if models else 0)
    start_s = 0.0 if config.serial else started * (RAY_START_S + load_s)
    finish_s = work_s(cost, models, times, workers=workers, dense_ms=dense_ms, devices=devices)
    worked_s = calibration_s / workers + finish_s
    worked_s += work_s(cost, trials, workers=workers, dense_ms=dense_ms, devices=devices)
    worked_s = worked_s if limit_s is None else min(worked_s, limit_s)
    certified_s = certification_s(config, dense_ms, load_s, min(FRONT, max(trials + models, 1)))
    if models:  # before they are trained, certificates decide which architectures meet the budgets
        certified_s += certification_s(config, dense_ms, load_s, min(trials, len(config.budgets)))
    scored_s = (len(config.budgets) + 1) * cost.score_s
    open_end = limit_s is not None and config.finish_steps is None
    most_steps = LONGEST_TIMES * config.recipe.trial_steps if open_end else steps
    finish = {"steps": steps, "most_steps": most_steps, "models": models, "seconds": finish_s}
    return {
        "seconds_per_trial": cost.train_s + cost.score_s + time_s,
        "train_s": (trials + models * times) * cost.train_s + calibration_s,
        "device_s": worked_s + certified_s - config.certify_rounds * load_s + scored_s,
        "eta_s": start_s + worked_s + certified_s + scored_s,
        "estimated": cost.how,
        **({"finish": finish} if steps and models else {}),
    }
