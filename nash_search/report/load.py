"""A study's folder, read back: certificate, summary, probe and the trials' records become a view.

    results/<study>/certification.json     the front, judged here once (`results.judged`)
                    summary.json           what else the search found out, and the budgets that were asked
                    config.json            what limited its answers
                    probe.json             shapes timed before training   (missing: no probe drawn)
                    trials/*/record.json   one record each                (unreadable: left out; a committed study
                                           comes without its trials, then the front alone is shown)

Reads files only, never the database.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from nash_search.config import AnswerLimits, Architecture, LatencyBudget
from nash_search.errors import InvalidInput, typed_study
from nash_search.latency_record import Latency
from nash_search.records import TrialRecord
from nash_search.report.view import Cell, StudyView, build
from nash_search.results import CERTIFICATION, Answers, Certification, CertifiedPoint, Terms, judged
from nash_search.summaries import SUMMARY, Summary


def load(folder: Path, answers: Answers | None = None) -> StudyView:
    """The study in a folder.

    Args:
        folder: the study's.
        answers: its certified front as this process has judged it (None: judged now, from `certification.json`).

    Raises:
        InvalidInput: when there is no finished study in it, or its certificate is gone.
    """
    path = folder / SUMMARY
    try:
        summary = Summary.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InvalidInput(f"study must be finished (have a summary.json), but got {folder}") from None
    except ValueError:
        raise InvalidInput(f"summary.json must be a finished study's, but got {path}") from None
    sizes = {row.number: row.parameters for row in summary.front}
    answers = answers or judged_of(folder, summary)
    certification = answers.certification if answers else None
    found = [
        r if r.parameters is not None else r.model_copy(update={"parameters": sizes.get(r.number)})
        for r in records(folder, certification)
    ]
    return build(found, summary, answers, probe=probe(folder), models=models(folder, certification), folder=folder)


def judged_of(folder: Path, summary: Summary) -> Answers | None:
    """What the study's certificate gives each budget of its summary; None where nothing is certified."""
    found = Certification.stored(folder)
    if found is None and summary.front:  # the summary's verdicts are a copy, never the truth
        what = f"a study with a front must have a readable {CERTIFICATION}, but got {folder}"
        raise InvalidInput(what, fix=f"nash-search resume {typed_study(folder)} certifies its front again")
    if found is None or not found.points:
        return None
    try:
        budgets = [LatencyBudget.parse(row.asked) for row in summary.budgets]
        return judged(found, Terms.of_summary(summary, budgets, _limits(folder)))
    except ValueError as error:
        raise InvalidInput(f"summary.json must be a finished study's, but got {folder}") from error


def _limits(folder: Path) -> AnswerLimits:
    """The study's own; read alone, for a configuration of before may name what is unknown by now."""
    try:
        found = json.loads((folder / "config.json").read_text("utf-8"))
        return AnswerLimits(**{name: found[name] for name in AnswerLimits.model_fields if name in found})
    except (OSError, ValueError, TypeError):
        return AnswerLimits()


def records(folder: Path, certification: Certification | None = None) -> list[TrialRecord]:
    """Every readable record of a study's trials, by number; the newest where a number occurs twice.

    A certified point stands in for a trial whose record is not there.
    """
    found = {p.number: _searched(p) for p in certification.points} if certification else {}
    for path in sorted((folder / "trials").glob("*/record.json"), key=lambda p: p.stat().st_mtime_ns):
        try:
            record = TrialRecord.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue
        found[record.number] = record
    return [found[number] for number in sorted(found)]


def models(folder: Path, certification: Certification | None) -> dict[int, TrialRecord]:
    """By trial number, records of the exported models that are another training than the search's own."""
    found = {}
    for point in certification.points if certification else ():
        own = next((t for t in point.seeds if t.key == point.key), None)
        if own is None or own == point.seeds[0]:  # the search's own training comes first
            continue
        path = (folder / own.checkpoint).parent / "record.json"
        record = _stand_in(point)
        if path.resolve().is_relative_to(folder.resolve()):
            with suppress(OSError, ValidationError):  # a committed study comes without them
                record = TrialRecord.model_validate_json(path.read_bytes())
        found[point.number] = record.model_copy(update={"number": point.number})
    return found


def _searched(point: CertifiedPoint) -> TrialRecord:
    """What certification knows of the search's own training of a point, whose export may be trained at length."""
    record = _stand_in(point)
    return (
        record if point.searched is None else record.model_copy(update={"quality": point.searched, "finish_steps": 0})
    )


def _stand_in(point: CertifiedPoint) -> TrialRecord:
    """What certification knows of a trial: latency and validation quality, nothing about training."""
    return TrialRecord(
        number=point.number,
        architecture=point.architecture,
        latency=point.latency,
        quality=point.validation,
        checkpoint=point.checkpoint,
        seed=point.seed,
        finish_steps=point.finish_steps,
        parameters=point.parameters,
    )


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
