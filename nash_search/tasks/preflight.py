"""What can be refused before torch is loaded and anything is written: model, data, machine.

Called by the command line once a configuration is valid in itself. What it read is kept for the
task that is loaded after it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nash_search.budget import MEDIAN
from nash_search.config import EMBEDDED, SearchConfig, WorkloadRequest
from nash_search.errors import InvalidInput, shown
from nash_search.families import FAMILIES
from nash_search.tasks import models
from nash_search.tasks.own_metric import is_there
from nash_search.tasks.speech_settings import SpeechSettings, speech_settings_of, texts_of

_GPU_NODES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What the drivers of NVIDIA, AMD and a Windows host put there."""


def check(config: SearchConfig, *, needs_model: bool = True) -> tuple[str, ...]:
    """Refuse a model, data or workload that cannot work; what was decided about the data, to be said aloud.

    Args:
        config: what was asked.
        needs_model: False for `finetune`, which may start from scratch or from `teacher.init`.

    Raises:
        InvalidInput: one line saying which rule is broken and where.
    """
    _check_machine(config.workload)
    check_traffic(config)
    _check_metric(config.task.metric)
    if config.task.data is None and config.task.name not in EMBEDDED:
        what = f"task must be {' or '.join(EMBEDDED)}, or come with data, but got {config.task.name!r}"
        raise InvalidInput(what, where="--task", fix="give --data")
    found: models.ModelFolder | None = None
    if not needs_model:
        start = config.model or (config.teacher.init if config.teacher else "scratch")
        if start != "scratch":
            found = models.find_model(start, config.revision)
    elif config.model is not None:
        found = models.find_model(config.model, config.revision)
        _check_space(config, found)
        _check_lengths(config.workload, found.config)
    elif config.task.data is not None:
        fix = "give --model; nash-search finetune makes one"
        raise InvalidInput("your own data needs your own model, but got none", where="--model", fix=fix)
    settings = None if found is None else _checked_speech(config, found)
    if config.task.data is not None:
        from nash_search.tasks.data import read_texts

        return (texts_of(settings, config.task) if settings is not None else read_texts(config.task)).notes
    return ()


def _checked_speech(config: SearchConfig, found: models.ModelFolder) -> SpeechSettings | None:
    """A speech model's input settings, checked against data and workload; None for a model that reads text."""
    settings = speech_settings_of(found, config.task)
    if settings is None:
        return None
    if config.task.data is None:
        what = "a model of speech needs your recordings, but got none"
        raise InvalidInput(what, where="--data", fix="give a folder with a JSONL of file and text")
    if config.trim_vocab:
        raise InvalidInput("trim_vocab must be left out for a model of speech, but got true", where="--trim-vocab")
    asked, family = config.workload, found.model_type
    served = ("eager", *FAMILIES[family].engines)
    if asked.runtime not in served:
        what = f"runtime must be one of {', '.join(served)} for {family}, but got {asked.runtime}"
        raise InvalidInput(what, where="--runtime")
    if asked.input_tokens not in (None, settings.positions):
        what = f"input_tokens must be {settings.positions} (the window's positions), but got {asked.input_tokens}"
        raise InvalidInput(what, where="--input-tokens", fix="leave it out; --audio-seconds sets the window")
    if (asked.output_tokens or 1) > settings.longest_output:
        what = f"output_tokens must be at most {settings.longest_output} (the model's positions after the prompt)"
        raise InvalidInput(f"{what}, but got {asked.output_tokens}", where="--output-tokens")
    return settings


def has_gpu() -> bool:
    """Whether a driver shows any GPU at all; which ones there are is asked once torch is loaded."""
    return sys.platform != "linux" or any(Path(node).exists() for node in _GPU_NODES)


def _check_machine(workload: WorkloadRequest) -> None:
    if workload.device.startswith("cuda") and not has_gpu():
        what = f"device must exist on this machine (no GPU found), but got {workload.device}"
        raise InvalidInput(what, where="--device", fix="leave it out, or give cpu")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workload.threads is not None and workload.threads > cores:
        what = f"threads must be at most {cores} (the cores of this machine), but got {workload.threads}"
        raise InvalidInput(what, where="--threads")


def _check_metric(asked: str | None) -> None:
    """A metric by import path is there; it is imported when the task is loaded."""
    module, colon, _ = (asked or "").partition(":")
    if colon and not is_there(module):
        what = f"metric must be importable, but got no module {shown(module)}"
        raise InvalidInput(what, where="--metric", fix="give package.module:Class or file.py:Class")


def check_folder(folder: Path, name: str, flag: str, *, begun: str | None = None) -> None:
    """Refuse a folder that cannot be written to.

    Args:
        folder: to be made, or there already.
        name: what the error calls it.
        flag: where it was named.
        begun: unless None, the folder must be new, be empty, or hold an entry of this name.

    Raises:
        InvalidInput: one line saying which rule is broken.
    """
    where = f"{flag} {shown(str(folder), 80)}"
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        writable = there.is_dir() and os.access(there, os.W_OK)
        full = begun is not None and there is folder and writable and any(folder.iterdir())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(f"{name} must be a folder that can be written, but got {reason}", where=where) from None
    if not writable:
        found = "one that cannot" if there.is_dir() else f"the file {shown(str(there), 80)}"
        raise InvalidInput(f"{name} must be a folder that can be written, but got {found}", where=where)
    if full and begun is not None and not (folder / begun).is_dir():
        fix = "remove it, or give another"
        raise InvalidInput(f"{name} must be a new folder, but got one with something in it", where=where, fix=fix)


def _check_space(config: SearchConfig, found: models.ModelFolder) -> None:
    asked = max(config.search_space.decoder_layers, default=1)
    if asked > found.decoder_layers:
        what = f"decoder_layers must be between 1 and {found.decoder_layers} (the model's), but got {asked}"
        raise InvalidInput(what, where="search_space")


def check_traffic(config: SearchConfig) -> None:
    """Refuse what cannot be timed where requests come with lengths of their own.

    Raises:
        InvalidInput: a percentile of one call, lengths fixed beside them, a runtime made for one length.
    """
    if not config.of_requests and config.highest != MEDIAN:
        what = f"traffic must be data or a file where p{config.highest:g} is asked, but got fixed"
        raise InvalidInput(what, where="--traffic", fix="one call of fixed lengths has its median alone")
    if not config.of_requests:
        return
    asked = config.workload
    for name in ("input_tokens", "output_tokens"):
        if (given := getattr(asked, name)) is not None:
            what = f"{name} must be left out where requests have their own lengths, but got {given}"
            raise InvalidInput(what, where=f"--{name.replace('_', '-')}", fix="or give --traffic fixed")
    if asked.runtime == "compile":
        what = "runtime must take any length where requests are timed as they come, but got compile, which makes one"
        raise InvalidInput(what, where="--runtime", fix="give another --runtime, or --traffic fixed")


def check_workload(workload: WorkloadRequest, model: Mapping[str, Any]) -> None:
    """Refuse a call that this machine or a model (its config.json) cannot make.

    Raises:
        InvalidInput: device, threads or lengths.
    """
    _check_machine(workload)
    _check_lengths(workload, model)
    window = models.window(model)
    if window is not None and workload.input_tokens not in (None, window):
        what = f"input_tokens must be {window} (the model's window), but got {workload.input_tokens}"
        raise InvalidInput(what, where="--input-tokens", fix="leave it out")


def _check_lengths(workload: WorkloadRequest, model: Mapping[str, Any]) -> None:
    limits = models.positions(model)
    if limits is None:
        return
    lengths = {"input_tokens": workload.input_tokens, "output_tokens": workload.output_tokens}
    for (name, asked), limit in zip(lengths.items(), limits, strict=True):
        if asked is not None and asked > limit:
            what = f"{name} must be at most {limit} (the model's positions), but got {asked}"
            raise InvalidInput(what, where=f"--{name.replace('_', '-')}")
