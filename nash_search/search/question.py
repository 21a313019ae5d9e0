"""What a study is about, in full and by digest: the question it was begun with stays its question.

    question   config + model, data, workload, device and protocol versions

A study that exists must have been asked the same question; a difference is named field by field.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nash_search import errors
from nash_search.config import SearchConfig, digest
from nash_search.latency_table import LatencyTable
from nash_search.percentiles import check_enough
from nash_search.search import probe
from nash_search.storage.study import StudyFacts
from nash_search.tasks.preflight import check_traffic
from nash_search.trial.cost import certified_pairs
from nash_search.trial.evaluator import Evaluator

ADDED = ("model_files",)
"""Parts of a question that studies of before do not have, and are not asked for."""
PROBE = "probe.json"
"""The study's latency table, in its folder."""


def resolved_question(config: SearchConfig, evaluator: Evaluator) -> dict[str, Any]:
    """The question with everything filled in: what a study is about, to the byte."""
    filled = config.search_space.filled(evaluator.decoder_layers())
    call = evaluator.workload().model_dump(mode="json")
    if config.of_requests:  # a thousand requests are told by their digest
        call["traffic"] |= {"requests": digest(call["traffic"]["requests"])[:16]}
        call["percentile"] = config.percentile
    return {
        **config.question(),
        "search_space": filled.model_dump(mode="json"),
        "workload": call,
        "device": str(evaluator.fingerprint()["hash"]),
        **evaluator.facts(),
    }


def check_requests(config: SearchConfig, evaluator: Evaluator) -> None:
    """Refuse, before anything is spent, a percentile that the certificate's requests would say nothing of.

    Raises:
        InvalidInput: with the number that is needed.
    """
    check_traffic(config)
    call = evaluator.workload()
    if call.traffic is not None:
        timing = {"rounds": config.certify_rounds, "pairs": certified_pairs(config, call.longer)}
        check_enough(config.highest, call.traffic, flag="--certify-", units=call.units, **timing)


def differences(before: dict[str, Any], now: dict[str, Any], path: str = "") -> list[str]:
    """What changed between two questions, one line each."""
    found = []
    for key in sorted({*before, *now}):
        a, b, name = before.get(key), now.get(key), f"{path}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{name}.")
        elif a != b:
            found.append(f"{name}: {json.dumps(a)} -> {json.dumps(b)}")
    return found


def same_question(
    facts: StudyFacts, question: dict[str, Any], config: SearchConfig, evaluator: Evaluator, folder: Path
) -> None:
    """Refuse to go on with a study under another question, and name what changed.

    Raises:
        InvalidInput: one line.
    """
    before, now = dict(facts.question), dict(question)
    now = {name: value for name, value in now.items() if name not in ADDED or name in before}
    if digest(now) == facts.question_digest:
        return
    if before["device"] != now["device"]:  # hashes: said by what they are hashes of
        table = LatencyTable.model_validate_json((folder / PROBE).read_bytes())
        before["device"], now["device"] = (f | {"hash": ""} for f in (table.fingerprint, evaluator.fingerprint()))
    changed = "; ".join(differences(before, now))[:400]
    raise errors.InvalidInput(
        f"a study must keep its question, but got {changed}",
        where=config.study_name,
        fix="use --fork or another --study",
    )


def check_loosest(facts: StudyFacts, config: SearchConfig, table: LatencyTable) -> None:
    """The constraint is told once per trial, so it cannot be loosened afterwards.

    Raises:
        InvalidInput: when a budget is looser than the study's loosest.
    """
    for percentile, loosest in probe.limits(config.budgets, table).items():
        limit = facts.limits.get(percentile, facts.loosest_share)
        if loosest > limit * (1 + 1e-9):
            of = f"p{percentile:g}" if facts.limits else "latency"
            raise errors.InvalidInput(
                f"the loosest budget must stay within the study's {limit:.1%} of the dense {of}, but got {loosest:.1%}",
                where=config.study_name,
                fix="use --fork or another --study",
            )
