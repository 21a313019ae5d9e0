"""What a search asks of models and clocks, and who answers: the real evaluator, or one that the environment names."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

from nash_search.config import Architecture, LatencyBudget, SearchConfig, Workload, digest
from nash_search.errors import InvalidInput, message_of, shown
from nash_search.fidelity import Fidelity
from nash_search.files import stamp
from nash_search.latency_record import Latency
from nash_search.records import Quality, TrialRecord
from nash_search.summary_rows import DataFacts
from nash_search.trial.cost import TrialCost
from nash_search.trial.engines import Engines
from nash_search.trial.job import Hooks, Job, Say

NAMED_BY = "NASH_SEARCH_EVALUATOR"
JOBS_OWN = ("learning_rate", "tune_learning_rate", "labels", "calibrate", "narrow_steps", "tune_steps", "rungs")
"""Fields of a recipe that differ from job to job of one study: a worker keeps its model and data through them."""


class Evaluator(Protocol):
    """All that touches models and clocks. `NashEvaluator` is the real one; see `open_evaluator` for one of your own."""

    def facts(self) -> dict[str, Any]:
        """What joins the question: digests of model and data, versions of protocols."""

    def notes(self) -> tuple[str, ...]:
        """What was decided about the data (columns, splits, truncation), for people."""

    def data(self) -> DataFacts | None:
        """Rows of the user's splits and what was dropped; None: an embedded task."""

    def inputs(self) -> dict[str, Any]:
        """How a text becomes an input: `prefix`, put before it, and `max_tokens` (None: it is never cut)."""

    def decoder_layers(self) -> int:
        """Decoder depth of the dense model."""

    def answers_are_labels(self) -> bool:
        """Can a student learn what the dense model generates? (`Family.answers_are_labels`)"""

    def workload(self) -> Workload:
        """The resolved call that is timed."""

    def fingerprint(self) -> dict[str, Any]:
        """Device and software, `hash` their identity."""

    def probe(
        self, shapes: list[Architecture], limit_s: float, known: Path, *, again: bool = False
    ) -> dict[Architecture, Latency]:
        """Time random-weight models of these shapes next to the dense one; `known` is a cache, `again` replaces it."""

    def dense_quality(self) -> Quality:
        """The dense model on the validation split."""

    def check_export(self, beside: Path) -> None:
        """Write the dense model as an export on the disk of `beside` (the study's folder), and read it back."""

    def dense_on_engines(self, dense_ms: float, known: Path, say: Say) -> Engines:
        """Time and score the unpruned model on every other engine here; `known` caches that until `dense_ms` drifts."""

    def trial_cost(self, config: SearchConfig, architecture: Architecture, threads: int, limit_s: float) -> TrialCost:
        """What one trial costs, from a few timed steps of this architecture (about `limit_s` seconds of them)."""

    def train_short(self, job: Job, hooks: Hooks) -> TrialRecord:
        """Train and score for a calibration (`trial.short_training`): no latency, no weights."""

    def train(self, job: Job, scratch: Path, hooks: Hooks) -> TrialRecord:
        """Train, cut, measure and score; weights go to `scratch / WEIGHTS`, resumable state to `job.work`."""

    def take_dense(self, job: Job, scratch: Path) -> TrialRecord:
        """The dense model as a trial that needs no training."""

    def keep_dense(self, study: Path, *, opened: bool = False) -> dict[str, Any] | None:
        """What trimming gained and cost (None: nothing was trimmed), and the test split too once it is `opened`."""

    def dense_folder(self) -> Path:
        """A folder that fresh processes load the dense model from."""

    def time_fresh(
        self, folders: dict[str, Path], budgets: dict[str, list[LatencyBudget]], **settings: Any
    ) -> dict[str, Latency]:
        """Exports next to the dense model, `budgets` to be decided; the settings are `latency.measure_fresh`'s."""

    def same_tokens(self, exports: dict[str, Path], trials: dict[str, Path]) -> dict[str, bool]:
        """Does each export write what the trained model wrote?"""

    def fidelity(self, folders: dict[str, Path]) -> dict[str, Fidelity]:
        """Exports as they are served against their float twins; empty where tokens are the same by construction."""

    def release(self) -> None:
        """Leave the device's memory to other processes until something is asked again."""

    def test_quality(self, folders: dict[str, Path]) -> dict[str, Quality]:
        """Models on the sealed test split, which is opened once for all of them."""


def open_evaluator(config: SearchConfig) -> Evaluator:
    """The evaluator of a configuration; models and data stay loaded for the next trial of this process.

    `NASH_SEARCH_EVALUATOR=module:Class` names another than the real one: it is built from the configuration alone, and
    its `facts` join the question. Every process that runs trials must be able to import it (`PYTHONPATH`), and have
    the variable too: on a cluster that is there already, set both where its workers start.

    Raises:
        InvalidInput: when the named one cannot be imported.
    """
    parts = {"task", "model", "revision", "trim_vocab", "workload", "seed", "format", "search_space"}
    named = os.environ.get(NAMED_BY, "")
    recipe = config.recipe.model_dump(mode="json", exclude=set(JOBS_OWN))
    requests = config.traffic, config.percentile
    read = [stamp(config.task.data), stamp(config.model)]  # a file that was written anew is read anew
    key = digest([named, config.model_dump(mode="json", include=parts), recipe, requests, read])
    if key not in _open:
        _open.clear()
        _open[key] = (_imported(named) if named else _real())(config)
    return _open[key]


def _real() -> Callable[[SearchConfig], Evaluator]:
    from nash_search.trial.nash_evaluator import NashEvaluator

    return NashEvaluator


def _imported(named: str) -> Callable[[SearchConfig], Evaluator]:
    module, _, name = named.partition(":")
    try:
        return cast("Callable[[SearchConfig], Evaluator]", getattr(importlib.import_module(module), name))
    except Exception as error:  # the module is somebody's own code: anything may come out of it
        reason = message_of(error)
        what = f"evaluator must be an importable module:Class, but got {shown(named)}: {type(error).__name__}: {reason}"
        raise InvalidInput(what, where=NAMED_BY, fix="put its folder on PYTHONPATH") from error


_open: dict[str, Evaluator] = {}
