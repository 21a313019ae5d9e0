"""Checkpoints timed outside a search: any folder against its dense model, or a study's whole front again.

An export of ours carries `measurement.json`, which names the workload it was certified on and its teacher;
any other folder is timed on the lengths of the data that are named, or on assumed ones, which is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from nash_search import device as devices
from nash_search import latency, pruner
from nash_search.config import EMBEDDED, LatencyBudget, SearchConfig, TaskConfig, Workload, WorkloadRequest
from nash_search.errors import InvalidInput, shown
from nash_search.fidelity import Fidelity
from nash_search.intervals import DEFAULT_OCCASION
from nash_search.latency import runtimes
from nash_search.latency import workload as workloads
from nash_search.latency.runtimes.conversion import Converting
from nash_search.latency_record import Latency
from nash_search.percentiles import PAIRS
from nash_search.plain_json import kept_object, read_object
from nash_search.remeasured import MeasuredOn, Remeasured, TimedAgain, TimedBefore
from nash_search.results import CertifiedPoint
from nash_search.search import certify, margins, recertify
from nash_search.search.export_names import MEASUREMENT
from nash_search.summary_rows import DenseRow
from nash_search.tasks import models, traffic
from nash_search.tasks.g2p import teacher_folder
from nash_search.tasks.load import task_of_model
from nash_search.traffic import DATA, Traffic
from nash_search.trial.deployment import Deployment

LIMIT_S = 900.0
ASSUMED_INPUT_TOKENS, ASSUMED_OUTPUT_TOKENS = 128, 32
"""One call of a checkpoint about which nothing is known."""


def measure_folder(
    path: Path,
    against: Path | None,
    workload: Workload,
    *,
    budgets: Sequence[LatencyBudget] = (),
    rounds: int,
    pairs: int,
    results: Path | None = None,
) -> Latency:
    """A checkpoint folder in fresh processes, paired with its dense reference.

    Args:
        path: the folder to time.
        against: its dense reference (None: the teacher its record names; else it is timed alone).
        workload: what one `generate` is (`workload_of`, `workload.of_traffic`).
        budgets: to be decided; an ambiguous one asks for more rounds.
        rounds: fresh processes.
        pairs: timed pairs per process; of a traffic, requests.
        results: folder of studies, beside which it is kept how far this device's medians move (None: nowhere).

    Raises:
        InvalidInput: the folder or its reference is none.
    """
    record = measurement_of(path)
    if against is None and record is not None:
        against = dense_of(str(record["teacher"]), path.resolve().parent.parent)
    if against is None and any(b.share is not None for b in budgets):
        asked_for = ", ".join(b.asked for b in budgets)
        what = f"budget must be milliseconds where there is no dense reference, but got {asked_for}"
        raise InvalidInput(what, where="--budget-ms", fix="give --against DENSE")
    for folder in (path, against):
        if folder is not None and not (folder / "config.json").is_file():
            raise InvalidInput(f"checkpoint must be a folder with a config.json, but got {folder}")
    asked = {"candidate": budgets} if budgets else None
    here = runtimes.fingerprint(devices.resolve(workload.device), workload)
    effect = DEFAULT_OCCASION if results is None else margins.learnt(results / "measure", here)
    runtime = runtimes.runtime_of(workload)
    with ExitStack() as stack:
        folders = {folder: folder for folder in (path, against) if folder is not None}
        if isinstance(runtime, Converting):  # once, not in every process
            folders = {f: Path(stack.enter_context(runtime.placed(str(f), workload))) for f in folders}
        found = latency.measure_fresh(
            {"candidate": folders[path]}, None if against is None else folders[against], workload,
            rounds=rounds, pairs=pairs, limit_s=LIMIT_S, budgets=asked, effect=effect,
        )["candidate"]  # fmt: skip
    if results is not None and results.is_dir():
        margins.keep_fresh(results / "measure", found, against or path)
    return found


def as_certified(path: Path, config: SearchConfig) -> SearchConfig:
    """What was asked of a folder; an export that was certified on requests is asked its own percentile of them.

    Args:
        path: the folder to time.
        config: what was asked; a traffic, a percentile or lengths that it names are kept.
    """
    record, request = measurement_of(path) or {}, config.workload
    named = {"traffic", "input_tokens", "output_tokens"} & request.model_fields_set
    if "percentile" not in record or config.of_requests or named:
        return config
    own = {"traffic": DATA, "percentile": record["percentile"]}
    return config.model_copy(update={"workload": request.model_copy(update=own)})


def workload_of(path: Path, config: SearchConfig) -> tuple[Workload, str]:
    """What one call of a folder is, and where its lengths come from.

    A flag wins over the data that are named, these over the folder's own record, that over what is assumed.

    Args:
        path: the folder to time.
        config: what was asked of the workload, and of the task where data or a task were named.

    Raises:
        InvalidInput: device, data or tokenizer cannot be used.
    """
    request = config.workload
    device = devices.resolve(request.device).name
    record = measurement_of(path)
    asked = request.model_dump(exclude={"traffic", "percentile"})
    fixed = {name: value for name, value in asked.items() if value is not None} | {"device": device}
    if record is not None:
        known, source = Workload.model_validate(record["workload"] | {"traffic": None}), "as it was certified"
        serving = ("runtime", "quantize")  # defaults of the request, unless they were given
        fixed |= {name: getattr(known, name) for name in serving if name not in request.model_fields_set}
    else:
        stored = path / "config.json"
        window = models.window(read_object(stored)) if stored.is_file() else None
        lengths = {"input_tokens": window or ASSUMED_INPUT_TOKENS, "output_tokens": ASSUMED_OUTPUT_TOKENS}
        known = workloads.resolve(request, **lengths, beams=_beams(path), device=device)
        source = "assumed; --data takes those of your data, --input-tokens and --output-tokens fix them"
        if window is not None:
            source = "the model's window in; out assumed, --output-tokens fixes it"
    if _named(config):
        folder = models.vet(path)
        task = task_of_model(folder, config.task)
        known = known.model_copy(update={"input_tokens": task.input_tokens, "output_tokens": task.output_tokens})
        source = f"medians of {config.task.data or config.task.name}"
    given = {request.input_tokens, request.output_tokens} - {None}
    if request.input_tokens is not None and request.output_tokens is not None:
        source = "as given"
    elif given:
        source = f"one as given, the other {source}"
    return known.model_copy(update=fixed), source


def traffic_of_data(path: Path, config: SearchConfig) -> Traffic:
    """The lengths of the data that are named, or the requests that an export was certified on, or its embedded task's.

    Args:
        path: the folder that is timed, whose tokenizer counts.
        config: the data.

    Raises:
        InvalidInput: no data are known.
    """
    record = measurement_of(path) or {}
    if not _named(config) and "percentile" in record:
        return Traffic.model_validate(record["workload"]["traffic"])
    task = task_of(path, config)
    if task is None:
        fix = "give --data, or a file to --traffic"
        raise InvalidInput("traffic of your data needs them, but got none", where="--traffic", fix=fix)
    folder = models.vet(path)
    return traffic.of_task(task_of_model(folder, task), f"train split of {task.data or task.name}")


def fidelity_of(path: Path, workload: Workload, config: SearchConfig) -> Fidelity | None:
    """What a folder keeps of its quality where it is served in less than float32, on the data that are known of it.

    Args:
        path: the folder that is timed.
        workload: its runtime and precision.
        config: the data, where any were named; an export of an embedded task knows its own.

    Returns:
        The served model against its float twin; None in float32 or where no data are known.

    Raises:
        InvalidInput: less than 97 % is kept, so its time would be another model's.
    """
    asked = task_of(path, config)
    if (workload.quantize == "none" and workload.dtype == "float32") or asked is None:
        return None
    folder = models.vet(path)
    deployment = Deployment(
        workload,
        task_of_model(folder, asked, workload.beams),
        lambda: devices.training_guard(workload.device),
    )
    found = deployment.fidelity(pruner.load(path), deployment.runtime.load(str(path), workload))
    deployment.check(found)
    return found


def task_of(path: Path, config: SearchConfig) -> TaskConfig | None:
    """The data that are known of a folder: the named ones, or an export's own embedded task."""
    record = measurement_of(path)
    known = str(record.get("task")) if record is not None else ""
    return config.task if _named(config) else TaskConfig(name=known) if known in EMBEDDED else None


def _named(config: SearchConfig) -> bool:
    """Whether data or a task were asked for."""
    return config.task.data is not None or "name" in config.task.model_fields_set


def measurement_of(path: Path) -> dict[str, Any] | None:
    """What an export of ours says about itself; None for any other folder."""
    found = kept_object(path / MEASUREMENT)
    return found if found is not None and {"workload", "teacher"} <= set(found) else None


def dense_of(recorded: str, study: Path) -> Path:
    """The dense model a record names, though the study has moved or the package lies elsewhere.

    Raises:
        InvalidInput: it is gone.
    """
    path = Path(recorded)
    places = [path, study / path.name, *([teacher_folder()] if path.name == teacher_folder().name else [])]
    for place in places:
        if place.is_dir():
            return place
    what = f"dense reference must be where the record says, but got nothing at {shown(recorded, 120)}"
    raise InvalidInput(what, where=str(study), fix="give --against DENSE")


def _beams(path: Path) -> int:
    from transformers import GenerationConfig

    try:
        return int(GenerationConfig.from_pretrained(path, local_files_only=True).num_beams or 1)
    except (OSError, ValueError):
        return 1


def remeasure_study(
    folder: Path, device: str, against: Path | None = None, *, rounds: int = 5, pairs: int | None = None
) -> Remeasured:
    """Every certified point of a study timed again, here, next to the dense model.

    Args:
        folder: the study's.
        device: to time on.
        against: where the dense model lies now (None: where the study says).
        rounds: fresh processes.
        pairs: timed pairs per point and process (None: as many as a certificate takes).
    """
    known = certify.read(folder)
    if known is None or not known.points:
        raise InvalidInput(f"study must have a certified front to be timed again, but got {folder}")
    request = WorkloadRequest(device=device)
    old = known.points[0].latency
    workload = old.workload.model_copy(update={"device": devices.resolve(request.device).name})
    folders = {p.checkpoint: folder / p.checkpoint for p in known.points}
    pairs = pairs or pairs_again(old)
    found = latency.measure_fresh(
        folders,
        against or dense_of(known.dense_checkpoint, folder),
        workload,
        rounds=rounds,
        pairs=pairs,
        limit_s=LIMIT_S,
        drawn=len(old.rounds),
    )
    found = {name: each.at(old.percentile) for name, each in found.items()}
    first = next(iter(found.values()))
    kept = recertify.renew(folder, found)
    return Remeasured(
        study=folder.name,
        renewed=not kept,
        not_renewed=kept,
        device=workload.device,
        workload=workload,
        fingerprint=first.fingerprint,
        before=MeasuredOn(fingerprint=old.fingerprint, device=old.workload.device),
        same_fingerprint=first.fingerprint.get("hash") == old.fingerprint.get("hash"),
        dense=DenseRow(latency_ms=first.dense_ms),
        front=tuple(_again(p, found[p.checkpoint], folder) for p in known.points),
    )


def pairs_again(old: Latency) -> int:
    """Timed pairs of each process: of requests as many as the certificate took, which all its percentiles need."""
    return PAIRS if old.workload.traffic is None else max(len(each.runs_ms) for each in old.rounds)


def _again(point: CertifiedPoint, now: Latency, folder: Path) -> TimedAgain:
    quality = point.quality
    lower_ms, upper_ms = now.bounds_ms
    return TimedAgain(
        checkpoint=str(folder / point.checkpoint),
        architecture=point.architecture,
        latency_ms=now.median_ms,
        lower_ms=lower_ms,
        upper_ms=upper_ms,
        speedup=now.speedup,
        share=now.ratio,
        share_bounds=now.ratio_bounds,
        before=TimedBefore(latency_ms=point.latency.median_ms, share=point.latency.ratio),
        quality=quality.value,
        quality_split=quality.split,
        status=now.status,
        runs_ms=tuple(now.runs_ms),
    )
