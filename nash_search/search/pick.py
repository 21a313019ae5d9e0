"""Another budget, answered from a finished study: nothing is trained, nothing but files is read.

The whole front was certified when the study ended, so the answer may say `met`. Only winners of the study's
own budgets were scored on the sealed test split; another point's quality is the validation split's, and says so.
With `certify` the front is timed again in fresh processes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nash_search.config import LatencyBudget, SearchConfig
from nash_search.errors import InvalidInput, typed_study
from nash_search.latency.fresh_process import MeasurementFailed
from nash_search.latency_table import LatencyTable
from nash_search.results import CERTIFICATION, BudgetAnswer, Certification, Terms, judged
from nash_search.search import certify as certification
from nash_search.search import margins, plan, recertify
from nash_search.search import summary as document
from nash_search.search.fresh_timing import LIMIT_S
from nash_search.storage import locks
from nash_search.summaries import SUMMARY, Summary
from nash_search.trial.cost import certified_pairs
from nash_search.trial.evaluator import open_evaluator

NO_OTHER_LIMITS: Mapping[str, Any] = MappingProxyType({})


def pick(
    folder: Path, budget: LatencyBudget, *, limits: Mapping[str, Any] = NO_OTHER_LIMITS, certify: bool = False
) -> Summary:
    """The study's summary with this one budget in `budgets`.

    Args:
        folder: the study's folder.
        budget: what to answer.
        limits: fields of `AnswerLimits` in place of the study's own.
        certify: time the front again, now.

    Raises:
        InvalidInput: when the study has no certified front yet.
    """
    found, layers = certification.read(folder), None
    try:
        summary = Summary.model_validate_json((folder / SUMMARY).read_bytes())
        config = SearchConfig.stored((folder / "config.json").read_bytes())
        layers = summary.decoder_layers
        table = LatencyTable.model_validate_json((folder / "probe.json").read_bytes())
        asked = config.limits.model_copy(update=dict(limits))
        space = config.search_space.filled(layers or 1)
        terms = Terms.of_summary(summary, [budget], asked, plan.yardsticks([budget], table, space))
    except (OSError, ValueError):
        found = None
    if found is None or layers is None:
        gone = (folder / CERTIFICATION).is_file()
        got = "a certified front whose exports are gone" if gone else "no certified front"
        raise InvalidInput(f"study must be finished to answer a budget, but got {got}", where=str(folder))
    if certify:
        found = _again(folder, found, config, budget, table)
        summary = Summary.model_validate_json((folder / SUMMARY).read_bytes())
    [answer] = judged(found, terms).budgets
    nearest = document.nearest(table, config, layers, budget, terms, found.points)
    row = document.budget_row(answer, folder, nearest_feasible=nearest)
    loosest = _loosest(config, table, budget)
    if loosest is not None:
        row = row.model_copy(update={"searched_up_to": loosest.asked})
    if answer.point is None:  # a limit on quality may shut out what training at length would mend
        [answer] = judged(found, terms.model_copy(update={"dense_quality": None})).budgets
    if loosest is None and _can_be_finished(answer, config):
        row = row.model_copy(update={"finish": f"nash-search resume {typed_study(folder)} --budget-ms {budget.asked}"})
    return summary.model_copy(update={"study": folder.name, "budgets": (row,)})


def _loosest(config: SearchConfig, table: LatencyTable, budget: LatencyBudget) -> LatencyBudget | None:
    """The loosest budget that the study was asked, where this one is looser still: nothing was searched between them.

    Among the budgets of its percentile, or among all where the study was asked none of it.
    """

    def share(one: LatencyBudget) -> float:
        return one.share_of(table.at(one.percentile).dense_ms)

    alike = [b for b in config.budgets if b.percentile == budget.percentile] or list(config.budgets)
    loosest = max(alike, key=share, default=None)
    return loosest if loosest is not None and share(budget) > share(loosest) * (1 + 1e-9) else None


def _can_be_finished(answer: BudgetAnswer, config: SearchConfig) -> bool:
    """Would the study, asked this budget too, train the answer at length, which it has not done yet?"""
    point = answer.point
    if point is None or config.finish_steps == 0:
        return False
    return not (point.finish_steps or any(training.finish_steps for training in point.seeds))


def _again(
    folder: Path, found: Certification, config: SearchConfig, budget: LatencyBudget, table: LatencyTable
) -> Certification:
    """Time every point again in fresh processes, pool the rounds, and write the certification to the study.

    Raises:
        InvalidInput: this is another device or software than the study's.
        MeasurementFailed: fewer than two new rounds came in time; nothing is written.
    """
    with locks.only_driver(folder):
        folders = {p.key: folder / p.checkpoint for p in found.points}
        evaluator = open_evaluator(config)
        evaluator.keep_dense(folder)
        if evaluator.fingerprint()["hash"] != table.fingerprint["hash"]:
            raise InvalidInput(
                "device and software must be those of the study to certify its front again, but got others",
                where=str(folder),
                fix=f"nash-search remeasure {typed_study(folder)} times it here",
            )
        latencies = evaluator.time_fresh(
            folders,
            {key: [budget] for key in folders},
            rounds=config.certify_rounds,
            pairs=certified_pairs(config, evaluator.workload().longer, budget.percentile),
            limit_s=LIMIT_S,
            effect=margins.learnt(folder, evaluator.fingerprint()),
            before=(before := found.latencies()),
        )
        if min(len(now.rounds) - len(before[key].rounds) for key, now in latencies.items()) < 2:
            raise MeasurementFailed(f"the front must be timed twice within {LIMIT_S:.0f} s, but was not")
        latencies = {key: latency.at(config.percentile) for key, latency in latencies.items()}
        margins.keep_fresh(folder, next(iter(latencies.values())), evaluator.dense_folder())
        points = sorted(
            (p.model_copy(update={"latency": latencies[p.key]}) for p in found.points), key=lambda p: p.latency.ratio
        )
        found = found.model_copy(update={"points": tuple(points)})
        certification.write(folder, found)
        recertify.restate(folder, found)
    return found
