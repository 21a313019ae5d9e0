"""What a calibration found: short trainings of one architecture, and the rates and labels that the trials take.

Setting         the two learning rates and the labels: what a calibration varies
ShortTraining   one setting, trained for so many steps, and its quality
Calibration     all of them and the one that is chosen
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from nash_search import pareto
from nash_search.architecture import Architecture
from nash_search.length_forecast import Forecast, Reached, forecast_gain
from nash_search.recipes import Frozen, Labels, PruningRecipe
from nash_search.records import FailureReason, TrialRecord

VALIDATION_LOSS = "validation_loss"
"""Among a record's diagnostics: nats per token of the first references."""
SCORING = "scoring"
"""Among a record's stages: its seconds are a calibration's too."""
LOWEST, HIGHEST = 1e-5, 3e-2
"""Learning rates that are tried, three and a half decades; a recipe's own may lie outside."""


class Setting(Frozen):
    """The fields of a recipe that a calibration varies."""

    learning_rate: float = Field(gt=0)
    """Learning rate of the weights in stage 2, which trains them together with the gates."""
    tune_learning_rate: float = Field(gt=0)
    """Learning rate of the weights in stage 4, which tunes the cut model."""
    labels: Labels

    @classmethod
    def of(cls, recipe: PruningRecipe) -> Setting:
        """A recipe's own values of these fields."""
        return cls.model_validate(recipe.model_dump(include=set(cls.model_fields)))

    def within(self, recipe: PruningRecipe) -> PruningRecipe:
        """The recipe with these rates and labels."""
        return recipe.model_copy(update=self.model_dump())


class ShortTraining(Frozen):
    """One setting, trained short."""

    setting: Setting
    steps: int
    """Optimizer steps, both stages."""
    quality: float | None = None
    """On the validation examples; None where it has none."""
    standard_error: float | None = None
    """Of the quality; None: trained before this was kept."""
    loss: float | None = None
    """Cross-entropy of the validation references, nats per token."""
    seconds: float = 0.0
    """Training, the teacher's answers and scoring."""
    scoring_s: float = 0.0
    """Of these, scoring."""
    failure: FailureReason | None = None
    """`nan`: it diverged."""
    message: str = ""

    @classmethod
    def of(cls, record: TrialRecord) -> ShortTraining:
        """What a record says of it, which has its recipe."""
        if record.recipe is None:
            raise ValueError("a calibration's record must have its recipe, but it has none")
        return cls(
            setting=Setting.of(record.recipe),
            steps=record.recipe.trial_steps,
            quality=None if record.quality is None else record.quality.value,
            standard_error=None if record.quality is None else record.quality.standard_error,
            loss=record.pruning.get(VALIDATION_LOSS),
            seconds=record.train_s,
            scoring_s=record.stages.get(SCORING, {}).get("seconds", 0.0),
            failure=record.failure,
            message=record.message,
        )


class Calibration(Frozen):
    """Every short training of one study, and what they decide."""

    architecture: Architecture
    """The one that was trained."""
    metric: str
    direction: pareto.Direction
    examples: int
    """Validation examples that each was scored on."""
    trainings: tuple[ShortTraining, ...]
    """In the order of their settings' first training, the shorter before the longer."""
    chosen: Setting
    by: Literal["quality", "loss"] = "quality"
    """What told them apart: the loss, where the metric was the same for all."""
    limit_s: float
    """Seconds that it was allowed."""
    dense_quality: float | None = None
    """Of the teacher on validation; None: found before this was kept."""
    trial_steps: int | None = None
    """Optimizer steps of a trial of the study that found it."""
    remembered: bool = False
    """Taken over from an earlier study of the same model, data, steps and batch."""

    @property
    def seconds(self) -> float:
        """All of it, one training after the other."""
        return sum(t.seconds for t in self.trainings)

    @property
    def best(self) -> ShortTraining:
        """The chosen setting's longest training."""
        return max((t for t in self.trainings if t.setting == self.chosen), key=lambda t: t.steps)

    @property
    def twice(self) -> Forecast | None:
        """Forecast for this architecture trained twice a trial's steps, from the best setting scored at two lengths.

        None where no setting has two lengths, the record is too old to know the study, or nothing can be learnt.
        """
        if self.dense_quality is None or self.trial_steps is None:
            return None
        for best in best_first(self.trainings, self.direction):
            lengths = sorted(
                (t for t in self.trainings if t.setting == best.setting and t.standard_error is not None),
                key=lambda t: t.steps,
            )
            if len(lengths) > 1:
                short, long = (
                    Reached(steps=t.steps, quality=t.quality or 0.0, standard_error=t.standard_error or 0.0)
                    for t in (lengths[0], lengths[-1])
                )
                return forecast_gain(short, long, self.dense_quality, self.direction, begin=self.trial_steps)
        return None


def best_first(trainings: Iterable[ShortTraining], direction: pareto.Direction) -> tuple[ShortTraining, ...]:
    """Trainings of one length from best to worst, those without a quality left out.

    The metric decides, and the validation loss between equals (a metric can be 0 for all of them).
    """
    able = [(pareto.loss(t.quality, direction), t.loss, t) for t in trainings if t.quality is not None]
    worst = float("inf")
    return tuple(t for _, _, t in sorted(able, key=lambda f: (f[0], worst if f[1] is None else f[1])))


def flat(trainings: Iterable[ShortTraining]) -> bool:
    """True if at least two trainings have a quality and all of these are equal, so that the metric ranks nothing."""
    values = [t.quality for t in trainings if t.quality is not None]
    return len(values) > 1 and max(values) == min(values)
