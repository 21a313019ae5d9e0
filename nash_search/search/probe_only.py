"""What the shapes cost, without training: the answer of `nash-search probe`.

    dense x every (decoder depth, encoder width) shape -> table -> floor, what each budget admits

`report.probe` shows it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nash_search.config import SearchConfig
from nash_search.latency_record import REMEMBERED
from nash_search.latency_table import LatencyTable, ProbeEntry
from nash_search.plain_json import finite
from nash_search.results import Terms
from nash_search.search import feasibility, margins, probe
from nash_search.search.margins import LATENCIES
from nash_search.search.plan import of_requests, timed_table, yardsticks
from nash_search.search.question import check_requests
from nash_search.summary_rows import DenseRow
from nash_search.survey import ProbedBudget, ProbedShape, Survey
from nash_search.trial import dense_engines
from nash_search.trial.engines import Engines
from nash_search.trial.evaluator import open_evaluator
from nash_search.trial.job import Say


def survey(config: SearchConfig, results: Path, say: Say = lambda stage, detail: None) -> Survey:
    """Time every shape of the configuration's space, and say what its budgets admit.

    Args:
        config: the space and the workload.
        results: folder of studies; what is timed is kept beside them, for the next probe or search.
        say: told before the dense model is tried on other engines.
    """
    evaluator = open_evaluator(config)
    check_requests(config, evaluator)
    filled = config.search_space.filled(evaluator.decoder_layers())
    shapes = probe.shapes_to_probe(filled)
    timings: list[int] = []

    def timed(stage: str, detail: dict[str, Any]) -> None:
        timings.append(detail["shapes"])

    table = timed_table(evaluator, shapes, results / LATENCIES, timed, config.percentile)
    entries = table.entries
    tried = evaluator.dense_on_engines(table.call_ms, results / LATENCIES, say) if config.engines else Engines()
    own = None if config.trim_vocab else evaluator.dense_folder()  # a probe keeps no trimmed model
    architectures = filled.architectures()
    fastest, floor_share = probe.floor(table, architectures)
    effect = margins.learnt(results / config.study_name, evaluator.fingerprint())
    certifies = margins.planned(config, table, effect)
    lower_ms, upper_ms = table.dense_bounds_ms(effect)
    others = yardsticks(config.budgets, table, filled)
    terms = Terms(
        budgets=config.budgets, limits=config.limits, dense_ms=table.dense_ms, floor_share=floor_share, others=others
    )
    dense_at = {percentile: known.dense_ms for percentile, known in others.items()}
    return Survey(
        task=config.task.name,
        model=config.model,
        device=table.workload.device,
        decoder_layers=evaluator.decoder_layers(),
        workload=table.workload,
        fingerprint=table.fingerprint,
        dense=DenseRow(latency_ms=table.dense_ms, lower_ms=finite(lower_ms), upper_ms=finite(upper_ms)),
        ms_per_decoder_block=ms_per_decoder_block(table),
        engines=dense_engines.document(tried.at(config.percentile), config, table.dense_ms, own, certifies, dense_at),
        floor_ms=floor_share * table.dense_ms,
        floor_share=floor_share,
        fastest=fastest.slug,
        shapes=tuple(_row(entry, table.dense_ms) for entry in entries),
        timed_again=sum(timings[1:]),
        remembered=sum(bool(entry.latency.details.get(REMEMBERED)) for entry in entries),
        budgets=tuple(
            ProbedBudget(
                asked=budget.asked,
                budget_ms=budget.ms_at(known.dense_ms),
                dense_ms=known.dense_ms,
                feasible=(feasible := known.floor_share <= budget.share_of(known.dense_ms)),
                verdict="" if feasible else "infeasible",
                floor_ms=known.floor_share * known.dense_ms,
                **feasibility.fitting_sparsities(filled, table, budget),
                nearest_feasible=probe.nearest_feasible(table, architectures, budget, certifies.ms_margin).asked,
            )
            for budget in config.budgets
            for known in [terms.yardstick(budget)]
        ),
        certifies=certifies,
        **of_requests(config),
    )


def ms_per_decoder_block(table: LatencyTable) -> float | None:
    """Slope of latency over decoder depth with the encoder whole, least squares, milliseconds."""
    whole = [e for e in table.entries if e.architecture.encoder_sparsity_pct == 0]
    if len({e.architecture.decoder_layers for e in whole}) < 2:
        return None
    depths = [e.architecture.decoder_layers for e in whole]
    return float(np.polyfit(depths, [e.latency.ratio * table.dense_ms for e in whole], 1)[0])


def _row(entry: ProbeEntry, dense_ms: float) -> ProbedShape:
    low, high = entry.latency.ratio_bounds
    return ProbedShape(
        architecture=entry.architecture,
        latency_ms=entry.latency.ratio * dense_ms,
        share=entry.latency.ratio,
        share_lower=finite(low),
        share_upper=finite(high),
        status=entry.latency.status,
    )
