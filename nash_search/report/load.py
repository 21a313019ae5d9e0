"""A study's folder, read back: `summary.json`, `probe.json` and the trials' records become a view.

    results/<study>/summary.json           the search's document
                    probe.json             shapes timed before training   (missing: no probe drawn)
                    trials/*/record.json   one record each                (unreadable: left out)
                    certification.json     the front's points, where their records are not there (a committed
                                           study comes without its trials)

Reads only; never opens the database and never imports the search.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from nash_search.config import Architecture
from nash_search.errors import InvalidInput
from nash_search.records import Latency, TrialRecord
from nash_search.report.exports import certification
from nash_search.report.view import Cell, StudyView, build


def load(folder: Path) -> StudyView:
    """The study in a folder.

    Raises:
        InvalidInput: when there is no finished study in it.
    """
    path = folder / "summary.json"
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InvalidInput(f"study must be finished (have a summary.json), but got {folder}") from None
    except ValueError:
        raise InvalidInput(f"summary.json must be JSON, but got {path}") from None
    sizes = {entry.get("number"): entry.get("parameters") for entry in document.get("front") or ()}
    found = [
        r if r.parameters is not None else r.model_copy(update={"parameters": sizes.get(r.number)})
        for r in records(folder)
    ]
    return build(found, document, probe(folder))


def records(folder: Path) -> list[TrialRecord]:
    """Every readable record of a study's trials, by number; the newest where a number occurs twice."""
    found = {record.number: record for record in _certified(folder)}
    for path in sorted((folder / "trials").glob("*/record.json"), key=lambda p: p.stat().st_mtime_ns):
        try:
            record = TrialRecord.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue
        found[record.number] = record
    return [found[number] for number in sorted(found)]


def _certified(folder: Path) -> list[TrialRecord]:
    """The front as certification left it: latencies and validation qualities, nothing about training."""
    return [
        TrialRecord(
            number=point.number,
            architecture=point.architecture,
            latency=point.latency,
            quality=point.validation,
            checkpoint=point.checkpoint,
        )
        for point in certification(folder).points
    ]


def probe(folder: Path) -> list[Cell]:
    """The shapes timed before training."""
    try:
        table = json.loads((folder / "probe.json").read_text("utf-8"))
    except (OSError, ValueError):
        return []
    cells = []
    for entry in table.get("entries", ()):
        architecture = Architecture.model_validate(entry["architecture"])
        cells.append(
            Cell(
                decoder_layers=architecture.decoder_layers,
                encoder_sparsity_pct=architecture.encoder_sparsity_pct,
                ratio=Latency.model_validate(entry["latency"]).ratio,
            )
        )
    return cells
