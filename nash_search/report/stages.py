"""What a run is told to be doing, stage by stage, in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nash_search.calibration_record import Calibration, ShortTraining
from nash_search.report.engines import trying
from nash_search.report.words import (
    calibration_words,
    counted,
    fidelity_words,
    format_quality,
    recipe_words,
    shared_words,
    training_words,
    vocabulary_words,
)
from nash_search.summary_rows import Vocabulary

STAGES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "workload": lambda d: "",
    "probe": lambda d: (
        f"timing {d.get('shapes', 'the')} shapes "
        + ("again: their times did not grow with depth" if d.get("again") else "before training any")
    ),
    "engines": trying,
    "vocabulary": lambda d: vocabulary_words(Vocabulary.model_validate(d)),
    "shared": shared_words,
    "calibration": calibration_words,
    "calibrated": lambda d: training_words(ShortTraining.model_validate(d)),
    "recipe": lambda d: recipe_words(Calibration.model_validate(d)),
    "search": lambda d: (
        "searching" if not d.get("trained") else f"searching on, {d['trained']} trials are there already"
    ),
    "front": lambda d: (
        f"{counted(d.get('points', 0), 'point')} on the front"
        + (f", {d['beside']} so close behind that the clock decides" if d.get("beside") else "")
        + f" ({d.get('why') or 'done'})"
    ),
    "certify": lambda d: (
        f"timing {counted(d.get('points', 0), 'point')} again, alone, in {d.get('rounds', 'several')} fresh processes"
        + (f" of {d['pairs']} {d['units']} each" if d.get("units", "pairs") != "pairs" else "")
        + (f", asked {d['looks']} times: earlier rounds count too" if d.get("looks", 1) > 1 else "")
    ),
    "fidelity": fidelity_words,
    "test": lambda d: f"scoring {counted(d.get('models', 1), 'model')} on the sealed test split, once",
    "finalists": lambda d: (
        f"training {counted(d['architectures'], 'winner')} "
        + (f"at length, {d['steps']:,} steps" if d.get("steps") else "with other seeds too")
        + f", {counted(d['trainings'], 'training')}"
    ),
    "finalist": lambda d: (
        f"trial {d['number']}, seed {d['seed']}"
        + (f", {d['steps']:,} steps: " if d.get("steps") else ": ")
        + (f"failed ({d['failure']})" if d.get("failure") else f"quality {format_quality(d['quality'])}")
    ),
    "infeasible": lambda d: "",
    "unfinished": lambda d: "",
    "done": lambda d: "",
}
"""Stage -> what to say; nothing where the plan or the answer says it better."""
