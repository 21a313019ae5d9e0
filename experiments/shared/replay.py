"""Strategies compared without training: an exhaustive grid, trained once, is replayed.

    table    every architecture of the grid: share, quality, learning curve, training seconds
    replay   the real `Scheduler` proposes, the table answers
    result   hypervolume after each trial against the training seconds spent so far

As NAS benchmarks do. The scheduler, the sampler and the anchors are those of a search, only the trial is
looked up. What changes how a trial trains (shared training) cannot be replayed.
This module refuses to know how the table came about.
"""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna

from nash_search import pareto
from nash_search.config import Architecture, Frozen, SearchConfig, SearchSpace
from nash_search.files import sqlite_url
from nash_search.latency_record import Latency, Round
from nash_search.latency_table import LatencyTable, ProbeEntry
from nash_search.records import CurvePoint, Quality, TrialRecord
from nash_search.search.scheduler import Scheduler
from nash_search.storage.study import Study, StudyFacts, open_storage
from nash_search.trial.job import Job, Nothing


class Entry(Frozen):
    """One trained architecture of the grid."""

    architecture: Architecture
    share: float
    """Latency as a fraction of the dense model's."""
    quality: Quality
    curve: tuple[CurvePoint, ...]
    train_s: float


class GridTable(Frozen):
    """The grid, trained once."""

    entries: tuple[Entry, ...]
    probe: LatencyTable
    """What a search knows before it trains."""
    facts: StudyFacts
    rung_error: float
    """Standard error of a rung's quality."""

    def hypervolume(self, entries: Sequence[Entry]) -> float:
        """Of these entries, between the study's fixed reference point."""
        sign = 1.0 if self.facts.direction == "minimize" else -1.0
        points = pareto.losses([e.share for e in entries], [e.quality.value for e in entries], self.facts.direction)
        return pareto.hypervolume(points, (self.facts.reference_share, sign * self.facts.reference_quality))

    def within(self, share: float) -> tuple[Entry, ...]:
        """Entries under a budget."""
        return tuple(e for e in self.entries if e.share <= share)


class Progress(Frozen):
    """A strategy's state after one more trial."""

    train_s: float
    hypervolume: float


def table_of(records: Sequence[TrialRecord], probe: LatencyTable, facts: StudyFacts, rung_examples: int) -> GridTable:
    """The table of a finished grid study (`--sampler grid`)."""
    entries = tuple(
        Entry(
            architecture=r.architecture,
            share=r.latency.ratio,
            quality=r.quality,
            curve=r.curve,
            train_s=r.train_s,
        )
        for r in records
        if r.latency is not None and r.quality is not None and r.curve
    )
    errors = [e.quality.standard_error * (e.quality.n / min(rung_examples, e.quality.n)) ** 0.5 for e in entries]
    return GridTable(entries=entries, probe=lean(probe), facts=facts, rung_error=float(np.median(errors)))


def lean(probe: LatencyTable) -> LatencyTable:
    """The table without what a replay never reads: one pair per shape that has its ratio."""

    def one(latency: Latency) -> Latency:
        dense = probe.dense_ms
        return Latency(
            rounds=(Round(runs_ms=(latency.ratio * dense,) * 2, dense_runs_ms=(dense,) * 2),), workload=latency.workload
        )

    return LatencyTable(
        entries=tuple(ProbeEntry(architecture=e.architecture, latency=one(e.latency)) for e in probe.entries)
    )


def write(table: GridTable, path: Path) -> None:
    """As gzipped JSON."""
    path.write_bytes(gzip.compress(table.model_dump_json().encode(), mtime=0))


def read(path: Path) -> GridTable:
    """What `write` wrote."""
    return GridTable.model_validate_json(gzip.decompress(path.read_bytes()))


def at_random(table: GridTable, share: float, seed: int) -> list[Progress]:
    """Random search without a probe: any architecture of the grid, each trained to its end."""
    return _spending(
        table, share, [table.entries[i] for i in np.random.default_rng(seed).permutation(len(table.entries))]
    )


def in_order(table: GridTable, share: float) -> list[Progress]:
    """The grid from one corner to the other."""
    return _spending(table, share, table.entries)


def stock(table: GridTable, share: float, seed: int) -> list[Progress]:
    """Optuna's own TPE on both objectives, told nothing of budgets; what it proposes again, it trains again."""
    by_architecture = {e.architecture: e for e in table.entries}
    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(directions=["minimize", table.facts.direction], sampler=sampler)
    selections = table.facts.space.decoder_selection
    trained: list[Entry] = []
    while len(trained) < 2 * len(table.entries):
        trial = study.ask()
        asked = {
            "encoder_sparsity_pct": trial.suggest_categorical(
                "encoder_sparsity_pct", sorted({a.encoder_sparsity_pct for a in by_architecture})
            ),
            "decoder_layers": trial.suggest_categorical(
                "decoder_layers", sorted({a.decoder_layers for a in by_architecture})
            ),
            "decoder_selection": trial.suggest_categorical("decoder_selection", selections),
        }
        entry = by_architecture.get(Architecture.model_validate(asked))
        if entry is None:  # a hole in the grid: it would have been refused untrained
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        trained.append(entry)
        study.tell(trial, [entry.share, entry.quality.value])
    return _spending(table, share, trained)


def _spending(table: GridTable, share: float, trained: Sequence[Entry]) -> list[Progress]:
    spent, seen, found = 0.0, list[Entry](), list[Progress]()
    for entry in trained:
        spent += entry.train_s
        seen += [entry] if entry.share <= share else []
        found.append(Progress(train_s=spent, hypervolume=table.hypervolume(seen)))
    return found


def replay(table: GridTable, config: SearchConfig, seed: int) -> list[Progress]:
    """One search on the table: `config` says budgets, trials and sampler.

    Architectures that the scheduler proposes between the grid's points do not occur: the space is the grid.
    """
    by_architecture = {e.architecture: e for e in table.entries}
    loosest = max(b.share_of(table.facts.dense_ms) for b in config.budgets)
    facts = table.facts.model_copy(update={"loosest_share": loosest, "question_digest": f"replay-{seed}"})
    config = config.model_copy(update={"seed": seed, "search_space": facts.space, "keep_all": True})
    spent, seen, found = 0.0, list[Entry](), list[Progress]()
    with tempfile.TemporaryDirectory(prefix="nash-search-replay-") as name:
        folder = Path(name)
        (folder / "trials").mkdir()
        study = Study(open_storage(sqlite_url(folder / "replay.db")), "replay", folder, facts)
        scheduler = Scheduler(study, table.probe, config, table.probe.workload)
        scheduler.feasible = [a for a in scheduler.feasible if a in by_architecture]
        scheduler.anchors = [a for a in scheduler.anchors if a in by_architecture]
        while not isinstance(job := scheduler.ask(), Nothing):
            entry = by_architecture[job.architecture]
            spent += entry.train_s
            scheduler.tell(job, _answer(table, entry, job))
            if entry.share <= loosest:
                seen.append(entry)
            found.append(Progress(train_s=spent, hypervolume=table.hypervolume(seen)))
        study.close()
    return found


def _answer(table: GridTable, entry: Entry, job: Job) -> TrialRecord:
    """What the trial would have come to."""
    job.final.mkdir()
    dense_ms = table.facts.dense_ms
    rounds = (Round(runs_ms=(entry.share * dense_ms,) * 2, dense_runs_ms=(dense_ms,) * 2),)
    record = TrialRecord(
        number=job.number,
        architecture=entry.architecture,
        seed=job.seed,
        latency=Latency(rounds=rounds, workload=table.probe.workload),
        quality=entry.quality,
        curve=entry.curve,
    )
    (job.final / "record.json").write_text(record.model_dump_json(), "utf-8")
    return record


def seconds_to(progress: Sequence[Progress], hypervolume: float) -> float | None:
    """Training seconds until this hypervolume was reached (None: never)."""
    return next((p.train_s for p in progress if p.hypervolume >= hypervolume), None)


def ratio_bounds(ours: Sequence[float], theirs: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Median of theirs over median of ours, with a bootstrap 95 % interval over seeds."""
    random = np.random.default_rng(seed)
    a, b = np.asarray(ours), np.asarray(theirs)
    drawn = [
        np.median(b[random.integers(0, len(b), len(b))]) / np.median(a[random.integers(0, len(a), len(a))])
        for _ in range(2000)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.median(b) / np.median(a)), float(low), float(high)


def grid_space(config: SearchConfig, step_pct: int) -> SearchSpace:
    """The grid: every depth, sparsities this many percent apart."""
    low, high, _ = config.search_space.encoder_sparsity_pct
    return config.search_space.model_copy(update={"encoder_sparsity_pct": (low, high, step_pct), "decoder_layers": ()})
