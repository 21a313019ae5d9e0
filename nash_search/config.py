"""What was asked: frozen values, checked once, before anything is spent.

A search space file (`search_spaces/*.yaml`) plus flags becomes one `SearchConfig`. A field of `SearchConfig`,
`TaskConfig` or `WorkloadRequest` is a flag too (`cli.flags`), and its docstring is the flag's help: a new knob is
one field.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from nash_search.architecture import Architecture as Architecture
from nash_search.architecture import DecoderSelection as DecoderSelection
from nash_search.architecture import SearchSpace as SearchSpace
from nash_search.budget import MEDIAN
from nash_search.budget import LatencyBudget as LatencyBudget
from nash_search.errors import either
from nash_search.recipes import Frozen as Frozen
from nash_search.recipes import Knobs
from nash_search.recipes import PruningRecipe as PruningRecipe
from nash_search.recipes import TeacherRecipe as TeacherRecipe
from nash_search.traffic import DATA, FIXED
from nash_search.traffic import Traffic as Traffic
from nash_search.workload import Workload as Workload
from nash_search.workload import WorkloadRequest as WorkloadRequest

METRIC_NAMES = tuple("rouge1 rouge2 rougeL rougeLsum bleu chrf exact_match accuracy f1 per wer cer".split())
"""Built-in metrics of `nash_search.tasks.metrics` (a test holds them equal)."""
DATA_FORMATS = ("JSONL", "JSON", "CSV", "TSV", "Parquet")
"""Tables that `nash_search.tasks.layout` reads, by their files' endings (a test holds them equal)."""
EMBEDDED = ("g2p",)
"""Tasks that need no data of the user's."""
MEASURED_FIELDS = (
    *("name", "data", "data_config", "train_split", "validation_split", "source_column", "target_column", "prefix"),
    *("metric", "metric_direction", "max_input_tokens", "max_output_tokens", "allow_overlap"),
)
"""Fields of a task that `measure` has flags for: of what lengths are taken, and what quality is scored on."""
_STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,56}")
_IMPORT_PATH = re.compile(r"[\w./-]+:[A-Za-z_]\w*")


class TaskConfig(Knobs):
    """Text in, text out: an embedded task by name, or the user's own data."""

    name: str = "g2p"
    """Embedded task (g2p), or the name your own data goes by."""
    data: str | None = Field(
        default=None,
        description=f"Your data: {either(DATA_FORMATS)}, a folder of them or of parallel text, or a hub dataset.",
    )
    data_config: str | None = None
    """Configuration of a hub dataset."""
    train_split: str = "train"
    """Name of the train split."""
    validation_split: str = "validation"
    """Name of the validation split."""
    test_split: str = "test"
    """Name of the test split; it stays sealed until certification."""
    source_column: str | None = None
    """Column of the inputs (guessed when not given)."""
    target_column: str | None = None
    """Column of the references (guessed when not given)."""
    prefix: str = ""
    """Prompt put before every input."""
    metric: str | None = None
    """rouge1|2|L|Lsum, bleu, chrf, exact_match, accuracy, f1, per, wer, cer or module:Class."""
    metric_direction: Literal["maximize", "minimize"] | None = None
    """Direction of a metric of your own."""
    language: str | None = None
    """Language that is spoken (en), for a speech model of several; --task translate writes English."""
    audio_seconds: int | None = Field(default=None, ge=1, le=30)
    """Window of a speech model, in training, timing and exports (default: the model's own)."""
    max_input_tokens: int | None = Field(default=None, ge=1)
    """Inputs are cut to this many tokens."""
    max_output_tokens: int | None = Field(default=None, ge=1)
    """Longest output when scoring."""
    validation_examples: int | None = Field(default=None, ge=2)
    """Validation examples each trial is scored on (default: all)."""
    test_examples: int | None = Field(default=None, ge=2)
    """Test examples that certification scores (default: all)."""
    train_examples: int | None = Field(default=None, ge=1)
    """Train examples that are used (default: all)."""
    allow_overlap: bool = False
    """Keep and count sources that stand in two splits."""

    @model_serializer(mode="wrap")
    def _said_where_asked_for(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave `language` and `audio_seconds` out of the JSON where unset, so that older studies keep their names."""
        found: dict[str, Any] = plain(self)
        return {k: v for k, v in found.items() if v is not None or k not in ("language", "audio_seconds")}

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not _TASK_NAME.fullmatch(value):  # a study's folder and its exports are called by it
            rule = "task must be 1 to 57 letters, digits and . _ - (a letter or digit first)"
            raise ValueError(f"{rule}, but got {ascii(value)[:80]}")
        return value

    @field_validator("metric")
    @classmethod
    def _check_metric(cls, value: str | None) -> str | None:
        if value is not None and value not in METRIC_NAMES and not _IMPORT_PATH.fullmatch(value):
            known = ", ".join(METRIC_NAMES)
            raise ValueError(f"metric must be one of {known} or module:Class, but got {value!r}")
        return value


Profile = Literal["quick", "balanced", "thorough"]
PROFILES: dict[Profile, float] = {"quick": 0.5, "balanced": 1.0, "thorough": 3.0}
"""Factor on trials and on optimizer steps per trial."""
Trials = Annotated[int, Field(ge=1)]
RETIRED = {"early_stopping": "every trial trains to its end"}
"""Settings that are no longer there, and what holds instead."""
RETIRED_SAMPLERS = ("nsga2",)
"""In the trained grid's replay no better than those that stayed (results/LOG.md, 2026-11-27)."""


class AnswerLimits(Knobs):
    """What a model must keep to be an answer, beside its budget; judged in one place, `Terms.admits`."""

    max_drop_pct: float | None = Field(default=None, gt=0, le=100)
    """Largest quality drop relative to the teacher."""


class SearchConfig(AnswerLimits):
    """Everything one search is asked; `question` is the part that makes it *this* study."""

    task: TaskConfig = TaskConfig()
    model: str | None = None
    """The fine-tuned model to prune (default: the teacher shipped with the task)."""
    revision: str | None = None
    """Revision of a hub model."""
    trim_vocab: bool = False
    """First drop every token that the train split does not need."""
    budgets: tuple[LatencyBudget, ...] = ()
    """Latency budget: 40 (ms) or 50% of the dense latency, of requests 40@p95 or 50%@p95. Repeatable."""
    search_space: SearchSpace = SearchSpace()
    recipe: PruningRecipe = PruningRecipe()
    workload: WorkloadRequest = WorkloadRequest()
    teacher: TeacherRecipe | None = None
    trials: Trials = 16
    """Trials that train; failures and refused proposals do not count."""
    workers: int | None = Field(default=None, ge=1)
    """Trials that train side by side (default: one per GPU, or one per CPU core)."""
    serial: bool = False
    """Run trials in this process, without Ray."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Seed of the search and of every trial."""
    sampler: Literal["gp", "tpe", "random", "grid"] = "gp"
    """Who proposes architectures."""
    study: str | None = None
    """Name of the study (default: task and a hash of the question)."""
    trial_timeout_s: float | None = Field(default=None, gt=0)
    """A trial ends after this long (90s, 10m, 2h)."""
    time_budget_s: float | None = Field(default=None, gt=0)
    """The whole search ends about after this long."""
    engines: bool = True
    """First try the unpruned model on every other engine installed here."""
    finalist_seeds: int = Field(default=1, ge=1, le=20)
    """Train each budget's winner with N seeds: quality as mean and interval, the best validated is exported."""
    finish_steps: int | None = Field(default=None, ge=0)
    """Train each budget's winner anew over N steps before it is certified (default: 3 trials' steps; 0: do not)."""
    keep_all: bool = False
    """Keep the weights of dominated trials."""
    format: Literal["auto", "stock"] = "auto"
    """stock: every export loads without code of ours (uniform widths)."""
    certify_rounds: int = Field(default=5, ge=2)
    """Fresh processes that re-time the front."""
    certify_pairs: int | None = Field(default=None, ge=3)
    """Timed pairs per point of the front and process (default: 40; of requests 70, or what p99 needs)."""
    storage: str | None = Field(default=None, repr=False)
    """Optuna storage URL (default: SQLite in the study's folder); may hold a password, so it is never echoed."""
    ray_address: str | None = None
    """Join a Ray cluster (auto) instead of starting one."""

    @field_validator("study")
    @classmethod
    def _check_study(cls, value: str | None) -> str | None:
        if value is not None and not _STUDY_NAME.fullmatch(value):
            rule = "study must be 1 to 64 letters, digits and . _ - (a letter or digit first)"
            raise ValueError(f"{rule}, but got {ascii(value)[:80]}")
        return value

    @model_validator(mode="after")
    def _check_format(self) -> SearchConfig:
        if self.format == "stock" and self.recipe.widths != "uniform":
            raise ValueError(f"format stock needs recipe.widths uniform, but got {self.recipe.widths}")
        return self

    @model_validator(mode="after")
    def _check_budgets(self) -> SearchConfig:
        if len({b.bound for b in self.budgets}) != len(self.budgets):
            raise ValueError(f"budgets must differ, but got {', '.join(b.asked for b in self.budgets)}")
        return self

    @classmethod
    def stored(cls, text: str | bytes) -> SearchConfig:
        """The question a study was made with, from its `config.json`; settings retired since are left out.

        A study of a retired sampler is read as one of the default sampler: to go on with it is another question.

        Raises:
            ValueError: when it is no question.
        """
        fields = json.loads(text)
        if isinstance(fields, dict):
            fields = {name: value for name, value in fields.items() if name not in RETIRED}
            if fields.get("sampler") in RETIRED_SAMPLERS:
                del fields["sampler"]
        return cls.model_validate(fields)

    @property
    def limits(self) -> AnswerLimits:
        """The fields of `AnswerLimits` alone, which later questions (`pick`) may replace."""
        return AnswerLimits(**{name: getattr(self, name) for name in AnswerLimits.model_fields})

    def question(self) -> dict[str, Any]:
        """What makes two runs the same study: space, model, data, recipe, workload, seed.

        Budgets, trials, workers and storage may change between runs of one study.
        """
        keep = {"task", "model", "revision", "search_space", "recipe", "workload", "sampler", "seed", "max_drop_pct"}
        # said only where it was asked for, so that studies of before keep their names
        asked = self.model_dump(mode="json", include=keep | ({"trim_vocab"} if self.trim_vocab else set()))
        if not self.recipe.calibrate:
            del asked["recipe"]["calibrate"]
        said = {"traffic": self.traffic, "percentile": self.percentile}
        for name, value in said.items():
            del asked["workload"][name]
            asked["workload"] |= {name: value} if self.of_requests else {}
        return asked

    def profiled(self, profile: Profile, *, keep_trials: bool = False) -> SearchConfig:
        """More or less of everything that costs: trials and optimizer steps, times the profile's factor.

        Args:
            profile: `quick`, `balanced` (as the search space says) or `thorough`.
            keep_trials: the number of trials was asked for and stays.
        """
        factor = PROFILES[profile]
        steps = {name: round(getattr(self.recipe, name) * factor) for name in ("narrow_steps", "tune_steps")}
        trials = self.trials if keep_trials else max(1, round(self.trials * factor))
        return self.model_copy(update={"recipe": self.recipe.model_copy(update=steps), "trials": trials})

    @property
    def traffic(self) -> str:
        """Whose requests are timed: `data`, `fixed` (none: one call of fixed lengths) or a file."""
        asked = self.workload.percentile is not None or any("@" in b.asked for b in self.budgets)
        return self.workload.traffic or (DATA if asked else FIXED)

    @property
    def of_requests(self) -> bool:
        """Is a latency a percentile over requests?"""
        return self.traffic != FIXED

    @property
    def percentile(self) -> float:
        """Percentile that the front is drawn in: `workload.percentile`, else the first budget's, else the median."""
        if self.workload.percentile is not None:
            return self.workload.percentile
        return self.budgets[0].percentile if self.budgets else MEDIAN

    @property
    def highest(self) -> float:
        """The highest percentile that the front or a budget asks for, which needs most requests."""
        return max([self.percentile, *(b.percentile for b in self.budgets)])

    @property
    def question_hash(self) -> str:
        """Six hex digits of the question; part of the default study name."""
        return digest(self.question())[:6]

    @property
    def study_name(self) -> str:
        """The study's name: asked for, or task and a short hash of the question."""
        return self.study or f"{self.task.name}-{self.question_hash}"


def digest(value: Any) -> str:
    """sha256 of a JSON value with sorted keys, hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
