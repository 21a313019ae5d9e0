"""Learning rates and labels, found by short trainings before any architecture is searched (`recipe: auto`).

    the study's own calibration.json, else what an earlier study found of the same question
    -> else short trainings of one architecture that the budgets admit (`short_trainings`)
    -> chosen: the best of the longest on validation

All of it takes at most a quarter of the seconds that the search's trials train for, by the clock of its own trainings,
the teacher's answers and scoring counted. Each training is a folder of its own, so a kill loses none that has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nash_search import errors
from nash_search.calibration_record import Calibration, Setting, best_first, flat
from nash_search.config import SearchConfig, digest
from nash_search.files import write_atomic
from nash_search.search.case import Case
from nash_search.search.margins import LATENCIES
from nash_search.search.short_trainings import LONGS, SHARE, Rungs, ShortTrainings, trainable_by_latency
from nash_search.storage.study import Study, StudyFacts
from nash_search.summary_rows import PlannedCalibration
from nash_search.trial.job import JobSource, Say
from nash_search.trial.short_training import EXAMPLES

PROTOCOL = 1
"""Raise when what is trained or how it is chosen changes: what was kept of before is then not used."""
FILE = "calibration.json"


def calibrated(case: Case, study: Study, run: Callable[[JobSource], None], say: Say) -> Calibration | None:
    """The study's calibration: its own, one that an earlier study made of the same question, or a new one.

    Args:
        case: what the search knows.
        study: whose database holds the rows that the dashboard shows.
        run: runs a source's jobs to their end.
        say: told what is trained, and of each training.

    Returns:
        None where the recipe does not ask for one, or too few trials leave no time for it.

    Raises:
        InvalidInput: when nothing that was tried trains.
    """
    recipe = case.config.recipe
    if not recipe.calibrate:
        return None
    own, known = _places(case, case.config)
    for path in (own, known):
        found = _read(path)
        if found is not None:
            found = found if path == own else found.model_copy(update={"remembered": True})
            write_atomic(own, found.model_dump_json(indent=1))
            return found
    rungs = Rungs.of(recipe, case.config.trials)
    if rungs is None or not trainable_by_latency(study.facts, case.table, case.config):
        return None
    jobs = ShortTrainings(case, study, rungs, say)
    say("calibration", rungs.model_dump() | {"architecture": jobs.architecture.slug, "trained": len(jobs.trained)})
    run(jobs)
    found = decided(jobs, rungs, study.facts)
    write_atomic(own, found.model_dump_json(indent=1))
    if found.best.steps < rungs.long_steps:  # cut short: the next study may have the time
        return found
    known.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(known, found.model_dump_json(indent=1))
    return found


def planned(case: Case) -> PlannedCalibration | None:
    """The plan's entry on the calibration; None where the recipe asks for none."""
    if not case.config.recipe.calibrate:
        return None
    found = _found(case, case.config)
    rungs = Rungs.of(case.config.recipe, case.config.trials)
    if rungs is None:
        planned = PlannedCalibration(share=SHARE, known=found is not None, steps=None, trainings=0)
    else:
        steps = rungs.short_steps, rungs.long_steps
        planned = PlannedCalibration(share=SHARE, known=found is not None, steps=steps, trainings=rungs.shorts + LONGS)
    return planned if found is None else planned.model_copy(update={"twice": found.twice})


def most_s(case: Case, config: SearchConfig, trial_s: float) -> float:
    """Training seconds that a calibration may still take where a trial of the configuration trains this long."""
    if not config.recipe.calibrate or _found(case, config) or Rungs.of(config.recipe, config.trials) is None:
        return 0.0
    return SHARE * config.trials * trial_s


def of_study(folder: Path) -> Calibration | None:
    """A study's calibration; None where it has none."""
    return _read(folder / FILE)


def decided(jobs: ShortTrainings, rungs: Rungs, facts: StudyFacts) -> Calibration:
    """Choose the best setting: of the longer trainings where any has a quality, else of the short ones.

    Raises:
        InvalidInput: when none of them has a quality.
    """
    best = best_first(jobs.of_length(rungs.long_steps), jobs.direction)
    rung = best or best_first(jobs.of_length(rungs.short_steps), jobs.direction)
    if not rung:
        first, rates = jobs.trained[0], sorted(t.setting.learning_rate for t in jobs.trained)
        raise errors.InvalidInput(
            f"a calibration must find rates that train, but all {len(rates)} from {rates[0]:g} to {rates[-1]:g} "
            f"failed, the first of {first.failure}: {first.message}",
            where="recipe.calibrate",
            fix="look at the data's targets, or name the rates: learning_rate, tune_learning_rate, calibrate: false",
        )
    return Calibration(
        architecture=jobs.architecture,
        metric=facts.quality_metric,
        direction=jobs.direction,
        examples=EXAMPLES,
        trainings=tuple(jobs.trained),
        chosen=rung[0].setting,
        by="loss" if flat(rung) else "quality",
        limit_s=jobs.limit_s,
        dense_quality=facts.dense_quality,
        trial_steps=jobs.config.recipe.trial_steps,
    )


def _found(case: Case, config: SearchConfig) -> Calibration | None:
    """What the study, or one before it, has found already."""
    return next((found for path in _places(case, config) if (found := _read(path)) is not None), None)


def _places(case: Case, config: SearchConfig) -> tuple[Path, Path]:
    """The study's own calibration, and where one is kept for the next study."""
    return case.folder / FILE, case.folder.parent / LATENCIES / f"calibration-{_question(case, config)}.json"


def _question(case: Case, config: SearchConfig) -> str:
    """What a calibration answers: model, data, and the recipe but for what is calibrated."""
    recipe = config.recipe.model_dump(mode="json", exclude={*Setting.model_fields, "calibrate", "rungs"})
    task = config.task.model_dump(mode="json")
    return digest([PROTOCOL, case.evaluator.facts(), recipe, task, config.seed])[:32]


def _read(path: Path) -> Calibration | None:
    try:
        return Calibration.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None
