"""Does an engine alone meet the budget, nothing pruned? The dense model on every one installed here, before spending.

    runtime, precision -> latency paired with dense on the asked runtime     (a process per runtime: `latency.alone`)
                       -> quality of what it writes, of the float dense model's on the same validation examples

What is found is an estimate of one process. It is no certificate: `command` gives the line that certifies.
How an engine takes a model over is `latency.runtimes`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nash_search.config import MEASURED_FIELDS, LatencyBudget, SearchConfig, TaskConfig, Workload, digest
from nash_search.config_loader import flag_of
from nash_search.encoder_rows import EncoderRows
from nash_search.encoder_rows import document as json_of
from nash_search.errors import NashSearchError
from nash_search.fidelity import KEPT_SHARE, Fidelity
from nash_search.files import write_atomic
from nash_search.latency import alone, fresh_process
from nash_search.latency.cache import drifted
from nash_search.latency.runtimes.eager import RUNTIME as EAGER
from nash_search.records import Quality
from nash_search.runtimes import RUNTIMES
from nash_search.summary_rows import Certifies, EngineAnswer, EnginesRow, EngineTried
from nash_search.tasks.scoring import quality_of
from nash_search.tasks.task import Task
from nash_search.traffic import DATA, FIXED
from nash_search.trial.dense import Dense
from nash_search.trial.engines import DenseOnEngine, Engines
from nash_search.trial.job import Say

PROTOCOL = 1
"""Raise when timing or scoring changes: what was kept of before is then not used."""
LIMIT_S = 360.0
"""For all of it, however large the model."""
OWN_SHARE = 0.9
"""A process plans with less than its share of the limit, so that it ends by itself."""
EXAMPLES, ENOUGH = 256, 200
"""Validation examples that are written for; train fills up a split that has fewer than the latter."""
MODULES = {name: row.needs for name, row in RUNTIMES.items() if row.needs}
"""What each extra installs."""


def absent() -> tuple[str, ...]:
    """Extras that are not installed."""
    return tuple(name for name, modules in MODULES.items() if not all(map(importlib.util.find_spec, modules)))


def versions() -> dict[str, str]:
    """Of what is installed."""
    modules = {module for name in MODULES if name not in absent() for module in MODULES[name]}
    return {module: importlib.metadata.version(module) for module in sorted(modules)}


def runtimes_here(workload: Workload) -> tuple[str, ...]:
    """Runtimes that serve a workload's call otherwise than it asks, as far as that is known without loading them."""
    asked = workload.dtype, workload.quantize
    more = workload.runtime != "eager" or any(pair != asked for pair in EAGER.precisions(workload.device))
    return (*(["eager"] if more else []), *(name for name in MODULES if name not in absent()))


def tried_or_known(
    dense: Dense,
    workload: Workload,
    facts: Sequence[dict[str, Any]],
    dense_ms: float,
    known: Path,
    say: Say,
    guard: Callable[[], AbstractContextManager[Any]],
) -> Engines:
    """What is known of this very question where the dense model has not drifted since, else all tried now.

    Args:
        dense: model and task.
        workload: the asked call.
        facts: what else decides latency and quality: digests of model and data, device, protocols.
        dense_ms: the dense latency as just timed.
        known: folder that keeps what was tried.
        say: told before anything is.
        guard: as of `dense_on_engines`.
    """
    names = runtimes_here(workload)
    if not names:
        return Engines(absent=absent())
    call, generation = workload.model_dump(mode="json"), dense.task.generation
    question = digest([PROTOCOL, call, generation, versions(), *facts])
    place = known / f"engines-{question[:32]}.json"
    found = remembered(place, dense_ms)
    if found is None:
        say("engines", {"runtimes": names, "limit_s": LIMIT_S})
        with dense.placed() as folder:
            found = dense_on_engines(folder, dense.teacher, dense.task, workload, guard=guard)
        if found.whole:
            known.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomic(place, found.model_dump_json())
    return found


def dense_on_engines(
    folder: Path,
    model: Any,
    task: Task,
    workload: Workload,
    *,
    guard: Callable[[], AbstractContextManager[Any]],
    limit_s: float = LIMIT_S,
) -> Engines:
    """Take the dense model to every runtime here, a process each; none of them can end the search.

    Args:
        folder: its checkpoint.
        model: the same, loaded, in float32.
        task: validation examples and metric.
        workload: the asked call, on the asked runtime.
        guard: entered around every batch that `model` writes.
        limit_s: for all of it; what is not reached says so.
    """
    began_s, names = time.monotonic(), runtimes_here(workload)
    if not names:
        return Engines(absent=absent())
    examples = task.validation.first(EXAMPLES)
    if len(examples) < ENOUGH:
        examples = examples.followed_by(task.train.first(ENOUGH - len(examples)))
    rows = examples.inputs
    beams = int(task.generation.get("num_beams", 1))
    longest = int(task.generation.get("max_new_tokens", task.max_output_tokens))

    def scored(tokens: Sequence[Sequence[int]] | None) -> Quality | None:
        if not tokens:
            return None
        texts = list(task.tokenizer.batch_decode([list(row) for row in tokens], skip_special_tokens=True))
        return quality_of(texts, examples, task, "validation")

    def write(batch: EncoderRows) -> list[list[int]]:
        with guard():
            return EAGER.tokens(model, batch, beams=beams, max_new_tokens=longest)

    reference = scored(alone.written(write, rows, began_s + limit_s / (len(names) + 1)))
    tried: list[DenseOnEngine] = []
    for done, name in enumerate(names):
        left_s = (limit_s - (time.monotonic() - began_s)) / (len(names) - done)
        job = alone.Job(
            folder=str(folder.resolve()), asked=workload, runtime=name, rows=json_of(rows) if reference else (),
            generation=task.generation, beams=beams, max_new_tokens=longest, limit_s=OWN_SHARE * left_s,
        )  # fmt: skip
        for taken in _taken(job, left_s):
            quality = scored(taken.tokens)
            if quality is not None:
                how = f"{taken.workload.runtime} {taken.workload.dtype} quantize={taken.workload.quantize}"
                quality = quality.model_copy(update={"signature": f"{quality.signature}|served:{how}"})
            kept = None
            if quality is not None and reference is not None:
                kept = max(0.0, Fidelity(served=quality, twin=reference).share)
            shown = taken.model_dump(include={"workload", "latency", "reason", "refused"})
            tried.append(DenseOnEngine.model_validate(shown | {"quality": quality, "kept": kept}))
    seconds = time.monotonic() - began_s
    return Engines(tried=tuple(tried), absent=absent(), reference=reference, seconds=round(seconds, 1))


def _taken(job: alone.Job, limit_s: float) -> list[alone.Taken]:
    """A process's lines; where there are none, one that says why."""
    named = Workload.model_validate(job.asked.model_dump() | {"runtime": job.runtime, "quantize": "none"})
    try:
        result = fresh_process.run_job(job.model_dump(mode="json"), limit_s)
    except NashSearchError as error:
        return [alone.Taken(workload=named, reason=str(error))]
    if result is None:
        return [alone.Taken(workload=named, reason=f"not done within {limit_s:.0f} s")]
    return [alone.Taken.model_validate(one) for one in result["taken"]]


def remembered(known: Path, dense_ms: float) -> Engines | None:
    """What was found before, unless the dense model has drifted since; None where there is nothing of use."""
    try:
        found = Engines.model_validate_json(known.read_bytes())
    except (OSError, ValueError):
        return None
    stale = any(e.latency is not None and drifted(e.latency, dense_ms) for e in found.tried)
    return None if stale else found.model_copy(update={"remembered": True})


def command(
    folder: Path,
    task: TaskConfig,
    engine: DenseOnEngine,
    budget: LatencyBudget,
    dense_ms: float,
    traffic: str = FIXED,
) -> str:
    """The line that certifies this engine for this budget (milliseconds: `measure` has no other runtime beside it).

    A quantised engine's names the data too, for then `measure` compares its quality with float32's, and so does one
    that is timed on the data's lengths.
    """
    call, ms = engine.workload, budget.ms_at(dense_ms)
    asked = {
        "runtime": call.runtime,
        "quantize": call.quantize if call.quantize != "none" else None,
        "dtype": call.dtype if call.dtype != "float32" or call.device != "cpu" else None,
        "device": call.device,
        "threads": call.threads if call.device == "cpu" else None,
        "batch-size": call.batch_size,
        "input-tokens": call.input_tokens if traffic == FIXED else None,
        "output-tokens": call.output_tokens if traffic == FIXED else None,
        "beams": call.beams,
        "traffic": traffic if traffic != FIXED else None,
        "budget-ms": budget.alike(f"{ms:.4g}").asked,
    }
    flags = [part for name, value in asked.items() if value is not None for part in (f"--{name}", str(value))]
    data = task.model_dump(include=set(MEASURED_FIELDS), exclude_defaults=True) | (
        {} if task.data else {"name": task.name}
    )
    for name, value in data.items() if call.quantize != "none" or traffic == DATA else ():
        flags += [flag_of(f"task.{name}"), *([] if value is True else [str(value)])]
    return shlex.join(["nash-search", "measure", str(folder), *flags])


def document(
    found: Engines,
    config: SearchConfig,
    dense_ms: float,
    folder: Path | None,
    certifies: Certifies,
    others: Mapping[float, float] = MappingProxyType({}),
) -> EnginesRow:
    """What was found, and per budget what answers it without pruning.

    Args:
        found: what was tried.
        config: budgets, task, and the largest drop of quality that was allowed.
        dense_ms: the study's dense latency, on the asked runtime.
        folder: the dense checkpoint, for the command (None: it lies in no folder of the user's).
        certifies: what a certificate can tell apart here (`margins.certifies`).
        others: by percentile, the dense model's where a budget is of another than the study's own.
    """
    reference = found.reference
    answers: list[EngineAnswer | None] = []
    for budget in config.budgets:
        of_ms = others.get(budget.percentile, dense_ms)
        share, ms = budget.share_of(of_ms), budget.ms_at(of_ms)
        margin = certifies.ms_margin if budget.share is None else certifies.share_margin
        best = found.at(budget.percentile).answer(share, margin, config.max_drop_pct)
        if best is None:
            answers.append(None)
            continue
        line = "" if folder is None else command(folder, config.task, best, budget, of_ms, config.traffic)
        said: dict[str, Any] = {"asked": budget.asked, "budget_ms": ms, "needs_ms": ms * (1 - margin), "command": line}
        answers.append(EngineAnswer(**_told(best, of_ms), **said, verdict=best.verdict(share, margin)))
    return EnginesRow(
        tried=tuple(EngineTried(**_told(engine, dense_ms)) for engine in found.tried),
        answers=tuple(answers),
        absent=found.absent,
        seconds=found.seconds,
        remembered=found.remembered,
        examples=reference.n if reference is not None else 0,
        reference_quality=reference.value if reference is not None else None,
        kept_at_least=KEPT_SHARE,
    )


def _told(engine: DenseOnEngine, dense_ms: float) -> dict[str, Any]:
    found, call = engine.latency, engine.workload
    told: dict[str, Any] = {
        "runtime": call.runtime,
        "dtype": call.dtype,
        "quantize": call.quantize,
        "latency_ms": None,
        "speedup": None,
        "quality": engine.quality.value if engine.quality is not None else None,
        "kept": engine.kept,
        "status": found.status if found is not None else None,
        "reason": engine.reason,
    }
    if found is None:
        return told
    upper = found.ratio_bounds[1]
    upper_ms = upper * dense_ms if upper < float("inf") else None
    return told | {"latency_ms": found.ratio * dense_ms, "upper_ms": upper_ms, "speedup": found.speedup}
