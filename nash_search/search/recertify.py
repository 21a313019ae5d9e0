"""A study's certificate after its front was timed again on its own device: all rounds count, every document follows.

    remeasure, pick --certify -> certification.json, best/, measurement.json of each export, summary.json, front.*

Nothing is trained and the sealed test split stays closed: a winner that was none before keeps its validation score.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from nash_search.config import SearchConfig
from nash_search.files import write_atomic
from nash_search.latency_record import Latency, pooled
from nash_search.results import Certification, Terms, judged
from nash_search.search import certify, held_out_test, margins
from nash_search.search import summary as document
from nash_search.search.export_names import MEASUREMENT, measurement
from nash_search.storage import locks
from nash_search.summaries import SUMMARY, Summary

LEAST_ROUNDS = 2
"""Fresh rounds without which nothing is certified."""


def renew(folder: Path, found: Mapping[str, Latency]) -> str:
    """Put what was timed now into the study's certificate.

    Args:
        folder: the study's.
        found: by checkpoint as the certificate names it, rounds taken just now.

    Returns:
        Why it was not renewed; empty where it was.
    """
    with locks.only_driver(folder):
        before = certify.read(folder)
        if before is None or {p.checkpoint for p in before.points} != set(found):
            return "the study's front is another by now"
        pairs = [(p.latency, found[p.checkpoint]) for p in before.points]
        if any(old.fingerprint.get("hash") != new.fingerprint.get("hash") for old, new in pairs):
            return "the study was certified on another device or software"
        if min(sum(bool(r.runs_ms) for r in new.rounds) for _, new in pairs) < LEAST_ROUNDS:
            return f"fewer than {LEAST_ROUNDS} rounds could be taken"
        latency = pairs[0][1]
        margins.keep_fresh(folder, latency, before.dense_checkpoint)
        effect = margins.learnt(folder, latency.fingerprint)
        points = tuple(
            p.model_copy(update={"latency": pooled(p.latency, new.model_copy(update={"effect": effect}))})
            for p, (_, new) in zip(before.points, pairs, strict=True)
        )
        renewed = before.model_copy(update={"points": tuple(sorted(points, key=lambda p: p.latency.ratio))})
        certify.write(folder, renewed)
        return restate(folder, renewed)


def restate(folder: Path, found: Certification) -> str:
    """Rewrite measurement.json of each export, best/, summary.json and front.* from the certificate; no page, no card.

    Args:
        folder: the study's, whose lock is held.
        found: its certificate, every point with an occasion effect.

    Returns:
        Why it could not be done; empty where it was.
    """
    try:
        config = SearchConfig.stored((folder / "config.json").read_bytes())
        summary = Summary.model_validate_json((folder / SUMMARY).read_bytes())
        answers = judged(found, Terms.of_summary(summary, config.budgets, config.limits))
    except (OSError, ValueError):
        return "the certificate is renewed, but the study has no summary.json to say it in"
    inputs = summary.inputs.to_json() if summary.inputs is not None else None
    for point in found.points:
        dense = Path(found.dense_checkpoint)
        about = measurement(config, point.architecture, point.latency, point.validation, dense, inputs)
        write_atomic(folder / point.checkpoint / MEASUREMENT, json.dumps(about, indent=1))
    held_out_test.place(folder, answers)
    sizes = {p.number: p.parameters for p in summary.front}
    nearest = {b.asked: {"nearest_feasible": b.nearest_feasible} for b in summary.budgets}
    latency, scale_ms = found.points[0].latency, answers.terms.shown_dense_ms
    assert latency.effect is not None and summary.dense is not None
    renewed = {
        "dense": summary.dense.model_copy(update=document.dense_times(answers)),
        "budgets": tuple(document.budget_row(a, folder, **nearest.get(a.budget.asked, {})) for a in answers.budgets),
        "front": tuple(
            document.front_row(p, folder, p.parameters or sizes.get(p.number), scale_ms) for p in found.points
        ),
        "certifies": margins.certifies(config.budgets, latency.effect, config.certify_rounds, latency),
    }
    document.write_summary(folder, summary.model_copy(update=renewed))
    return ""
