"""Before anything is spent: the study's latency table, what is fixed of a new study, the plan and its cost.

table      the study's own `probe.json` if it has begun; otherwise cached timings from this machine are reused and
           only missing shapes are timed
facts      what a new study fixes for good; `terms`: what its front will be judged by
plan       what each budget admits, what a trial costs, when the search will be done
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nash_search import errors, pareto
from nash_search.budget import MEDIAN
from nash_search.config import Architecture, LatencyBudget, SearchConfig, SearchSpace, Workload, digest
from nash_search.files import sqlite_url, take_place, write_atomic
from nash_search.latency_record import Latency
from nash_search.latency_table import LatencyTable, Yardstick, table_of
from nash_search.percentiles import PAIRS
from nash_search.plain_json import finite
from nash_search.records import Quality, TrialRecord
from nash_search.results import Terms
from nash_search.search import calibration, feasibility, margins, probe, spending
from nash_search.search.case import Case
from nash_search.search.margins import LATENCIES
from nash_search.search.question import PROBE
from nash_search.storage import recovery
from nash_search.storage.study import Study, StudyFacts, open_storage, remove_database
from nash_search.summaries import Plan
from nash_search.summary_rows import DenseRow, EnginesRow, Inputs, PlannedBudget, Reference
from nash_search.trial import dense_engines
from nash_search.trial.cost import certified_pairs, on_one_device
from nash_search.trial.engines import Engines
from nash_search.trial.evaluator import Evaluator
from nash_search.trial.job import Say

log = logging.getLogger(__name__)

DENSE = "dense.json"
ENGINES = "engines.json"
PROBE_LIMIT_S = 60.0
HYPERVOLUME_DROP_PCT = 20.0
"""Hypervolume's quality reference: this much below the dense model, unless `--max-drop` says otherwise."""


def latency_table(
    config: SearchConfig,
    evaluator: Evaluator,
    folder: Path,
    filled: SearchSpace,
    say: Say,
    *,
    begun: bool,
) -> LatencyTable:
    """The study's own table once it has begun; else a new one, in which no shape known here is timed again."""
    own = folder / PROBE
    if begun:
        return LatencyTable.model_validate_json(own.read_bytes())
    shapes = probe.shapes_to_probe(filled)
    found = timed_table(evaluator, shapes, folder.parent / LATENCIES, say, config.percentile)
    write_atomic(own, found.model_dump_json())
    return found


def timed_table(
    evaluator: Evaluator,
    shapes: list[Architecture],
    known: Path,
    say: Say,
    percentile: float = MEDIAN,
) -> LatencyTable:
    """These shapes with their latencies, timed again where they cannot be right.

    Args:
        evaluator: times.
        shapes: every depth and a few widths.
        known: folder of what was timed before.
        say: told of each timing.
        percentile: of a traffic's requests, which one the latencies are.

    Raises:
        Unfinished: the device is too busy for a table that makes sense.
    """

    def timed(asked: list[Architecture], *, again: bool = False) -> dict[Architecture, Latency]:
        say("probe", {"shapes": len(asked), "limit_s": PROBE_LIMIT_S, "again": again})
        return evaluator.probe(asked, PROBE_LIMIT_S, known, again=again)

    return probe.straightened(table_of(timed(shapes), percentile), lambda bent: timed(bent, again=True))


def dense_quality(evaluator: Evaluator, folder: Path, *, begun: bool) -> Quality:
    """The dense model on the validation split; scored once per study."""
    path = folder / DENSE
    if begun:
        return Quality.model_validate_json(path.read_bytes())
    found = evaluator.dense_quality()
    write_atomic(path, found.model_dump_json())
    return found


def begun_study(config: SearchConfig, folder: Path) -> Study | None:
    """The study, if it was begun.

    Raises:
        StorageDamaged: when it was, and its database or its table is gone.
    """
    path = folder / recovery.DATABASE
    if config.storage is None and not path.exists():
        if (folder / "config.json").exists():
            study = errors.typed_study(folder)
            raise errors.StorageDamaged(
                f"study {config.study_name} must have its database, but {path} is not there",
                fix=f"set NASH_SEARCH_STORAGE if it lies there, else run `nash-search recover {study}`",
            )
        return None
    storage = open_storage(config.storage or sqlite_url(path))
    if not Study.exists(storage, config.study_name):
        storage.engine.dispose()
        return None
    if not (folder / PROBE).exists():
        raise errors.StorageDamaged(
            f"study {config.study_name} must have its folder, but {folder} has no {PROBE}",
            fix="give the --results it was begun with, or choose another --study",
        )
    return Study(storage, config.study_name, folder, None)


def new_study(config: SearchConfig, folder: Path, facts: StudyFacts) -> Study:
    """A new study; its database appears under its name when it is complete."""
    name, path = config.study_name, folder / recovery.DATABASE
    if config.storage is not None:
        return Study(open_storage(config.storage), name, folder, facts)
    scratch = path.with_name(f".{path.name}.new")
    remove_database(scratch)
    Study(open_storage(sqlite_url(scratch)), name, folder, facts).close()
    take_place(scratch, path, durable=True)
    recovery.back_up(folder)
    return Study(open_storage(sqlite_url(path)), name, folder, None)


def dense_on_engines(case: Case, say: Say, *, begun: bool) -> Engines:
    """The dense model on other engines; tried once per study, and only where that was not switched off."""
    path = case.folder / ENGINES
    if begun:  # studies of before have none
        return Engines.model_validate_json(path.read_bytes()) if path.exists() else Engines()
    if not case.config.engines:
        return Engines()
    found = case.evaluator.dense_on_engines(case.table.call_ms, case.folder.parent / LATENCIES, say)
    write_atomic(path, found.model_dump_json())
    return found


def study_facts(case: Case) -> StudyFacts:
    """What a new study fixes for good."""
    config, table, dense = case.config, case.table, case.dense
    drop = config.max_drop_pct if config.max_drop_pct is not None else HYPERVOLUME_DROP_PCT
    filled = config.search_space.filled(case.evaluator.decoder_layers())
    limits = probe.limits(config.budgets, table)
    return StudyFacts(
        question=case.question,
        question_digest=digest(case.question),
        baseline=feasibility.baseline(filled, case.evaluator.decoder_layers()),
        loosest_share=max(limits.values()),
        limits=limits if config.of_requests else {},
        dense_ms=table.dense_ms,
        dense_quality=dense.value,
        quality_metric=dense.metric,
        direction=dense.direction,
        reference_quality=pareto.dropped(dense.value, drop, dense.direction),
    )


def terms(config: SearchConfig, facts: StudyFacts, table: LatencyTable) -> Terms:
    """What the front will be judged by."""
    _, share = probe.floor(table, facts.space.architectures())
    return Terms(
        budgets=config.budgets,
        limits=config.limits,
        dense_ms=facts.dense_ms,
        dense_quality=facts.dense_quality,
        direction=facts.direction,
        floor_share=share,
        others=yardsticks(config.budgets, table, facts.space),
    )


def yardsticks(budgets: Sequence[LatencyBudget], table: LatencyTable, space: SearchSpace) -> dict[float, Yardstick]:
    """By percentile, what budgets of another one than the table's are judged by."""
    found = {}
    for percentile in {b.percentile for b in budgets} - {table.percentile}:
        seen = table.at(percentile)
        _, share = probe.floor(seen, space.architectures())
        found[percentile] = Yardstick(dense_ms=seen.dense_ms, floor_share=share)
    return found


def told_engines(case: Case) -> EnginesRow:
    """What the dense model does on other engines, as the plan and the answer say it."""
    certifies = margins.planned(case.config, case.table, case.effect)
    dense_ms, folder = case.facts.dense_ms, case.evaluator.dense_folder()
    others = {percentile: known.dense_ms for percentile, known in case.terms.others.items()}
    return dense_engines.document(
        case.engines.at(case.config.percentile), case.config, dense_ms, folder, certifies, others
    )


def plan(case: Case, spends: spending.Spending, records: Sequence[TrialRecord] = (), load_s: float = 0.0) -> Plan:
    """Everything known before spending.

    Args:
        case: what the stages before have found out.
        spends: a trial's cost, and what a time budget has made of it.
        records: the study's trials so far.
        load_s: seconds a process takes to load libraries, model and data.
    """
    config, facts, table, dense = case.config, case.facts, case.table, case.dense
    fastest, _ = probe.floor(table, facts.space.architectures())
    lower_ms, upper_ms = map(finite, table.dense_bounds_ms(case.effect))
    return Plan(
        study=config.study_name,
        task=config.task.name,
        model=config.model,
        data=case.evaluator.data(),
        inputs=Inputs(**case.evaluator.inputs()),
        device=case.workload.device,
        workload=case.workload,
        metric=facts.quality_metric,
        decoder_layers=facts.baseline.decoder_layers,
        dense=DenseRow(
            latency_ms=facts.dense_ms,
            lower_ms=lower_ms,
            upper_ms=upper_ms,
            validation_quality=dense.value,
            validation_standard_error=dense.standard_error,
            quality_split=dense.split,
        ),
        budgets=tuple(
            PlannedBudget(
                asked=b.asked,
                budget_ms=b.ms_at(known.dense_ms),
                dense_ms=known.dense_ms,
                floor_ms=known.floor_share * known.dense_ms,
                verdict="infeasible" if known.floor_share > b.share_of(known.dense_ms) else "",
                **feasibility.fitting_sparsities(facts.space, table, b),
            )
            for b in config.budgets
            for known in [case.terms.yardstick(b)]
        ),
        certifies=margins.planned(config, table, case.effect),
        width_worth_pct=None if table.width_worth is None else 100 * table.width_worth,
        whole_encoders=feasibility.worth_training(facts.space, table, config) != facts.space,
        fastest=fastest.slug,
        engines=told_engines(case),
        trials=config.trials,
        calibration=calibration.planned(case),
        workers=case.workers,
        fitted=spends.length,
        **of_memory(case, spends),
        **spending.estimate(case, case.config, spends.trial, records, load_s),
        reference=reference(facts),
        **of_requests(config, case.workload),
    )


def of_memory(case: Case, spends: spending.Spending) -> dict[str, Any]:
    """A plan's keys on memory: a trial's and the device's GiB, and trials that share it; none where unknown."""
    one, device_gib = spends.trial, case.table.fingerprint.get("memory_gib")
    if one is None or one.memory_bytes is None or device_gib is None:
        return {}
    beside = on_one_device(case.config, case.workload.device, case.workers)
    return {"memory_gib": one.memory_bytes / 2**30, "device_memory_gib": device_gib, "beside": beside}


def of_requests(config: SearchConfig, call: Workload | None = None) -> dict[str, Any]:
    """Keys that only documents of requests have: the percentile, and in a plan the requests that a certificate times.

    Args:
        config: budgets, rounds and pairs.
        call: of a plan, whose certificate's requests are counted.
    """
    if not config.of_requests:
        return {}
    found: dict[str, Any] = {"percentile": config.percentile}
    if call is not None:
        pairs = certified_pairs(config, call.longer)
        found |= {"requests": config.certify_rounds * pairs, "certify_times": pairs * call.longer / PAIRS}
    return found


def reference(facts: StudyFacts) -> Reference:
    """The corner that hypervolume is measured from."""
    share = facts.reference_share
    return Reference(latency_ms=share * facts.dense_ms, share=share, quality=facts.reference_quality)
