"""What a shorter window gains by itself: the model as it was given, timed next to the one that is searched.

    STUDY/window.json    the share of the whole window's latency that the shorter one takes, once per study

The model at the shorter window *is* the study's dense model: budgets, shares and speed-ups refer to it. So the window's
own gain is stated beside them and multiplied into nothing. It is timed in the search's own process: no certificate.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nash_search import pruner
from nash_search.files import write_atomic
from nash_search.latency_record import Latency
from nash_search.plain_json import kept_object
from nash_search.tasks import exported
from nash_search.tasks.speech_settings import SpeechSettings
from nash_search.tasks.task import Task

FILE = "window.json"


def weigh(study: Path, settings: SpeechSettings, task: Task, digest: str, timed: Callable[[Any], Latency]) -> None:
    """Time the given model next to the one with the shorter window and store the ratio in `window.json`.

    Does nothing where the window is the model's own, or where the study's file has the answer already.

    Args:
        study: the study's folder.
        settings: both windows, and the folder of the model as it was given.
        task: what the searched model is fed and how it writes.
        digest: of the model.
        timed: the searched model next to a given one.
    """
    asked = {"digest": digest, "seconds": settings.seconds, "of_seconds": settings.own_seconds}
    known = read(study)
    if settings.seconds >= settings.own_seconds or (known is not None and asked.items() <= known.items()):
        return
    given = pruner.load(settings.folder)
    exported.complete(given, task.tokenizer)
    exported.carry(given, task)
    found = timed(given)
    low, high = found.ratio_bounds
    told = {"latency_ms": found.dense_ms, "share": found.ratio, "share_bounds": [low, high], "status": found.status}
    write_atomic(study / FILE, json.dumps(asked | told, indent=1))


def read(study: Path) -> dict[str, Any] | None:
    """The study's report on its window; None where that is the model's own."""
    return kept_object(study / FILE)
