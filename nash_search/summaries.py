"""The two JSON documents of a search, typed: the plan before anything is spent, the summary at the end.

    Plan      `search.plan` -> listeners (stage `plan`) -> the panel before the search, the live table
    Summary   `search.summary` -> `summary.json`, `--json`, listeners -> report, pick, remeasure, dashboard

What they are made of stands in `summary_rows`, what the certified front gives each budget in `results`. Nothing is
judged here.
"""

from __future__ import annotations

from typing import Any

from nash_search.calibration_record import Calibration
from nash_search.config import Workload
from nash_search.latency_table import Yardstick
from nash_search.pareto import Direction
from nash_search.summary_rows import (
    BudgetRow,
    Certifies,
    DataFacts,
    DenseRow,
    EnginesRow,
    FinalistRow,
    Floor,
    FrontRow,
    Inputs,
    JsonRow,
    PlannedBudget,
    PlannedCalibration,
    Reference,
    Vocabulary,
    Window,
)

SUMMARY = "summary.json"
"""In the study's folder."""
PUBLIC = tuple("study task device workload dense budgets front trials hypervolume elapsed_s data engines".split())
PUBLIC_PARTS = {
    "workload": ("batch_size", "input_tokens", "output_tokens", "beams", "dtype", "threads", "runtime"),
    "dense": ("latency_ms", "quality", "quality_split", "checkpoint"),
}


class FittedLength(JsonRow):
    """Trials and steps that a time budget has room for, and what was asked."""

    trials: int
    steps: int
    """Of one trial, both stages."""
    fits: bool
    """There is room for them; False: they are the least."""
    asked_trials: int
    asked_steps: int
    asked_eta_s: float
    """Seconds that what was asked would have taken."""
    time_budget_s: float


class PlannedFinish(JsonRow):
    """The training at length that each budget's winner will be given."""

    steps: int
    """Optimizer steps of each."""
    most_steps: int = 0
    """As many where the trials leave that much of a time budget; 0: plans of before do not say."""
    models: int
    seconds: float
    """Of all together, scoring and timing included."""


class Plan(JsonRow):
    """Everything known before spending."""

    study: str = ""
    task: str = ""
    model: str | None = None
    data: DataFacts | None = None
    device: str = ""
    workload: Workload | None = None
    metric: str = ""
    decoder_layers: int | None = None
    dense: DenseRow | None = None
    budgets: tuple[PlannedBudget, ...] = ()
    certifies: Certifies | None = None
    width_worth_pct: float | None = None
    """Most that a narrower encoder takes off the latency here; None: whole or narrowed ones alone are asked for."""
    whole_encoders: bool = False
    """That is nothing: narrowed ones are not trained, though they were asked for."""
    fastest: str = ""
    engines: EnginesRow | None = None
    trials: int = 0
    calibration: PlannedCalibration | None = None
    """None: the recipe asks for none."""
    fitted: FittedLength | None = None
    """None: the time budget, if any, has room for what was asked."""
    workers: int = 0
    memory_gib: float | None = None
    """Most that a trial's process held on the device in the steps that were timed."""
    device_memory_gib: float | None = None
    """Of one device."""
    beside: int = 1
    """Trials that share it."""
    seconds_per_trial: float | None = None
    """This and the rest are unknown where no architecture is feasible, or a step could not be taken."""
    train_s: float | None = None
    """Training seconds of all trials."""
    device_s: float | None = None
    """Seconds that the device is busy."""
    eta_s: float | None = None
    """Seconds until the answer."""
    estimated: str = ""
    """How it is known."""
    finish: PlannedFinish | None = None
    """None: winners are not trained at length."""
    percentile: float | None = None
    """Of requests, which one the latencies are; None: one call is timed."""
    requests: int | None = None
    """That a certificate times of each point."""
    certify_times: float | None = None
    """Their decoding, in times that of as many rounds of one call."""
    inputs: Inputs | None = None
    reference: Reference | None = None

    def begun(self) -> Summary:
        """What a summary would say by now: a running search is shown by it."""
        both = "study task device workload dense budgets data certifies engines metric decoder_layers reference inputs"
        given = [*both.split(), *["percentile"] * ("percentile" in self.model_fields_set)]
        return Summary(**{name: getattr(self, name) for name in given})


class Summary(JsonRow):
    """What a search found out."""

    study: str = ""
    task: str = ""
    device: str = ""
    workload: Workload | None = None
    dense: DenseRow | None = None
    budgets: tuple[BudgetRow, ...] = ()
    front: tuple[FrontRow, ...] = ()
    """Fastest first."""
    trials: dict[str, int] = {}
    """By status."""
    hypervolume: float = 0.0
    elapsed_s: float = 0.0
    data: DataFacts | None = None
    certifies: Certifies | None = None
    inputs: Inputs | None = None
    """None: studies of before do not say."""
    vocabulary: Vocabulary | None = None
    """What trimming the vocabulary gained and cost; None: it was not trimmed."""
    window: Window | None = None
    """What a shorter audio window gained; None: the window is the model's own, or the model reads text."""
    engines: EnginesRow | None = None
    device_name: str = ""
    metric: str = ""
    direction: Direction = "maximize"
    decoder_layers: int | None = None
    """Of the dense model."""
    floor: Floor | None = None
    probe_dense_ms: float | None = None
    """Dense latency of the study's first probe."""
    percentile: float | None = None
    """Of requests, which one the front's latencies are; None: one call was timed."""
    yardsticks: dict[str, Yardstick] = {}
    """By percentile, those of budgets of another one."""
    reference: Reference | None = None
    finalists: tuple[FinalistRow, ...] = ()
    train_s: float | None = None
    train_steps: float | None = None
    device_s: float | None = None
    shared: dict[str, Any] | None = None
    """What the training that all trials shared cost (`trial.shared_training.summary`)."""
    calibration: Calibration | None = None
    """What found the trials' rates and labels; None: the recipe says them."""
    sealed_test_openings: int = 0
    unfinished: str | None = None
    """What failed after the trials, in words."""
    command: str = ""
    """As typed, one line each."""
    environment: dict[str, Any] = {}
    """Device, software, and the switches set in the environment."""

    def public(self) -> dict[str, Any]:
        """What `--json` prints: the promised keys only, in the promised order."""
        told = self.to_json()
        found = {name: told.get(name) for name in PUBLIC}  # studies of before say less
        found |= {"percentile": self.percentile} if self.percentile is not None else {}
        for name, keys in PUBLIC_PARTS.items():
            found[name] = {key: told[name][key] for key in keys}
        return found
