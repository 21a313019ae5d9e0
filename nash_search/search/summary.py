"""What a search leaves behind in words and numbers: the summary, and the exported tables.

`summary.json` holds what `--json` prints with what the reports need beside it (reference point, standard errors,
intervals). Everything here is an export: the study, its certificate and the trial folders are the truth.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nash_search import intervals
from nash_search.config import LatencyBudget, SearchConfig
from nash_search.fidelity import Fidelity
from nash_search.files import csv_cell, write_atomic
from nash_search.latency.measurement import of_requests
from nash_search.latency_table import LatencyTable
from nash_search.plain_json import finite
from nash_search.records import TrialRecord
from nash_search.results import Answers, BudgetAnswer, CertifiedPoint, Terms, Training, over_seeds
from nash_search.search import calibration, margins, plan, probe
from nash_search.search.case import Case
from nash_search.storage import provenance
from nash_search.summaries import SUMMARY, Summary
from nash_search.summary_rows import (
    BudgetRow,
    DenseRow,
    FidelityRow,
    FinalistRow,
    Floor,
    FrontRow,
    Inputs,
    Vocabulary,
    Window,
)
from nash_search.trial import shared_training, window


def full(
    case: Case,
    answers: Answers,
    records: Sequence[TrialRecord],
    *,
    counts: dict[str, int],
    hypervolume: float,
    elapsed_s: float,
    vocabulary: dict[str, Any] | None = None,
) -> Summary:
    """The whole summary; `Summary.public` is the part that is promised.

    Args:
        case: what was known before anything was trained.
        answers: what the certified front gives each budget; a front without points meets none.
        records: of the study's trials.
        counts: trials by status.
        hypervolume: of all measured trials.
        elapsed_s: of this run.
        vocabulary: what trimming it gained and cost (None: it was not trimmed).
    """
    config, facts, found = case.config, case.facts, answers.certification
    points, folder, scale_ms = found.points, case.folder, answers.terms.shown_dense_ms
    effect = next((p.latency.effect for p in points if p.latency.effect is not None), case.effect)
    again = [t for p in points for t in p.seeds if t.finish_steps or t.seed != config.seed]
    fastest, _ = probe.floor(case.table, facts.space.architectures())
    parameters = {r.number: r.parameters for r in records}
    others = answers.terms.others.items()
    yardsticks = {f"{percentile:g}": known for percentile, known in others}
    shortened = window.read(folder)
    gained: dict[str, Any] = {} if shortened is None else {"window": Window(**shortened)}
    percentile = plan.of_requests(config) | ({"yardsticks": yardsticks} if yardsticks else {})
    nearest_feasible = {
        a.budget: nearest(case.table, config, facts.baseline.decoder_layers, a.budget, answers.terms, points)
        for a in answers.budgets
    }
    return Summary(
        study=config.study_name,
        task=config.task.name,
        device=case.workload.device,
        workload=case.workload,
        dense=dense_row(case, answers, records),
        budgets=tuple(budget_row(a, folder, nearest_feasible=nearest_feasible[a.budget]) for a in answers.budgets),
        front=tuple(front_row(p, folder, p.parameters or parameters.get(p.number), scale_ms) for p in points),
        trials=counts,
        hypervolume=hypervolume,
        elapsed_s=round(elapsed_s, 3),
        data=case.evaluator.data(),
        certifies=margins.certifies(config.budgets, effect, config.certify_rounds, points[0].latency)
        if points
        else margins.planned(config, case.table, effect),
        inputs=Inputs(**case.evaluator.inputs()),
        vocabulary=None if vocabulary is None else Vocabulary(**vocabulary),
        **gained,
        engines=plan.told_engines(case),
        device_name=device_name(case.table.fingerprint),
        metric=facts.quality_metric,
        direction=facts.direction,
        decoder_layers=facts.baseline.decoder_layers,
        floor=Floor(architecture=fastest.slug, share=answers.terms.floor_share),
        probe_dense_ms=facts.dense_ms,
        reference=plan.reference(facts),
        **percentile,
        finalists=tuple(_finalist(p, t) for p in points for t in p.seeds),
        train_s=sum(r.train_s for r in records) + sum(t.train_s for t in again),
        train_steps=sum(r.train_steps for r in records) + sum(t.train_steps for t in again),
        device_s=sum(r.wall_s for r in records),
        shared=shared_training.summary(records),
        calibration=calibration.of_study(folder),
        sealed_test_openings=found.opened,
        unfinished=None,
        **provenance.told(folder, case.table.fingerprint),
    )


def dense_row(case: Case, answers: Answers, records: Sequence[TrialRecord]) -> DenseRow:
    """The dense model, on the test split where it was scored there."""
    found, validation = answers.certification, case.dense
    quality = found.dense_test or validation
    return DenseRow(
        **dense_times(answers),
        quality=quality.value,
        quality_split=quality.split,
        checkpoint=found.dense_checkpoint or None,
        quality_standard_error=quality.standard_error,
        beside=quality.beside,
        validation_quality=validation.value,
        validation_standard_error=validation.standard_error,
        parameters=next((r.parameters for r in records if r.architecture == case.facts.baseline), None),
    )


def dense_times(answers: Answers) -> dict[str, Any]:
    """Of a `DenseRow`: the latency beside the front, with bounds; the first probe's where there is no front."""
    terms, points = answers.terms, answers.certification.points
    if not points:
        return {"latency_ms": terms.dense_ms}
    latency = points[0].latency
    shown_ms = terms.shown_dense_ms or latency.dense_ms
    lower, upper = (finite(x * shown_ms / latency.dense_ms) for x in latency.dense_bounds_ms)
    return {"latency_ms": shown_ms, "lower_ms": lower, "upper_ms": upper}


def nearest(
    table: LatencyTable,
    config: SearchConfig,
    decoder_layers: int,
    budget: LatencyBudget,
    terms: Terms,
    points: Sequence[CertifiedPoint] = (),
) -> str | None:
    """The tightest budget, in the unit asked, that a certified point meets; before, that the probe promises.

    None where the limits shut out every point that was certified.
    """
    met = [p.latency.at(budget.percentile) for p in points if p.sound and terms.admits(p)]
    if not met and any(p.sound for p in points):
        return None
    if met and budget.share is not None:
        share = min(latency.ratio_bounds[1] for latency in met)
        if share <= 1:
            return budget.alike(f"{math.ceil(share * 100)}%").asked
    elif met:
        ms = min(latency.bounds_ms[1] for latency in met)
        if math.isfinite(ms):
            return budget.alike(probe.rounded_up(ms)).asked
    architectures = config.search_space.filled(decoder_layers).architectures()
    margin = margins.planned_margin(intervals.DEFAULT_OCCASION, config.certify_rounds)
    return probe.nearest_feasible(table, architectures, budget, margin).asked


def budget_row(answer: BudgetAnswer, folder: Path, **also: Any) -> BudgetRow:
    """One budget's answer; a share's milliseconds are those of the study's first probe. `also`: more of its fields."""
    point = answer.point
    if point is not None:
        effect, rounds = point.latency.effect, len(point.latency.rounds)
        also |= {"looks": point.latency.looks, "rounds": rounds, "occasion_sd": effect.sd if effect else None}
        also |= finish_told(point)
    if answer.shut_out is not None:
        also |= {"shut_out_quality": answer.shut_out.validation.value}
    return BudgetRow(
        asked=answer.budget.asked,
        budget_ms=answer.budget_ms,
        floor_ms=answer.floor_ms,
        verdict=answer.verdict,
        latency_ms=answer.latency_ms,
        upper_ms=answer.upper_ms,
        speedup=answer.latency.speedup if answer.latency else None,
        quality=point.quality.value if point else None,
        quality_standard_error=point.quality.standard_error if point else None,
        quality_split=point.quality.split if point else None,
        checkpoint=str(folder / point.checkpoint) if point else None,
        architecture=point.architecture if point else None,
        seeds=over_seeds(point) if point else None,
        **also,
    )


def finish_told(point: CertifiedPoint) -> dict[str, Any]:
    """Of a budget's and of the front's rows: was it trained at length, and what had the search's own training given?"""
    searched = point.searched
    return {"finish_steps": point.finish_steps, "searched_quality": searched.value if searched else None}


def _finalist(point: CertifiedPoint, training: Training) -> FinalistRow:
    return FinalistRow(
        number=point.number,
        architecture=point.architecture,
        seed=training.seed,
        finish_steps=training.finish_steps,
        exported=training.key == point.key,
        share=training.share,
        meets=training.meets,
        train_s=training.train_s,
        train_steps=training.train_steps,
        validation=training.validation.value,
        test=training.test.value if training.test is not None else None,
    )


def front_row(point: CertifiedPoint, folder: Path, parameters: int | None, dense_ms: float | None) -> FrontRow:
    """A point of the front; with only shares asked, its milliseconds are ratio x the first probe's dense ones."""
    latency, quality = point.latency, point.quality
    ms, lower, upper = point.shown_ms(dense_ms)
    also = finish_told(point)
    if point.fidelity is not None:
        also["fidelity"] = fidelity_row(point.fidelity)
    if latency.workload.traffic is not None:
        also["percentiles"] = of_requests(latency)
    return FrontRow(
        number=point.number,
        architecture=point.architecture,
        latency_ms=ms,
        lower_ms=finite(lower),
        upper_ms=finite(upper),
        measured_ms=latency.median_ms,
        occasion_sd=latency.effect.sd if latency.effect is not None else None,
        share=latency.ratio,
        share_upper=finite(latency.ratio_bounds[1]),
        speedup=latency.speedup,
        quality=quality.value,
        quality_split=quality.split,
        quality_standard_error=quality.standard_error,
        beside=quality.beside,
        validation_quality=point.validation.value,
        parameters=parameters,
        same_tokens=point.same_tokens,
        status=latency.status,
        checkpoint=str(folder / point.checkpoint),
        **also,
    )


def fidelity_row(found: Fidelity) -> FidelityRow:
    """What is kept of the float twin's quality."""
    return FidelityRow(
        quality=found.served.value,
        float_quality=found.twin.value,
        metric=found.twin.metric,
        share=finite(found.share),
        examples=found.n,
        holds=found.holds,
    )


def device_name(fingerprint: dict[str, Any]) -> str:
    """The device in words, from what a latency was measured on."""
    return str(fingerprint.get("cpu_model") or fingerprint.get("name") or fingerprint.get("device") or "")


def write_tables(folder: Path, records: Sequence[TrialRecord], summary: Summary) -> None:
    """`trials.csv`, `front.csv`, `front.json` and `summary.json`, each replaced whole."""
    import pandas as pd

    assert summary.dense is not None and summary.dense.latency_ms is not None
    frame = pd.DataFrame([_trial_row(r, summary.dense.latency_ms) for r in records])
    write_atomic(folder / "trials.csv", frame.map(csv_cell).to_csv(index=False))
    write_summary(folder, summary)


def write_summary(folder: Path, summary: Summary) -> None:
    """`front.csv`, `front.json` and `summary.json`, each replaced whole."""
    import pandas as pd

    told = summary.to_json()
    rows = [{**{k: v for k, v in p.items() if not isinstance(v, dict)}, **p["architecture"]} for p in told["front"]]
    write_atomic(folder / "front.csv", pd.DataFrame(rows).map(csv_cell).to_csv(index=False))
    write_atomic(folder / "front.json", json.dumps(told["front"], indent=1))
    write_atomic(folder / SUMMARY, json.dumps(told, indent=1))


def _trial_row(record: TrialRecord, dense_ms: float) -> dict[str, Any]:
    latency, quality = record.latency, record.quality
    return {
        "number": record.number,
        "status": record.status,
        **record.architecture.model_dump(mode="json"),
        "share": latency.ratio if latency else None,
        "speedup": latency.speedup if latency else None,
        "latency_ms": latency.ratio * dense_ms if latency else None,
        "measured_ms": latency.median_ms if latency else None,
        "quality": quality.value if quality else None,
        "quality_standard_error": quality.standard_error if quality else None,
        "quality_split": quality.split if quality else None,
        "parameters": record.parameters,
        "sparsity_counted": record.sparsity_counted,
        "train_s": record.train_s,
        "train_steps": record.train_steps,
        "device_s": record.wall_s,
        "seed": record.seed,
        "reason": record.failure or record.infeasible or record.stopped,
        "message": record.message,
        "created": record.created,
        "checkpoint": record.checkpoint,
    }
