"""One search from question to answer, the stages in their order.

    workload -> probe (or the study's own) -> below the floor? -> study, reconciled -> trials
             -> who meets the budgets? -> winners at length -> certify -> document

Each stage lives in its own module; this one only passes values on, says what happens, and decides the
exit code: 0 when a budget is met, 3 when none is.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nash_search import errors
from nash_search.config import Architecture, SearchConfig, digest
from nash_search.files import write_atomic
from nash_search.latency_record import Latency
from nash_search.records import TrialRecord
from nash_search.results import Answers, Certification, judged
from nash_search.search import (
    calibration,
    certify,
    feasibility,
    finalists,
    held_out_test,
    margins,
    serial_runner,
    spending,
    summary,
    unfinished,
)
from nash_search.search import plan as planning
from nash_search.search import question as questions
from nash_search.search.callbacks import Listener, Listeners, SearchResult
from nash_search.search.candidates import unbeaten
from nash_search.search.scheduler import OUT_OF_TIME, Scheduler
from nash_search.search.signals import Interruption
from nash_search.storage import locks, recovery
from nash_search.storage.study import Study
from nash_search.summaries import Summary
from nash_search.trial import cost, shared_training
from nash_search.trial.evaluator import Evaluator, open_evaluator
from nash_search.trial.job import TEACHER_OUTPUTS, JobSource

log = logging.getLogger(__name__)

CONFIG = "config.json"
NOTHING = Certification(points=(), dense_checkpoint="")
"""The certification of a search without a certified front: it meets no budget."""


def search(
    config: SearchConfig,
    *,
    results: Path | str = "results",
    listeners: Sequence[Listener] = (),
    fork: bool = False,
) -> SearchResult:
    """Run or continue the study that a configuration asks for.

    Args:
        config: the question, its budgets and how much to spend.
        results: folder of studies.
        listeners: told of stages, trials and progress.
        fork: where the study of this name asks another question, begin a new one from its front.

    Raises:
        nash_search.errors.NashSearchError: see its subclasses and their exit codes.
        nash_search.search.signals.Interrupted: after SIGINT or SIGTERM; the study can be continued.
    """
    if not config.budgets:
        raise errors.InvalidInput("at least one latency budget must be given (--budget-ms), but got none")
    began = time.monotonic()
    evaluator = open_evaluator(config)
    interruption = Interruption()
    with interruption.handled():
        with interruption.interruptible():
            config = config.model_copy(update={"recipe": config.recipe.on(evaluator.workload().device)})
            question = questions.resolved_question(config, evaluator)
            questions.check_requests(config, evaluator)
        folder = Path(results) / config.study_name
        seeds: list[Architecture] = []
        if fork and (folder / CONFIG).exists():
            certified = certify.read(folder)
            seeds = [p.architecture for p in certified.points] if certified is not None else []
            config = config.model_copy(update={"study": f"{config.study_name[:56]}-{_fork_hash(question, config)}"})
            folder = Path(results) / config.study_name
        if folder.is_symlink():
            raise errors.InvalidInput(f"study folder must not be a symbolic link, but {folder} is one")
        if not (folder / CONFIG).exists():
            with interruption.interruptible():  # a model that no export can hold would fail after its training
                evaluator.check_export(folder.absolute())
        if not folder.exists():
            with interruption.interruptible():
                evaluator.dense_quality()  # a model that does not know the data is refused before anything is written
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locks.only_driver(folder), locks.only_driver_in(config.storage, config.study_name):
            if config.storage is None:
                recovery.check_database(folder / recovery.DATABASE)
            return _Run(config, evaluator, folder, question, Listeners(listeners), interruption, began).run(seeds)


def _fork_hash(question: dict[str, Any], config: SearchConfig) -> str:
    """Of the question and its budgets: a fork with looser ones is another study than the fork before it."""
    return digest({**question, "budgets": sorted(map(str, (b.bound for b in config.budgets)))})[:6]


class _Run:
    """One search while it holds the study's lock."""

    def __init__(
        self,
        config: SearchConfig,
        evaluator: Evaluator,
        folder: Path,
        question: dict[str, Any],
        say: Listeners,
        interruption: Interruption,
        began: float,
    ) -> None:
        self.asked, self.evaluator, self.folder, self.question = config, evaluator, folder, question
        self.config = spending.within(config, spending.of_study(folder))
        self.say, self.interruption, self.began = say, interruption, began
        self.workload = evaluator.workload()
        self.workers = 1 if config.serial else cost.worker_count(config, self.workload.device)

    def run(self, seeds: Sequence[Architecture]) -> SearchResult:
        """Every stage in its order."""
        config, say = self.config, self.say
        load_s = time.monotonic() - self.began
        filled = config.search_space.filled(self.evaluator.decoder_layers())
        call, notes = (
            self.workload.model_dump(mode="json"),
            (*self.evaluator.notes(), *feasibility.notes(filled, config.trials)),
        )
        say("workload", {"workload": call, "study": config.study_name, "notes": notes})
        study = planning.begun_study(config, self.folder)
        if study is not None:
            questions.same_question(study.facts, self.question, config, self.evaluator, self.folder)
        with self.interruption.interruptible():
            begun = study is not None
            self.table = planning.latency_table(config, self.evaluator, self.folder, filled, say, begun=begun)
            self.dense = planning.dense_quality(self.evaluator, self.folder, begun=begun)
            self._keep_dense()
            self.engines = planning.dense_on_engines(self, say, begun=begun)
        self.facts = study.facts if study is not None else planning.study_facts(self)
        self.terms = planning.terms(config, self.facts, self.table)
        questions.check_loosest(self.facts, config, self.table)
        self.effect = margins.learnt(self.folder, self.evaluator.fingerprint())
        with self.interruption.interruptible():
            records = study.records() if study is not None else ()
            spends = spending.length_and_cost(self, records, load_s, None if study else time.monotonic() - self.began)
            self.config = spending.within(self.asked, spends.length)
            plan = planning.plan(self, spends, records, load_s)
        say("plan", plan.to_json())
        if not any(feasibility.fits(self.facts, self.table, a) for a in self.facts.space.architectures()):
            nothing = judged(NOTHING, self.terms)
            answer = self._summary(nothing, Scheduler.NO_TRIALS, 0.0, [])
            say("infeasible", answer.to_json())
            return SearchResult(folder=self.folder, answers=nothing, summary=answer)
        study = study or planning.new_study(config, self.folder, self.facts)
        try:
            ended = self._keep_question()
            with_recipe = self._calibrated(study)
        except BaseException:
            study.close()
            raise
        scheduler = Scheduler(
            study,
            self.table,
            with_recipe,
            self.workload,
            workers=self.workers,
            listeners=say.listeners,
            extra_anchors=seeds,
            load_s=load_s,
            spent_s=time.monotonic() - self.began,
        )
        try:
            self._train(scheduler, ended)
            try:
                return self._certify(scheduler)
            except Exception as error:
                self._leave_unfinished(scheduler, error)
                told = unfinished.as_told(error, self.folder)
                if told is error:
                    raise
                raise told from error
        finally:
            scheduler.study.close()

    def _keep_dense(self, *, opened: bool = False) -> None:
        self.vocabulary = self.evaluator.keep_dense(self.folder, opened=opened)
        if self.vocabulary is not None:
            self.say("vocabulary", self.vocabulary)

    def _keep_question(self) -> bool:
        """Write `config.json`, which `resume` reads; True if all trials had ended and only what follows had failed."""
        plain = self.asked.model_copy(update={"storage": None})
        ended = unfinished.only_the_end_is_missing(self.folder, plain)
        write_atomic(self.folder / CONFIG, plain.model_dump_json(indent=1))
        return ended

    def _calibrated(self, study: Study) -> SearchConfig:
        """What the trials are asked: the question, with the rates and labels that a calibration found."""
        found = calibration.calibrated(self, study, self._run_jobs, self.say)
        if found is None:
            return self.config
        self.say("recipe", found.model_dump(mode="json"))
        return self.config.model_copy(update={"recipe": found.chosen.within(self.config.recipe)})

    def _train(self, scheduler: Scheduler, ended: bool) -> None:
        (self.folder / "trials").mkdir(exist_ok=True)
        recovery.reconcile(scheduler.study, self.table)
        scheduler.tidy()
        trained = scheduler.trained(scheduler.study.rows())
        self.say("search", {"trials": self.config.trials, "trained": trained, "workers": self.workers})
        try:
            dense = scheduler.dense_job()
            if dense is not None:
                serial_runner.run_job(dense, scheduler, self.interruption, dense=True)
            if not (ended and trained):
                self._run_jobs(scheduler)
        except BaseException:
            scheduler.interrupted()
            raise

    def _run_jobs(self, jobs: JobSource) -> None:
        if self.config.serial:
            serial_runner.run(jobs, self.interruption)
        else:
            from nash_search.search import ray_runner  # ray takes seconds to import

            self.evaluator.release()  # the workers train on the same card
            ray_runner.run(jobs, self.folder, self.interruption)

    def _leave_unfinished(self, scheduler: Scheduler, error: Exception) -> None:
        """What is known, as `summary.json` and tables: a search that cost hours ends with an answer."""
        records = scheduler.study.records()
        try:
            found = judged(certify.read(self.folder) or NOTHING, self.terms)
            answer = self._summary(found, scheduler.counts(), scheduler.candidates.hypervolume(), records)
            known = unfinished.answers(answer.budgets, records, self.terms, self.folder)
            answer = answer.model_copy(update={"budgets": known, "unfinished": " ".join(str(error).split())})
            summary.write_tables(self.folder, records, answer)
            self.say("unfinished", answer.to_json())
        except Exception as beside:  # a full disk takes this too; the first error is the one to tell
            log.warning("no answer could be left: %s: %s", type(beside).__name__, beside)

    def _certify(self, scheduler: Scheduler) -> SearchResult:
        records = scheduler.study.records()
        spent_s = self.config.time_budget_s if scheduler.why_done == OUT_OF_TIME else None
        unfinished.check_trained(records, self.facts.baseline, self.folder, spent_s)
        margins.keep_trials(self.folder, records, self.evaluator.dense_folder())
        front = {r.number for r in scheduler.candidates.front()}
        able = [r for r in records if r.checkpoint and self._admitted(r.architecture)]
        able = [r for r in able if r.number in front or (self.folder / str(r.checkpoint)).is_dir()]  # weights dropped
        candidates = scheduler.candidates.to_certify(able)
        beside = sum(r.number not in front for r in candidates)
        guide = shared_training.summary(records)
        if guide is not None:
            self.say("shared", guide)
        self.say("front", {"points": len(candidates) - beside, "beside": beside, "why": scheduler.why_done})
        found = self._with_finalists(scheduler, candidates)
        with self.interruption.interruptible():
            found = held_out_test.score(self.folder, found, self.evaluator, self.say)
            self._keep_dense(opened=found.certification.opened > 0)
        answer = self._summary(found, scheduler.counts(), scheduler.candidates.hypervolume(), records)
        summary.write_tables(self.folder, records, answer)
        shutil.rmtree(self.folder / TEACHER_OUTPUTS, ignore_errors=True)
        self.say("done", answer.to_json())
        return SearchResult(folder=self.folder, answers=found, summary=answer)

    def _with_finalists(self, scheduler: Scheduler, candidates: list[TrialRecord]) -> Answers:
        """The candidates certified, and with them every winner as it was trained at length and with other seeds."""
        config, able = self.config, [r for r in candidates if r.architecture != self.facts.baseline]
        models, _ = cost.finalists(config, steps := spending.winners_steps(scheduler))
        decided: dict[str, Latency] = {}
        if models:
            open_ones = finalists.undecided(able, self.terms)
            with self.interruption.interruptible():
                decided = certify.decide(self.folder, open_ones, self.evaluator, config, self.say)
        picked: list[TrialRecord] = []
        more = finalists.expected_winners(able, self.terms, decided)
        while True:
            picked += more
            if models:
                self._run_jobs(finalists.Finalists(scheduler, picked, steps, self.say))
            again = finalists.trained(self.folder, self.facts.question_digest, able)
            with self.interruption.interruptible():
                everything = [*unbeaten(candidates, again, config.budgets), *again]
                found = certify.certify(self.folder, everything, self.evaluator, config, self.say, self.terms)
            won = finalists.certified_winners(able, found)
            more = [r for r in won if r not in picked]
            if not models or not more:
                return found

    def _admitted(self, architecture: Architecture) -> bool:
        """The dense model is a point of the front only where a budget admits it."""
        return architecture != self.facts.baseline or self.facts.loosest_share >= 1

    def _summary(
        self, answers: Answers, counts: dict[str, int], hypervolume: float, records: Sequence[TrialRecord]
    ) -> Summary:
        return summary.full(
            self,
            answers,
            records,
            counts=counts,
            hypervolume=hypervolume,
            elapsed_s=time.monotonic() - self.began,
            vocabulary=self.vocabulary,
        )
