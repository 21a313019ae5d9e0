"""A model card into every export of a finished study, and into the copies under `best/`.

Certified timings and the sealed test's scores are the view's; each export's `config.json` says whether it needs our
modelling file. Writes `README.md` and nothing else. A path that leaves the study's folder is refused.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from nash_search.errors import InvalidInput
from nash_search.families import FAMILIES
from nash_search.files import replace
from nash_search.records import Artefact
from nash_search.report.card import Export, card
from nash_search.report.card_metadata import Source
from nash_search.report.text import is_stock
from nash_search.report.view import StudyView


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
    words = _no_path(teacher) or Path(view.dense.checkpoint or "" if view.dense else "").name
    winners = view.answers.winners if view.answers else {}
    written = []
    for point in view.certified:
        export = folder / point.checkpoint
        if not export.resolve().is_relative_to(folder.resolve()):
            raise InvalidInput(f"checkpoint must lie in the study's folder, but got {point.checkpoint}")
        if not export.is_dir():
            continue
        about = Export(
            name=export.name,
            point=point,
            dense_test=view.answers.certification.dense_test if view.answers else None,
            engines=engines(export),
            stock=is_stock(export),
            misread=misread(export),
        )
        text = card(view, about, Source(teacher=words, data=_no_path(data), license=license))
        copies = [folder / "best" / name for name, winner in winners.items() if winner.key == point.key]
        for place in (export, *copies):
            if place.is_dir():
                replace(place / "README.md", text.encode("utf-8"))
                written.append(place / "README.md")
    return written


def cards(view: StudyView, folder: Path) -> dict[int, str]:
    """Trial number to its export's card, for those that have one."""
    found = {point.number: folder / point.checkpoint / "README.md" for point in view.certified}
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


def misread(export: Path) -> str:
    """Which server misreads a stock export, in words; empty: none that is known."""
    try:
        config = json.loads((export / "config.json").read_text("utf-8"))
        family = FAMILIES.get(config["model_type"])
        narrower = config.get("encoder_ffn_dim") != config.get("decoder_ffn_dim")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ""
    return family.misread if family is not None and narrower else ""
