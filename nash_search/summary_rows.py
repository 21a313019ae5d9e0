"""What a search's two JSON documents (`summaries`) are made of: rows and groups of keys, each defined once.

A document's keys are a promise: `to_json` dumps exactly the fields that were given, in the order of the classes here.
Studies of before lack some keys, which are then the defaults; keys that nobody reads any more are kept.
"""

from __future__ import annotations

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from nash_search.config import Architecture, Frozen
from nash_search.length_forecast import Forecast


class JsonRow(Frozen, extra="allow", allow_inf_nan=True):
    """Base of the JSON rows: dumps the fields that were given, keeps unknown keys, allows NaN and infinity."""

    @model_serializer(mode="wrap")
    def _given(self, dumped: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in dumped(self).items() if key in self.model_fields_set}

    def to_json(self) -> dict[str, Any]:
        """As JSON: the fields that were given."""
        return self.model_dump(mode="json")


class Certifies(JsonRow):
    """What a certificate can tell apart on this device."""

    occasion_sd: float
    """How far medians move between occasions (fraction)."""
    occasions: int
    """Measurements it was learnt from."""
    assumed: bool
    """They were too few."""
    ms_margin: float
    """How far below milliseconds a model must lie to be found to meet them (fraction)."""
    share_margin: float
    """The same of a share of the dense latency."""
    needs_ms: dict[str, float] = {}
    """By budget asked in milliseconds: the median that a certificate needs."""


class EngineTried(JsonRow):
    """The dense model on another engine, nothing pruned."""

    runtime: str
    dtype: str
    quantize: str
    latency_ms: float | None = None
    """None: it does not run there."""
    speedup: float | None = None
    quality: float | None = None
    kept: float | None = None
    """Share of the float dense model's quality that it keeps; None: not scored in time."""
    status: str | None = None
    reason: str = ""
    """Why it does not run there."""
    upper_ms: float | None = None


class EngineAnswer(EngineTried):
    """An engine that meets a budget, or may, by itself."""

    asked: str
    budget_ms: float
    needs_ms: float | None = None
    """The median that a certificate needs."""
    command: str = ""
    """What certifies it; empty: the model lies in no folder of the user's."""
    verdict: str = "met"
    """met or ambiguous; documents of before named only what met its budget."""


class EnginesRow(JsonRow):
    """The dense model on other engines."""

    tried: tuple[EngineTried, ...] = ()
    answers: tuple[EngineAnswer | None, ...] = ()
    """One per budget; None: pruning is needed."""
    absent: tuple[str, ...] = ()
    """Runtimes that are not installed."""
    seconds: float = 0.0
    remembered: bool = False
    """Timed before, not again."""
    examples: int = 0
    reference_quality: float | None = None
    kept_at_least: float = 0.0
    """Share of the quality below which an engine is no answer."""


class DataFacts(Frozen):
    """Rows of the user's splits as they are used, and what was done about sources that stand in two of them."""

    train: int
    validation: int
    test: int
    train_dropped: int = 0
    """Rows taken out of train because their source stands in validation or test."""
    validation_dropped: int = 0
    """Rows taken out of validation because their source stands in test."""
    validation_in_train: int = 0
    """Rows of validation whose source stands in train, as the data were given."""
    test_in_train: int = 0
    test_in_validation: int = 0
    overlap_allowed: bool = False
    """Nothing was dropped, by the user's wish."""


class Window(JsonRow):
    """What a shorter audio window of a speech model gains before any pruning; timed in the search's own process."""

    seconds: float
    of_seconds: float
    """The given model's."""
    latency_ms: float
    """Of the given model."""
    share: float
    """Of the given model's latency."""
    share_bounds: tuple[float | None, float | None]
    status: str = ""


class Vocabulary(JsonRow):
    """What trimming the vocabulary gained and cost, before any pruning."""

    kept: int
    """Tokens."""
    of: int
    share: float
    """Of the given teacher's latency."""
    share_bounds: tuple[float | None, float | None]
    metric: str
    quality: float
    given_quality: float
    lost: dict[str, dict[str, float]]
    """By split: what of it the trimmed tokenizer cannot write."""


class Inputs(JsonRow):
    """How a text, or a recording, becomes an input."""

    prefix: str = ""
    max_tokens: int | None = None
    audio_seconds: float | None = None
    """Window of a model that hears; None: it reads text."""
    rate: int | None = None
    """Samples a second."""
    clip_seconds: float | None = None
    """The median recording."""


class DenseRow(JsonRow):
    """The dense model."""

    latency_ms: float | None = None
    lower_ms: float | None = None
    upper_ms: float | None = None
    quality: float | None = None
    """On `quality_split`."""
    quality_split: str = "test"
    checkpoint: str | None = None
    quality_standard_error: float | None = None
    beside: dict[str, float] = {}
    """Other metrics of the same outputs."""
    validation_quality: float | None = None
    validation_standard_error: float | None = None
    parameters: int | None = None

    def quality_on(self, split: str) -> tuple[float | None, float | None]:
        """Its quality on a split and the standard error, as far as they are known; splits are never mixed."""
        if self.quality_split == split and self.quality is not None:
            return self.quality, self.quality_standard_error
        return (self.validation_quality, self.validation_standard_error) if split == "validation" else (None, None)


class OverSeeds(JsonRow):
    """A finalist's quality over its seeds, mean with 95 % t-bounds."""

    n: int
    split: str
    mean: float
    lower: float | None
    upper: float | None
    values: tuple[float, ...]
    exported_seed: int


class BudgetRow(JsonRow):
    """What a budget gets: in a plan, in a summary, and where certification failed."""

    asked: str
    budget_ms: float
    floor_ms: float | None = None
    """The fastest shape of the search space."""
    verdict: str = ""
    """met, ambiguous, infeasible; empty: nothing is known yet."""
    latency_ms: float | None = None
    upper_ms: float | None = None
    speedup: float | None = None
    quality: float | None = None
    quality_standard_error: float | None = None
    quality_split: str | None = None
    checkpoint: str | None = None
    architecture: Architecture | None = None
    seeds: OverSeeds | None = None
    looks: int = 1
    """How often it was asked."""
    rounds: int = 0
    occasion_sd: float | None = None
    """None: certified before milliseconds allowed for the occasion."""
    finish_steps: int = 0
    """Optimizer steps of the training at length that made the model; 0: it is as the search trained it."""
    searched_quality: float | None = None
    """Of a model trained at length: what the search's own short training came to on validation."""
    finish: str = ""
    """The command that trains the answer at length, where that was not done."""
    nearest_feasible: str | None = None
    """The tightest budget that can be met; None: a limit shuts out all that was certified, or it is not known."""
    shut_out_quality: float | None = None
    """On validation, of the best model that meets the budget but that a limit (`--max-drop`) shuts out."""
    searched_up_to: str = ""
    """The loosest budget that was searched, where a looser one is asked of a finished study."""


class PlannedBudget(BudgetRow):
    """A budget before anything is trained, with what it admits."""

    admits: dict[str, int] = {}
    """By decoder depth: the lowest encoder sparsity (percent) that fits."""
    fits: dict[str, tuple[tuple[int, int], ...]] | None = None
    """By decoder depth: all that fit, as runs (lowest, highest) of the grid."""
    sparsities_pct: tuple[int, int] = (0, 0)
    """The grid's own (lowest, highest)."""
    dense_ms: float | None = None
    """The dense model's, at the budget's percentile."""


class PlannedCalibration(JsonRow):
    """How the recipe will be found."""

    share: float
    """Of the trials' training seconds, at most (fraction)."""
    known: bool
    """An earlier calibration is taken over."""
    steps: tuple[int, int] | None = None
    """Of the two rungs; None: the trials are too few for any."""
    trainings: int = 0
    """At most."""
    twice: Forecast | None = None
    """What twice a trial's steps would bring, where it is known already."""


class FidelityRow(JsonRow):
    """What a quantised export keeps of its float twin's quality."""

    quality: float
    float_quality: float
    metric: str
    share: float | None
    examples: int
    holds: bool


class FrontRow(JsonRow):
    """A certified point."""

    number: int
    architecture: Architecture
    latency_ms: float
    lower_ms: float | None = None
    upper_ms: float | None = None
    measured_ms: float | None = None
    occasion_sd: float | None = None
    share: float | None = None
    share_upper: float | None = None
    speedup: float | None = None
    quality: float
    quality_split: str
    quality_standard_error: float | None = None
    beside: dict[str, float] = {}
    validation_quality: float | None = None
    parameters: int | None = None
    same_tokens: bool = True
    status: str = ""
    checkpoint: str | None = None
    fidelity: FidelityRow | None = None
    percentiles: dict[str, dict[str, Any] | None] | None = None
    """Of requests, by percentile; None of one: too few requests."""
    finish_steps: int = 0
    """As a budget's."""
    searched_quality: float | None = None


class FinalistRow(JsonRow):
    """One training of a finalist: the search's own, at length, with another seed."""

    number: int
    architecture: Architecture
    seed: int
    finish_steps: int = 0
    exported: bool
    share: float
    meets: tuple[str, ...]
    train_s: float
    train_steps: float
    validation: float
    test: float | None


class Floor(JsonRow):
    """The fastest shape of the search space."""

    architecture: str = ""
    share: float
    """Of the dense latency."""


class Reference(JsonRow):
    """The corner that hypervolume is measured from."""

    latency_ms: float
    share: float | None = None
    quality: float
