"""What a search knows before it trains anything: what the stages of its opening hand on to one another."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from nash_search.config import SearchConfig, Workload
from nash_search.intervals import OccasionEffect
from nash_search.latency_table import LatencyTable
from nash_search.records import Quality
from nash_search.results import Terms
from nash_search.storage.study import StudyFacts
from nash_search.trial.engines import Engines
from nash_search.trial.evaluator import Evaluator


class Case(Protocol):
    """What a search knows before it trains anything; `search.run` fills it in stage by stage, in this order."""

    config: SearchConfig
    evaluator: Evaluator
    folder: Path
    """The study's."""
    question: dict[str, Any]
    workload: Workload
    workers: int
    """Trials that train side by side."""
    table: LatencyTable
    dense: Quality
    """The dense model's, on validation."""
    engines: Engines
    facts: StudyFacts
    terms: Terms
    effect: OccasionEffect
    """How far this device moves between occasions."""
