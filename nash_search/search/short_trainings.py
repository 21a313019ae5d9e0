"""The short trainings of a calibration: which come next, each a job like a trial's.

    first rung    the recipe's own rates, three rates a decade apart, then what Optuna's Gaussian process proposes;
                  each a whole training of a ninth of a trial's steps, with the data's labels
    second rung   thrice the steps: the best rates with each kind of labels, and the second best rates

This is successive halving over lengths, each with a whole schedule (Li et al. 2018, arXiv 1603.06560, without the
random brackets). Ray's ASHA and Optuna's pruner stop trainings that run instead: there a high rate is judged before it
decays, and what was stopped is not taken up again.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from nash_search import errors
from nash_search.calibration_record import HIGHEST, LOWEST, Setting, ShortTraining, best_first
from nash_search.config import Architecture, Frozen, SearchConfig
from nash_search.latency_table import LatencyTable
from nash_search.pareto import Direction
from nash_search.recipes import Labels, PruningRecipe
from nash_search.records import TrialRecord
from nash_search.search import feasibility
from nash_search.search.case import Case
from nash_search.search.sampler import FreeGP, seed_at
from nash_search.search.scheduler import RETRIED
from nash_search.storage import artifacts, recovery
from nash_search.storage.artifacts import CALIBRATION, RECORD
from nash_search.storage.calibration_study import CalibrationStudy
from nash_search.storage.study import Study, StudyFacts
from nash_search.trial.cost import LOAD_LEAST_S, for_trials_s, train_threads
from nash_search.trial.job import Job, Nothing, Say, device_id
from nash_search.trial.short_training import EXAMPLES

SHARE = 0.25
"""Part of the trials' training seconds that a calibration may take at most."""
LONGER = 3
"""A rung's steps over those of the rung before."""
LEAST_STEPS = 20
"""Of a short training; fewer tell rates apart by their first steps only."""
STARTING_RATES = (1e-3, 1e-4, 1e-2)
FEWEST, MOST = len(STARTING_RATES) + 1, 12
"""Trainings of the first rung."""
LONGS = 4
"""Trainings of the second rung, at most: three kinds of labels, and the second best rates."""
ANSWERED = {"data": 0.0, "mixed": 0.5, "teacher": 1.0}
"""By kind of labels, the share of the examples whose labels the teacher generates."""
WIDEST = 2.0
"""Ratio of the tune stage's rate to the narrow stage's, and its inverse."""
SPACE: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(LOWEST, HIGHEST, log=True),
    "ratio": FloatDistribution(1 / WIDEST, WIDEST, log=True),
}
GRID = tuple(
    Setting(learning_rate=float(f"{rate:.2g}"), tune_learning_rate=float(f"{ratio * rate:.2g}"), labels="data")
    for rate in (digit * 10.0**power for power in range(-5, -1) for digit in (1, 1.5, 2, 3, 4.5, 7))
    for ratio in (1 / WIDEST, 1, WIDEST)
    if rate <= HIGHEST and LOWEST <= float(f"{ratio * rate:.2g}") <= HIGHEST
)
"""What may be proposed: round rates over three and a half decades, for each up to three of the tune stage."""
NEAR = 10.0
"""A proposal's rate is within this factor of the best so far: the starting rates have looked farther."""
APART = 1.4
"""Two rates of the second rung differ by this factor at least."""


class Rungs(Frozen):
    """Lengths and numbers of the short trainings."""

    short_steps: int
    long_steps: int
    shorts: int

    @classmethod
    def of(cls, recipe: PruningRecipe, trials: int) -> Rungs | None:
        """What a quarter of the trials' steps allows; None where that is not one training a starting rate."""
        steps = recipe.trial_steps
        short = min(steps, max(LEAST_STEPS, round(steps / LONGER**2)))
        long = min(steps, LONGER * short)
        allowed = SHARE * trials * steps
        shorts = min(MOST, int((allowed - LONGS * long) / short))
        if shorts < FEWEST:  # few trials: the second rung is cut before the starting rates are
            shorts = min(FEWEST, int((allowed - long) / short))
        return cls(short_steps=short, long_steps=long, shorts=shorts) if shorts >= FEWEST else None


def shortened(recipe: PruningRecipe, steps: int) -> PruningRecipe:
    """The recipe in fewer steps, divided between the stages as before; scored at its end only."""
    narrowing = "fisher" if recipe.narrowing == "shared" else recipe.narrowing  # what trials share is not trained yet
    return recipe.model_copy(update={"narrowing": narrowing, "rungs": 1}).at_length(steps)


def next_setting(
    trained: Sequence[ShortTraining], running: Sequence[Setting], seed: int, direction: Direction
) -> Setting:
    """The best free point of `GRID` by the acquisition of Optuna's Gaussian process; a pure function of what is known.

    Where nothing has trained yet, a rate below the lowest; where nothing is free, one that is taken.

    Args:
        trained: one length's; a rate that diverged counts as the worst that was seen.
        running: settings that it must keep clear of.
        seed: of this proposal.
        direction: of the metric.
    """
    able, taken = best_first(trained, direction), [*(t.setting for t in trained), *running]
    free = [setting for setting in GRID if setting not in taken]
    if not able:  # lower, until something trains
        lowest = min(setting.learning_rate for setting in taken)
        lower = [s for s in free if s.learning_rate < lowest / 2 and s.learning_rate == s.tune_learning_rate]
        return max(lower, key=lambda s: s.learning_rate) if lower else taken[0]
    best = able[0].setting.learning_rate
    near = [_coordinates(s) for s in free if best / NEAR <= s.learning_rate <= best * NEAR]
    if not near:
        return taken[0]
    study = optuna.create_study(direction=direction, sampler=FreeGP(near, seed=seed))
    for training in trained:
        value = able[-1].quality if training.quality is None else training.quality
        if _inside(training.setting):
            study.add_trial(create_trial(value=value, params=_coordinates(training.setting), distributions=SPACE))
    for setting in filter(_inside, running):
        study.add_trial(create_trial(state=TrialState.RUNNING, params=_coordinates(setting), distributions=SPACE))
    found = study.ask(SPACE).params
    return min(GRID, key=lambda setting: _distance(_coordinates(setting), found))


def _coordinates(setting: Setting) -> dict[str, float]:
    """Rate and ratio: a good ratio is near 1 whatever the rate, so it is learnt from few trainings."""
    return {"rate": setting.learning_rate, "ratio": setting.tune_learning_rate / setting.learning_rate}


def _distance(one: dict[str, float], other: dict[str, float]) -> float:
    return sum(abs(math.log(one[name] / other[name])) for name in SPACE)


def _inside(setting: Setting) -> bool:
    """May Optuna be told of it? (A recipe's own rates may lie outside what is tried.)"""
    where = _coordinates(setting)
    return LOWEST <= where["rate"] <= HIGHEST and 1 / WIDEST <= where["ratio"] <= WIDEST


class ShortTrainings:
    """JobSource of a calibration."""

    def __init__(self, case: Case, study: Study, rungs: Rungs, say: Say) -> None:
        self.config, self.workload, self.workers = case.config, case.workload, case.workers
        self.architecture = middle(study.facts, case.table, case.config)
        self.direction: Direction = study.facts.direction
        self._dense_ms = study.facts.dense_ms
        self._case, self._rungs, self._say, self._question = case, rungs, say, study.facts.question_digest
        self._running: dict[str, tuple[Setting, int]] = {}
        self._failed: set[str] = set()
        self._rows = CalibrationStudy(study.storage, case.config.study_name, study.facts.quality_metric, self.direction)
        self.trained: list[ShortTraining] = []
        for path in recovery.whole_folders(case.folder / CALIBRATION, self._question):
            self._keep(artifacts.stored_record(path))

    @property
    def limit_s(self) -> float:
        """Seconds that all of it may take, by the clock of its own trainings; a time budget counts too."""
        steps = self.config.trials * self.config.recipe.trial_steps
        train_s = steps * self._step_s if self._step_s else float("inf")  # no limit before the first
        left_s = for_trials_s(self.config, self._dense_ms, LOAD_LEAST_S)
        return SHARE * (train_s if left_s is None else min(train_s, self.workers * left_s))

    def exhausted(self) -> bool:
        """Is nothing left to train?"""
        return not self._running and self._next() is None

    def ask(self) -> Job | Nothing:
        """The next training."""
        job = self._next()
        if job is None:
            return Nothing.WAIT if self._running else Nothing.DONE
        self._running[job.key] = Setting.of(job.config.recipe), job.config.recipe.trial_steps
        return job

    def tell(self, job: Job, record: TrialRecord, wall_s: float = 0.0) -> None:
        """Take a training's record; one more try where a trial would get one.

        Raises:
            StorageDamaged: when the disk is full.
        """
        self._running.pop(job.key)
        if record.failure == "disk_full":
            raise errors.StorageDamaged(f"the disk must have room for a calibration, but it is full: {record.message}")
        if record.failure in RETRIED and job.key not in self._failed:
            self._failed.add(job.key)
            return
        if record.failure is not None:  # a failure is a result too: the next start does not train it again
            shutil.rmtree(job.work, ignore_errors=True)
            job.scratch.mkdir(parents=True, exist_ok=True)
            (job.scratch / RECORD).write_text(record.model_dump_json(indent=1), "utf-8")
            artifacts.commit(job.scratch, job.final, {"question": job.question})
        self._keep(record)
        self._say("calibrated", self.trained[-1].model_dump(mode="json"))

    def progress(self, number: int, stage: str, step: int, steps: int, loss: float) -> None:
        """Nobody draws the curve of a short training."""

    def _keep(self, record: TrialRecord) -> None:
        self.trained.append(ShortTraining.of(record))
        self._rows.add(self.trained[-1])

    def of_length(self, steps: int) -> list[ShortTraining]:
        """Trainings of one rung."""
        return [t for t in self.trained if t.steps == steps]

    @property
    def _step_s(self) -> float | None:
        """Seconds of a step on the data's labels."""
        own = [t for t in self.trained if t.quality is not None and t.setting.labels == "data"]
        return sum(t.seconds - t.scoring_s for t in own) / sum(t.steps for t in own) if own else None

    def _next(self) -> Job | None:
        """The next training that there is time for; None where others must end first, or none is wanted."""
        rungs, running = self._rungs, list(self._running.values())
        short = self.of_length(rungs.short_steps)
        tried = [t.setting for t in short] + [s for s, steps in running if steps == rungs.short_steps]
        if len(tried) < rungs.shorts and self._affordable(rungs.short_steps):
            planned = next((s for s in self._planned() if s not in tried), None)
            seed = seed_at(self.config.seed, len(short))
            setting = planned or next_setting(short, [s for s, _ in running], seed, self.direction)
            if setting not in tried:
                return self._job(setting, rungs.short_steps)
        if any(steps == rungs.short_steps for _, steps in running):
            return None
        known = [t.setting for t in self.of_length(rungs.long_steps)] + [s for s, _ in running]
        left = (s for s in self._second_rung(short) if s not in known and self._affordable(rungs.long_steps, s.labels))
        longer = next(left, None)
        return None if longer is None else self._job(longer, rungs.long_steps)

    def _planned(self) -> list[Setting]:
        """The recipe's own rates, then the starting ones; the first rung has the data's labels."""
        own = Setting.of(self.config.recipe).model_copy(update={"labels": "data"})
        starting = [Setting(learning_rate=rate, tune_learning_rate=rate, labels="data") for rate in STARTING_RATES]
        return list(dict.fromkeys([own, *starting]))

    def _second_rung(self, short: Sequence[ShortTraining]) -> list[Setting]:
        """The best rates with every kind of labels, the most telling first, then the second best rates."""
        best = [t.setting for t in best_first(short, self.direction)]
        best = best[:1] + [s for s in best if _distance(_coordinates(s), _coordinates(best[0])) > math.log(APART)][:1]
        kinds: tuple[Labels, ...] = ("data", "teacher", "mixed") if self._case.evaluator.answers_are_labels() else ()
        first = [best[0].model_copy(update={"labels": labels}) for labels in kinds or ("data",)] if best else []
        return first[:2] + best[1:] + first[2:]

    def _affordable(self, steps: int, labels: Labels = "data") -> bool:
        """Is there time for a training of this length, those that run included?"""
        if self._step_s is None:
            return True
        spent_s = sum(t.seconds for t in self.trained)
        running_s = sum(self._cost_s(steps, setting.labels) for setting, steps in self._running.values())
        return spent_s + running_s + self._cost_s(steps, labels) <= self.limit_s

    def _cost_s(self, steps: int, labels: Labels) -> float:
        """Expected seconds of a training: its steps, its scoring, and answers of the dense model at scoring's pace."""
        scored = [t.scoring_s for t in self.trained if t.quality is not None]
        score_s = sum(scored) / max(1, len(scored))
        answers = ANSWERED[labels] * steps * self.config.recipe.batch_size / EXAMPLES
        return steps * (self._step_s or 0.0) + score_s * (1 + answers / self._case.table.share(self.architecture))

    def _job(self, setting: Setting, steps: int) -> Job:
        recipe = shortened(setting.within(self.config.recipe), steps)
        return Job(
            number=len(self.trained) + len(self._running),
            architecture=self.architecture,
            seed=self.config.seed,
            question=self._question,
            config=self.config.model_copy(update={"storage": None, "recipe": recipe}),
            workload=self.workload,
            share=self._case.table.share(self.architecture),
            folder=str(self._case.folder.resolve()),
            device=device_id(self._case.table.fingerprint),
            train_threads=train_threads(self.workers),
            short=True,
        )


def trainable_by_latency(facts: StudyFacts, table: LatencyTable, config: SearchConfig) -> list[Architecture]:
    """Architectures that may be trained, the fastest first; the dense model is none."""
    able = [a for a in feasibility.trainable(facts, table, config) if a != facts.baseline]
    return sorted(able, key=table.share)


def middle(facts: StudyFacts, table: LatencyTable, config: SearchConfig) -> Architecture:
    """The architecture that a calibration trains: the middle one of `trainable_by_latency`, by latency."""
    able = trainable_by_latency(facts, table, config)
    return able[len(able) // 2]
