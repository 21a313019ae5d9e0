"""Trials and finalists, timed alone in fresh processes before an export has a name.

    records -> folders beside the exports, weights linked -> fresh processes -> latency by folder name

What was found here before is not asked again, unless a budget is still open: then its rounds are pooled with the new.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from nash_search.config import LatencyBudget, SearchConfig
from nash_search.files import ask_free
from nash_search.latency.fresh_process import MeasurementFailed
from nash_search.latency_record import Latency
from nash_search.records import TrialRecord
from nash_search.search import margins
from nash_search.search.candidates import near
from nash_search.storage import artifacts
from nash_search.storage.artifacts import WEIGHTS
from nash_search.trial.cost import certified_pairs
from nash_search.trial.evaluator import Evaluator
from nash_search.trial.job import Say

CHECKPOINTS = "checkpoints"
LIMIT_S = 1800.0
"""Longest time for all fresh rounds together, seconds."""


def latencies(
    folder: Path,
    records: Sequence[TrialRecord],
    scratch: Mapping[str, Path],
    evaluator: Evaluator,
    config: SearchConfig,
    say: Say,
    looked: Mapping[str, Latency],
) -> dict[str, Latency]:
    """By trial folder, what fresh processes find; what was found here before is not asked again unless it is open."""
    device, found = evaluator.fingerprint().get("hash"), {}
    for record in records:
        known = looked.get(key_of(record))
        if known is not None and known.runs_ms and known.fingerprint.get("hash") == device:
            if all(known.certificate(b) != "ambiguous" for b in config.budgets):
                found[key_of(record)] = known
    asked = [r for r in records if key_of(r) not in found]
    if not asked:
        return found
    call = evaluator.workload()
    settings = {"rounds": config.certify_rounds, "pairs": certified_pairs(config, call.longer)}
    looks = 1 + max((looked[key].looks for key in map(key_of, asked) if key in looked), default=0)
    say("certify", {"points": len(asked), **settings, "looks": looks, "units": call.units})
    timed = evaluator.time_fresh(
        {key_of(r): scratch[key_of(r)] for r in asked},
        open_questions(asked, config.budgets),
        **settings,
        limit_s=LIMIT_S,
        effect=margins.learnt(folder, evaluator.fingerprint()),
        before=looked,
    )
    found |= {key: latency.at(config.percentile) for key, latency in timed.items()}
    if not all(latency.rounds for latency in found.values()):
        what = f"the front must be timed within {LIMIT_S:.0f} s, but others kept the device all the while"
        raise MeasurementFailed(what)
    margins.keep_fresh(folder, found[key_of(asked[0])], evaluator.dense_folder())
    return found


def open_questions(records: Sequence[TrialRecord], budgets: Sequence[LatencyBudget]) -> dict[str, list[LatencyBudget]]:
    """By trial folder, the budgets near its latency; one that stays ambiguous asks for more rounds."""
    return {key_of(record): [b for b in budgets if near(record, b)] for record in records}


def unannounced(folder: Path, candidates: Sequence[TrialRecord]) -> dict[str, Path]:
    """Copy (hard-link) the candidates' weights to temporary folders beside the exports; these, by trial folder.

    Raises:
        OSError: ENOSPC, when the disk has no room for them and for the winners' in `best/`.
    """
    exports = folder / CHECKPOINTS
    exports.mkdir(exist_ok=True)
    for litter in exports.glob(".tmp-*"):
        shutil.rmtree(litter)
    weights = {key_of(record): home_of(folder, record) / WEIGHTS for record in candidates}
    ask_free(exports, 2 * artifacts.second_bytes(list(weights.values()), exports), "certification")
    scratch = {key: scratch_of(exports, key) for key in weights}
    for key, path in weights.items():
        artifacts.second(path, scratch[key])
    return scratch


def scratch_of(exports: Path, key: str) -> Path:
    return exports / f".tmp-{key}"


def home_of(folder: Path, record: TrialRecord) -> Path:
    """The folder that a trial or finalist left behind."""
    assert record.checkpoint is not None
    return (folder / record.checkpoint).parent


def key_of(record: TrialRecord) -> str:
    assert record.checkpoint is not None
    return Path(record.checkpoint).parent.name
