"""What a search leaves behind in words and numbers: the JSON document, and the exported tables.

The document's keys are a promise (issue 2, point 7): `public` is what `--json` prints; `summary.json` holds
the same with what the reports need beside it (reference point, standard errors, intervals).
Everything here is an export: the study and the trial folders are the truth. How it was found out is unknown here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nash_search import intervals
from nash_search.config import LatencyBudget, SearchConfig, Workload
from nash_search.fidelity import Fidelity
from nash_search.files import csv_cell, write_atomic
from nash_search.latency_table import LatencyTable
from nash_search.records import Quality, TrialRecord
from nash_search.results import over_seeds
from nash_search.search import margins, probe
from nash_search.search.certify import Certification, CertifiedPoint, Training, choose
from nash_search.storage import provenance
from nash_search.storage.study import StudyFacts
from nash_search.trial import shared_training

PUBLIC = tuple("study task device workload dense budgets front trials hypervolume elapsed_s data engines".split())
PUBLIC_PARTS = {
    "workload": ("batch_size", "input_tokens", "output_tokens", "beams", "dtype", "threads", "runtime"),
    "dense": ("latency_ms", "quality", "quality_split", "checkpoint"),
}


def quality_floor(facts: StudyFacts, config: SearchConfig) -> float | None:
    """Worst quality an answer may have under `--max-drop` (None: no limit)."""
    if config.max_drop_pct is None:
        return None
    return dropped(facts.dense_quality, config.max_drop_pct, facts.direction)


def floor_of(summary: dict[str, Any], max_drop_pct: float | None) -> float | None:
    """The same from a study's summary."""
    if max_drop_pct is None:
        return None
    return dropped(summary["dense"]["validation_quality"], max_drop_pct, summary["direction"])


def dropped(value: float, percent: float, direction: str) -> float:
    """A quality made worse by so many percent of itself."""
    change = abs(value) * percent / 100
    return value - change if direction == "maximize" else value + change


def full(
    *,
    name: str,
    folder: Path,
    config: SearchConfig,
    facts: StudyFacts,
    workload: Workload,
    table: LatencyTable,
    certification: Certification | None,
    dense_validation: Quality,
    counts: dict[str, int],
    hypervolume: float,
    elapsed_s: float,
    effect: intervals.OccasionEffect = intervals.DEFAULT_OCCASION,
    records: Sequence[TrialRecord] = (),
    vocabulary: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    engines: dict[str, Any] | None = None,
    inputs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole document; see `public` for the part that is promised."""
    points = certification.points if certification is not None else ()
    effect = next((p.latency.effect for p in points if p.latency.effect is not None), effect)
    again = [t for p in points for t in p.seeds if t.seed != config.seed]
    floor_at, floor_share = probe.floor(table, facts.space.architectures())
    quality_limit = quality_floor(facts, config)
    parameters = {r.number: r.parameters for r in records}
    dense_ms = facts.dense_ms if config.relative or not points else points[0].latency.dense_ms
    test = certification.dense_test if certification is not None else None
    dense: dict[str, Any] = {
        "latency_ms": dense_ms,
        "quality": test.value if test else dense_validation.value,
        "quality_split": "test" if test else dense_validation.split,
        "checkpoint": certification.dense_checkpoint if certification is not None else None,
        "quality_standard_error": test.standard_error if test else dense_validation.standard_error,
        "beside": test.beside if test else dense_validation.beside,
        "validation_quality": dense_validation.value,
        "validation_standard_error": dense_validation.standard_error,
        "parameters": next((r.parameters for r in records if r.architecture == facts.baseline), None),
    }
    if points:
        scale = dense_ms / points[0].latency.dense_ms
        dense["lower_ms"], dense["upper_ms"] = (_number(x * scale) for x in points[0].latency.dense_bounds_ms)
    return {
        "study": name,
        "task": config.task.name,
        "device": workload.device,
        "workload": workload.model_dump(mode="json"),
        "dense": dense,
        "budgets": [
            {
                **budget_answer(b, points, quality_limit, facts.dense_ms, floor_share, folder),
                "nearest_feasible": nearest(table, config, facts.baseline.decoder_layers, b, points),
            }
            for b in config.budgets
        ],
        "front": [
            front_row(p, folder, p.parameters or parameters.get(p.number), dense_ms if config.relative else None)
            for p in points
        ],
        "trials": counts,
        "hypervolume": hypervolume,
        "elapsed_s": round(elapsed_s, 3),
        "data": data,
        "certifies": margins.certifies(
            config.budgets, effect, config.certify_rounds, points[0].latency if points else None
        ),
        "inputs": inputs,
        "vocabulary": vocabulary,
        "engines": engines,
        "device_name": device_name(table.fingerprint),
        "metric": facts.quality_metric,
        "direction": facts.direction,
        "decoder_layers": facts.baseline.decoder_layers,
        "floor": {"architecture": floor_at.slug, "share": floor_share},
        "probe_dense_ms": facts.dense_ms,
        "reference": {
            "latency_ms": facts.reference_share * facts.dense_ms,
            "share": facts.reference_share,
            "quality": facts.reference_quality,
        },
        "finalists": [_finalist(p, t) for p in points for t in p.seeds],
        "train_s": sum(r.train_s for r in records) + sum(t.train_s for t in again),
        "train_steps": sum(r.train_steps for r in records) + sum(t.train_steps for t in again),
        "device_s": sum(r.wall_s for r in records),
        "shared": shared_training.summary(records),
        "sealed_test_openings": certification.opened if certification is not None else 0,
        "unfinished": None,
        **provenance.told(folder, table.fingerprint),
    }


def nearest(
    table: LatencyTable,
    config: SearchConfig,
    decoder_layers: int,
    budget: LatencyBudget,
    points: Sequence[CertifiedPoint] = (),
) -> str:
    """The tightest budget, in the unit asked, that a certified point meets; before, that the probe promises."""
    met = [p.latency for p in points if p.sound]
    if met and budget.share is not None:
        share = min(latency.ratio_bounds[1] for latency in met)
        if share <= 1:
            return f"{math.ceil(share * 100)}%"
    elif met:
        ms = min(latency.bounds_ms[1] for latency in met)
        if math.isfinite(ms):
            return probe.rounded_up(ms).asked
    architectures = config.search_space.filled(decoder_layers).architectures()
    margin = margins.planned_margin(intervals.DEFAULT_OCCASION, config.certify_rounds)
    return probe.nearest_feasible(table, architectures, budget, margin).asked


def _number(value: float) -> float | None:
    """JSON knows no infinity."""
    return value if math.isfinite(value) else None


def budget_answer(
    budget: LatencyBudget,
    points: Sequence[CertifiedPoint],
    floor: float | None,
    dense_ms: float,
    floor_share: float,
    folder: Path,
) -> dict[str, Any]:
    """One budget's answer; a share's milliseconds are those of the study's first probe."""
    verdict, point = choose(points, budget, floor)
    budget_ms = budget.ms_at(dense_ms)
    seeds = over_seeds(point) if point is not None else None
    answer: dict[str, Any] = {
        "asked": budget.asked,
        "budget_ms": budget_ms,
        "floor_ms": floor_share * dense_ms,
        "verdict": verdict,
        "latency_ms": None,
        "upper_ms": None,
        "speedup": None,
        "quality": None,
        "quality_standard_error": None,
        "quality_split": None,
        "checkpoint": None,
        "architecture": None,
        "seeds": seeds,
    }
    if point is None:
        return answer
    latency, quality = point.latency, point.test or point.validation
    if budget.share is not None:  # judged on the paired ratio; said in the probe's milliseconds
        ms, upper = latency.ratio * dense_ms, latency.ratio_bounds[1] * dense_ms
    else:
        ms, upper = latency.median_ms, latency.bounds_ms[1]
    return answer | {
        "latency_ms": ms,
        "upper_ms": _number(upper),
        "speedup": latency.speedup,
        "quality": quality.value,
        "quality_standard_error": quality.standard_error,
        "quality_split": quality.split,
        "checkpoint": str(folder / point.checkpoint),
        "architecture": point.architecture.model_dump(mode="json"),
        "looks": latency.looks,
        "rounds": len(latency.rounds),
        "occasion_sd": latency.effect.sd if latency.effect is not None else None,
    }


def _finalist(point: CertifiedPoint, training: Training) -> dict[str, Any]:
    return {
        "number": point.number,
        "architecture": point.architecture.model_dump(mode="json"),
        "seed": training.seed,
        "exported": training.key == point.key,
        "share": training.share,
        "meets": list(training.meets),
        "train_s": training.train_s,
        "train_steps": training.train_steps,
        "validation": training.validation.value,
        "test": training.test.value if training.test is not None else None,
    }


def front_row(point: CertifiedPoint, folder: Path, parameters: int | None, dense_ms: float | None) -> dict[str, Any]:
    """A point of the front; with only shares asked, its milliseconds are ratio x the first probe's dense ones."""
    latency, quality = point.latency, point.test or point.validation
    if dense_ms is None:
        ms, (lower, upper) = latency.median_ms, latency.bounds_ms
    else:
        ms, lower, upper = (x * dense_ms for x in (latency.ratio, *latency.ratio_bounds))
    return {
        "number": point.number,
        "architecture": point.architecture.model_dump(mode="json"),
        "latency_ms": ms,
        "lower_ms": _number(lower),
        "upper_ms": _number(upper),
        "measured_ms": latency.median_ms,
        "occasion_sd": latency.effect.sd if latency.effect is not None else None,
        "share": latency.ratio,
        "share_upper": _number(latency.ratio_bounds[1]),
        "speedup": latency.speedup,
        "quality": quality.value,
        "quality_split": quality.split,
        "quality_standard_error": quality.standard_error,
        "beside": quality.beside,
        "validation_quality": point.validation.value,
        "parameters": parameters,
        "same_tokens": point.same_tokens,
        "status": latency.status,
        "checkpoint": str(folder / point.checkpoint),
        **({"fidelity": fidelity_told(point.fidelity)} if point.fidelity is not None else {}),
    }


def fidelity_told(found: Fidelity) -> dict[str, Any]:
    """What is kept of the float twin's quality, as JSON."""
    values = {"quality": found.served.value, "float_quality": found.twin.value, "metric": found.twin.metric}
    return values | {"share": _number(found.share), "examples": found.n, "holds": found.holds}


def device_name(fingerprint: dict[str, Any]) -> str:
    """The device in words, from what a latency was measured on."""
    return str(fingerprint.get("cpu_model") or fingerprint.get("name") or fingerprint.get("device") or "")


def public(document: dict[str, Any]) -> dict[str, Any]:
    """The promised keys only, in the promised order."""
    found = {name: document.get(name) for name in PUBLIC}  # studies of before say less
    for name, keys in PUBLIC_PARTS.items():
        found[name] = {key: document[name][key] for key in keys}
    return found


def write_tables(folder: Path, records: Sequence[TrialRecord], document: dict[str, Any]) -> None:
    """`trials.csv`, `front.csv`, `front.json` and `summary.json`, each replaced whole."""
    import pandas as pd

    frame = pd.DataFrame([_trial_row(r, document["dense"]["latency_ms"]) for r in records])
    write_atomic(folder / "trials.csv", frame.map(csv_cell).to_csv(index=False))
    write_summary(folder, document)


def write_summary(folder: Path, document: dict[str, Any]) -> None:
    """`front.csv`, `front.json` and `summary.json`, each replaced whole."""
    import pandas as pd

    rows = [{**{k: v for k, v in p.items() if not isinstance(v, dict)}, **p["architecture"]} for p in document["front"]]
    write_atomic(folder / "front.csv", pd.DataFrame(rows).map(csv_cell).to_csv(index=False))
    write_atomic(folder / "front.json", json.dumps(document["front"], indent=1))
    write_atomic(folder / "summary.json", json.dumps(document, indent=1))


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
