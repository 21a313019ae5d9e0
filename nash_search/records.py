"""One trial: what was kept of the model, how good and how fast it is, and how its training went.

A record keeps every raw sample; a `TrialRecord`'s status is derived, never stored.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from nash_search import intervals, pareto
from nash_search.config import Architecture, Frozen
from nash_search.latency_record import Latency
from nash_search.recipes import PruningRecipe

Status = Literal["complete", "infeasible", "stopped", "failed"]
FailureReason = Literal[
    "oom", "nan", "timeout", "interrupted", "worker_died", "disk_full", "contended", "invalid_architecture", "error"
]


class Shapes(Frozen):
    """The physical size of a model, block by block; latency depends on nothing else."""

    encoder_heads: tuple[int, ...]
    """Heads kept per encoder block."""
    encoder_neurons: tuple[int, ...]
    """FFN neurons kept per encoder block."""
    decoder_blocks: tuple[int, ...]
    """Indices, in the teacher, of the decoder blocks kept."""


class Quality(Frozen):
    """The task metric on one split, higher or lower being better as `direction` says."""

    metric: str
    value: float
    standard_error: float
    n: int
    """Examples scored."""
    split: Literal["validation", "test", "train"]
    direction: Literal["maximize", "minimize"] = "maximize"
    signature: str = ""
    """Metric, version, tokenisation and decoding settings, as sacrebleu's signature does."""
    beside: dict[str, float] = Field(default_factory=dict)
    """Other metrics of the same outputs, e.g. the word error rate beside 100 - PER."""

    @property
    def half_width(self) -> float:
        """Of the normal 95 % interval."""
        return intervals.half_width(self.standard_error)

    def led_by_chance(self, other: Quality) -> bool:
        """False if `other`, on the same split, is better by more than two standard errors of the difference."""
        lead = pareto.loss(self.value, self.direction) - pareto.loss(other.value, self.direction)
        return lead <= intervals.chance_difference(self.standard_error, other.standard_error)

    @property
    def bounds(self) -> tuple[float, float]:
        """Normal 95 % bounds."""
        return intervals.normal_bounds(self.value, self.standard_error)

    @property
    def data(self) -> str:
        """Fingerprint of the examples that it was measured on; empty where its signature does not say."""
        return next((part for part in self.signature.split("|") if part.startswith("data:")), "")


class Artefact(Frozen):
    """What a serving engine loads instead of a Hugging Face folder, and lies in a folder of its own beside it."""

    runtime: str
    version: str
    """The engine's, when it was written."""
    dtype: str
    quantize: str
    loading: tuple[str, ...]
    """Lines of Python with which the engine alone loads it and generates; the folder is called `folder`."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """What generation needs beside the weights; the engine's own words."""


class CurvePoint(Frozen):
    """Quality at one rung of a trial's training."""

    step: int
    value: float
    train_s: float


class TrialRecord(Frozen):
    """One trial: what was asked, what came out, or the reason it has none."""

    number: int
    architecture: Architecture
    seed: int = 0
    finish_steps: int = 0
    """Optimizer steps of the training at length that a winner was given; 0: as a trial is trained."""
    shapes: Shapes | None = None
    latency: Latency | None = None
    quality: Quality | None = None
    curve: tuple[CurvePoint, ...] = ()
    parameters: int | None = None
    """Parameters of the cut model."""
    sparsity_expected: float | None = None
    """Expected encoder sparsity just before hardening (fraction)."""
    sparsity_counted: float | None = None
    """Encoder sparsity counted on the cut model (fraction)."""
    pruning: dict[str, float] = Field(default_factory=dict)
    """Diagnostics: undecided_share, loss_before_hardening, loss_after_hardening, …"""
    recipe: PruningRecipe | None = None
    """What it was trained by (None: a record of before 2026-11-27, or one that was not trained)."""
    checkpoint: str | None = None
    """Folder of the trained weights, relative to the study's folder."""
    stages: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Per stage: steps and seconds."""
    versions: dict[str, str] = Field(default_factory=dict)
    infeasible: str | None = None
    """Why it was refused untrained."""
    stopped: str | None = None
    """Why training ended early; studies of before 2026-11-27 could end a dominated trial at a rung."""
    failure: FailureReason | None = None
    message: str = ""
    """One line about the failure."""
    created: str = ""
    """UTC stamp, ISO 8601."""
    wall_s: float = 0.0
    """Seconds of its process, from the job's arrival to the record: loading, training, timing, scoring, saving."""

    @property
    def validation(self) -> Quality | None:
        """Its quality under the name that a certified point's has: a trial is scored on validation alone."""
        return self.quality

    @property
    def status(self) -> Status:
        """Derived from what the record holds."""
        if self.failure is not None:
            return "failed"
        if self.infeasible is not None:
            return "infeasible"
        if self.stopped is not None:
            return "stopped"
        return "complete"

    @property
    def train_s(self) -> float:
        """Training seconds over all stages."""
        return sum(stage.get("seconds", 0.0) for stage in self.stages.values())

    @property
    def train_steps(self) -> float:
        """Optimizer steps over all stages."""
        return sum(stage.get("steps", 0.0) for stage in self.stages.values())
