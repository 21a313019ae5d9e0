"""What a search leaves behind when something after its trials fails, and what the next start then skips.

every trial failed            said with the first reason, never as "no architecture meets the budget"
certification, test, tables   `summary.json` with what the trials' own timings say, nothing of it called met
the next start                the same question again: no trial is trained, what failed is done again
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nash_search import errors
from nash_search.config import Architecture, SearchConfig
from nash_search.latency.fresh_process import MeasurementFailed
from nash_search.records import TrialRecord
from nash_search.results import Terms
from nash_search.search import finalists
from nash_search.summaries import SUMMARY, Summary
from nash_search.summary_rows import BudgetRow
from nash_search.trial.run import reason_of

SPENDING = ("budgets", "max_drop_pct", "sampler", "trials", "time_budget_s")
"""What a configuration asks of the trials; another value asks for more of them."""


def check_trained(
    records: Sequence[TrialRecord], baseline: Architecture, folder: Path, time_budget_s: float | None = None
) -> None:
    """Refuse to answer from trials of which none came to a model.

    Args:
        records: of the study's trials.
        baseline: the dense model, whose row is no trial.
        folder: the study's.
        time_budget_s: the time budget, where that ended the trials.

    Raises:
        NashSearchError: exit code 1, when the first of them failed for a reason that nobody foresaw.
        Unfinished: for any other reason.
    """
    if any(r.status in ("complete", "stopped") and r.architecture != baseline for r in records):
        return
    resume, name = f"nash-search resume {errors.typed_study(folder)}", folder.name
    failed = [r for r in records if r.status == "failed"]
    if not failed and time_budget_s is not None:
        taken = "which timing before the trials and certifying after them take"
        what = f"time budget must leave room for a trial, but got {time_budget_s:.0f} s, {taken}"
        fix = f"{resume} goes on, what was timed is not timed again; or give more"
        raise errors.Unfinished(what, where="--time-budget", fix=fix)
    if not failed:
        return
    first = min(failed, key=lambda r: r.number)
    kind = errors.NashSearchError if first.failure == "error" else errors.Unfinished
    reason = first.failure if first.failure and first.failure in first.message else f"{first.failure}: {first.message}"
    raise kind(
        f"a trial must end with a model, but all {len(failed)} failed, the first ({first.architecture.slug}) "
        f"of {reason.removeprefix('error: ')}",
        where=name,
        fix=f"{resume} tries others",
    )


def as_told(error: Exception, folder: Path) -> Exception:
    """What to raise for what failed after the trials: want of memory, disk or time is no bug and has a way on."""
    foreseen = isinstance(error, MeasurementFailed) or reason_of(error)[0] in ("oom", "disk_full", "timeout")
    if not foreseen or isinstance(error, errors.Unfinished):
        return error
    what = str(error) if isinstance(error, errors.NashSearchError) else reason_of(error)[1]
    fix = f"nash-search resume {errors.typed_study(folder)} goes on from there, no trial is trained again"
    return errors.Unfinished(f"the search must end with a certified answer, but {what}", where=folder.name, fix=fix)


def answers(
    rows: Sequence[BudgetRow], records: Sequence[TrialRecord], terms: Terms, folder: Path
) -> tuple[BudgetRow, ...]:
    """The summary's budgets where certification did not end: `ambiguous`, with what the trials' own timings promise.

    Args:
        rows: of the summary, certified as far as it is, in the order of the terms' budgets.
        records: of the study's trials.
        terms: what the front is judged by.
        folder: the study's.
    """
    found = []
    for budget, told in zip(terms.budgets, rows, strict=True):
        known = terms.yardstick(budget)
        if told.verdict == "met" or known.floor_share > budget.share_of(known.dense_ms):
            found.append(told)
            continue
        asked = terms.model_copy(update={"budgets": (budget,)})
        best = finalists.expected_winners([r for r in records if r.checkpoint], asked)
        answer: dict[str, Any] = {"verdict": "ambiguous"}
        for record in best:
            assert record.latency is not None and record.quality is not None
            latency = record.latency.at(budget.percentile)
            answer |= {
                "latency_ms": latency.ratio * known.dense_ms,
                "upper_ms": None,
                "speedup": latency.speedup,
                "quality": record.quality.value,
                "quality_standard_error": record.quality.standard_error,
                "quality_split": record.quality.split,
                "checkpoint": str(folder / str(record.checkpoint)),
                "architecture": record.architecture,
            }
        found.append(told.model_copy(update=answer))
    return tuple(found)


def only_the_end_is_missing(folder: Path, config: SearchConfig) -> bool:
    """Did all trials of this very search end before, and then something failed?"""
    try:
        left = Summary.model_validate_json((folder / SUMMARY).read_bytes()).unfinished
        before = SearchConfig.stored((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return False
    return bool(left) and all(getattr(before, name) == getattr(config, name) for name in SPENDING)
