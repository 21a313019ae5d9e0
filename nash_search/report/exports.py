"""A model card into every export of a finished study, and into the copies under `best/`.

Reads `certification.json` for the certified timings and the sealed test's scores, and each
export's `config.json` for whether it needs our modelling file. Writes `README.md` and nothing
else. A path that leaves the study's folder is refused.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ValidationError

from nash_search.config import Architecture, LatencyBudget
from nash_search.errors import InvalidInput
from nash_search.files import replace
from nash_search.records import Artefact, Latency, Quality, TrialRecord
from nash_search.report.card import card
from nash_search.report.view import StudyView


class Training(BaseModel):
    """One seed of an architecture that was trained with several."""

    seed: int
    checkpoint: str
    validation: Quality
    test: Quality | None = None


class Certified(BaseModel):
    """A point of the front as certification left it."""

    number: int
    architecture: Architecture
    checkpoint: str
    latency: Latency
    validation: Quality
    test: Quality | None = None
    seed: int = 0
    seeds: tuple[Training, ...] = ()

    def over_seeds(self) -> dict[int, Quality]:
        """Quality by seed, on the test split where all were scored there."""
        tested = {t.seed: t.test for t in self.seeds if t.test is not None}
        return tested if len(tested) == len(self.seeds) else {t.seed: t.validation for t in self.seeds}

    def record(self, folder: Path) -> TrialRecord | None:
        """The export's own record, where it is a finalist's."""
        for training in self.seeds:
            path = (folder / training.checkpoint).parent / "record.json"
            if training.seed == self.seed and path.resolve().is_relative_to(folder.resolve()) and path.is_file():
                return TrialRecord.model_validate_json(path.read_bytes()).model_copy(update={"number": self.number})
        return None


class Certification(BaseModel):
    """`certification.json`, as far as a card needs it."""

    points: tuple[Certified, ...] = ()
    dense_test: Quality | None = None


def write_cards(folder: Path, view: StudyView, *, teacher: str = "", data: str = "", license: str = "") -> list[Path]:
    """Write the cards; return their paths.

    Args:
        folder: the study's folder.
        view: the study.
        teacher: Hub id or words for the dense model (default: its folder's name).
        data: Hub id or words for the data set (default: the task).
        license: Hub id of the license; empty: none is claimed.

    Raises:
        InvalidInput: when an export's path leaves the folder.
    """
    found = certification(folder)
    words = _no_path(teacher) or Path(view.dense.checkpoint or "" if view.dense else "").name
    copies: dict[int, list[Path]] = {}
    for pick in view.picks:
        if pick.point is not None and pick.verdict == "met":
            copy = folder / "best" / LatencyBudget.parse(pick.asked).folder
            copies.setdefault(pick.point.number, []).append(copy)
    written = []
    for point in found.points:
        export = folder / point.checkpoint
        if not export.resolve().is_relative_to(folder.resolve()):
            raise InvalidInput(f"checkpoint must lie in the study's folder, but got {point.checkpoint}")
        if not export.is_dir():
            continue
        text = card(
            view,
            point.number,
            name=export.name,
            teacher=words,
            data=_no_path(data),
            license=license,
            stock=is_stock(export),
            latency=point.latency,
            test=point.test,
            dense_test=found.dense_test,
            engines=engines(export),
            record=point.record(folder),
            seeds=point.over_seeds(),
        )
        for place in (export, *copies.get(point.number, ())):
            if place.is_dir():
                replace(place / "README.md", text.encode("utf-8"))
                written.append(place / "README.md")
    return written


def certification(folder: Path) -> Certification:
    """What `certification.json` says; nothing where there is none yet."""
    path = folder / "certification.json"
    return Certification.model_validate_json(path.read_bytes()) if path.exists() else Certification()


def cards(folder: Path) -> dict[int, str]:
    """Trial number to its export's card, for those that have one."""
    found = {point.number: folder / point.checkpoint / "README.md" for point in certification(folder).points}
    return {number: path.read_text("utf-8") for number, path in found.items() if path.is_file()}


def _no_path(name: str) -> str:
    """A local folder or file goes by its last name: its path is nobody's business and no Hub id."""
    return Path(name).name if name and Path(name).exists() else name


def engines(export: Path) -> list[Artefact]:
    """The records of what serving engines load from this export; one that cannot be read is left out."""
    found = []
    for record in sorted(export.glob("*/artefact.json")):
        try:
            found.append(Artefact.model_validate_json(record.read_bytes()))
        except (OSError, ValidationError):
            continue
    return found


def is_stock(export: Path) -> bool:
    """Loads with transformers alone: its config names no code of ours."""
    try:
        return "auto_map" not in json.loads((export / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
