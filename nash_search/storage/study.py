"""The Optuna study: the only source of truth about what ran.

One row per trial. A row says state, the two objectives, the constraint and a summary; the record with every
raw sample lies in the trial's folder, whose name the row holds. Order of a commit:

    artefacts -> manifest -> rename (run_trial)  ->  attributes -> tell -> backup (here)

so a COMPLETE row always has a whole folder behind it. Objectives are `latency_ms` (the paired ratio x the dense
median of the study's first probe, so that a machine's drift cancels) and the quality. The constraint
latency/loosest budget - 1 is written as the legacy system attribute `constraints`, the only form that
optuna-dashboard 0.21 reads, and never in the new form beside it.
"""

from __future__ import annotations

import sqlite3
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from nash_search.config import Architecture, Frozen
from nash_search.errors import StorageDamaged, typed_study
from nash_search.records import TrialRecord
from nash_search.storage import artifacts
from nash_search.storage.facts import StudyFacts as StudyFacts
from nash_search.storage.space import architecture_of, distributions, params_of

ATTRIBUTE = "nash_search"
"""Study attribute that holds `StudyFacts`."""


def folder_damaged(number: int, folder: Path) -> StorageDamaged:
    """What to say of a told trial whose folder is not what was sealed."""
    hint = f"run `nash-search recover {typed_study(folder.parent.parent)}`"
    return StorageDamaged(f"trial {number}'s folder must be whole, but {folder} is missing or altered: {hint}")


class Row(Frozen):
    """A row of the study without its record: number, architecture, Optuna's state, reason of a failure."""

    number: int
    architecture: Architecture | None
    state: str
    failure: str | None = None


class _Connection(sqlite3.Connection):
    """Write-ahead log, synced at checkpoints only: a commit costs microseconds instead of an fsync.

    A power cut may take the last commits with it but never the file's consistency, and what a lost row said
    lies, synced, in its trial's folder: `recovery.reconcile` tells it again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA journal_mode=WAL").close()
        self.execute("PRAGMA synchronous=NORMAL").close()


def remove_database(path: Path) -> None:
    """Delete a database file with its log: a stale log would be replayed into the next file of that name."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def open_storage(url: str) -> RDBStorage:
    """The storage behind a URL; waits for SQLite locks that a reading dashboard holds."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url.startswith("sqlite"):
        return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60, "factory": _Connection}})
    return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})


class Study:
    """Rows in, records out."""

    def __init__(self, storage: RDBStorage, name: str, folder: Path, facts: StudyFacts | None) -> None:
        """Open the study of this name (`facts` None), or begin it."""
        self.folder = folder
        self.storage = storage
        self._records: dict[int, TrialRecord] = {}
        self._in_order: list[TrialRecord] = []
        self._rows: dict[int, Row] = {}
        self._trials: list[FrozenTrial] | None = None
        self._briefly: list[Row] | None = None
        if facts is not None:
            self.optuna = optuna.create_study(
                storage=storage, study_name=name, directions=["minimize", facts.direction], load_if_exists=True
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self.optuna.set_metric_names(["latency_ms", facts.quality_metric])
            self.optuna.set_user_attr(ATTRIBUTE, facts.model_dump(mode="json"))  # last: now it exists
            self.facts = facts
        else:
            self.optuna = optuna.load_study(storage=storage, study_name=name)
            self.facts = StudyFacts.model_validate(self.optuna.user_attrs[ATTRIBUTE])
        self.distributions = distributions(self.facts.space)

    @staticmethod
    def exists(storage: RDBStorage, name: str) -> bool:
        """Was the study begun, to the end of its beginning?

        Raises:
            StorageDamaged: when the name belongs to a study that somebody else made.
        """
        for summary in optuna.get_all_study_summaries(storage, include_best_trial=False):
            if summary.study_name == name:
                if ATTRIBUTE in summary.user_attrs:
                    return True
                if summary.n_trials:
                    raise StorageDamaged(
                        f"study {name} must have been made by nash-search, but was not", fix="choose another --study"
                    )
        return False

    def close(self) -> None:
        """Let go of the database file."""
        self.storage.remove_session()
        self.storage.engine.dispose()

    # -- reading ---------------------------------------------------------------------------------

    def trials(self) -> list[FrozenTrial]:
        """All rows, as they were at the last write or `refresh` (one driver writes, so nobody else does)."""
        if self._trials is None:
            self._trials = self.optuna.get_trials(deepcopy=False)
        return self._trials

    def refresh(self) -> None:
        """Read the rows anew."""
        self._trials = self._briefly = None

    def rows(self) -> list[Row]:
        """All rows, briefly."""
        if self._briefly is not None:
            return self._briefly
        found = []
        for t in self.trials():
            row = self._rows.get(t.number)
            if row is None:
                failure = t.user_attrs.get("failure")
                architecture = architecture_of(t.params)
                row = Row(number=t.number, architecture=architecture, state=t.state.name, failure=failure)
                if t.state.is_finished():
                    self._rows[t.number] = row
            found.append(row)
        self._briefly = found
        return found

    def records(self) -> list[TrialRecord]:
        """One record per decided or failed row that has one, in order."""
        before = len(self._records)
        for row in self.trials():
            if row.number not in self._records and row.state.is_finished():
                found = self._read(row)
                if found is not None:
                    self._records[row.number] = found
        if len(self._records) > before:
            self._in_order = [self._records[n] for n in sorted(self._records)]
        return self._in_order

    def _read(self, row: FrozenTrial) -> TrialRecord | None:
        attributes = row.user_attrs
        if "folder" in attributes:
            folder = self.folder / attributes["folder"]
            try:
                found = artifacts.stored_record(folder)
            except (OSError, ValueError):
                raise folder_damaged(row.number, folder) from None
            changes: dict[str, Any] = {"number": row.number, "infeasible": attributes.get("infeasible")}
            if found.checkpoint is not None:
                changes["checkpoint"] = f"{attributes['folder']}/{found.checkpoint}"
            return found.model_copy(update=changes)
        if "record" in attributes:
            return TrialRecord.model_validate_json(attributes["record"])
        return None

    # -- writing ---------------------------------------------------------------------------------

    def ask(self, sampler: BaseSampler) -> tuple[int, Architecture]:
        """A new row with its architecture."""
        self.optuna.sampler = sampler
        asked = self.optuna.ask(fixed_distributions=self.distributions)
        self.refresh()
        found = architecture_of(asked.params)
        assert found is not None
        return asked.number, found

    def tell(self, number: int, record: TrialRecord, share: float | None) -> None:
        """Close a row with its record: attributes first, then the state.

        Args:
            number: the row.
            record: what came out.
            share: latency as a fraction of the dense model's, measured or probed (None: unknown).
        """
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(self.optuna._study_id, number)
        for name, value in self.summary(record, share).items():
            self.storage.set_trial_user_attr(trial_id, name, value)
        if share is not None:
            self.storage.set_trial_system_attr(trial_id, "constraints", [self._part(record, share) - 1])
        state, values = self._verdict(record)
        self.optuna.tell(number, values, state=state)
        self.refresh()

    def add(self, record: TrialRecord, share: float) -> None:
        """A row for a finished folder that the database does not know (it was restored from a backup)."""
        state, values = self._verdict(record)
        self.refresh()
        self.optuna.add_trial(
            create_trial(
                state=state,
                values=values,
                params=params_of(record.architecture),
                distributions=self.distributions,
                user_attrs=self.summary(record, share),
                system_attrs={"constraints": [self._part(record, share) - 1]},
            )
        )

    def fail(self, number: int, reason: str, message: str) -> None:
        """Close a row that has no record."""
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(self.optuna._study_id, number)
        self.storage.set_trial_user_attr(trial_id, "failure", reason)
        self.storage.set_trial_user_attr(trial_id, "message", message)
        self.storage.set_trial_system_attr(trial_id, "fail_reason", message)
        self.optuna.tell(number, state=TrialState.FAIL)
        self.refresh()

    def _part(self, record: TrialRecord, share: float) -> float:
        """Latency as a fraction of the loosest budget, from the record's timing, else from the given (probed) share."""
        latency = record.latency
        if latency is None or not self.facts.limits:
            return share / self.facts.loosest_share
        return self.facts.part(lambda percentile: latency.at(percentile).ratio)

    def _verdict(self, record: TrialRecord) -> tuple[TrialState, list[float] | None]:
        if record.failure is not None:
            return TrialState.FAIL, None
        if record.latency is not None and record.quality is not None:
            return TrialState.COMPLETE, [record.latency.ratio * self.facts.dense_ms, record.quality.value]
        return TrialState.PRUNED, None  # Optuna's word for "ended without a result"

    def summary(self, record: TrialRecord, share: float | None) -> dict[str, Any]:
        """The attributes of a row, readable in the dashboard; few, for each is a transaction."""
        infeasible = record.infeasible
        if record.architecture == self.facts.baseline and share is not None and share > self.facts.loosest_share:
            loosest = self.facts.loosest_share
            infeasible = f"the dense model: {share:.0%} of its latency, the loosest budget is {loosest:.0%}"
        status = "infeasible" if infeasible else record.status
        found: dict[str, Any] = {"status": f"{status} {record.architecture.slug}"}
        folder = f"trials/{artifacts.folder_key(self.facts.question_digest, record.architecture)}"
        if record.latency is not None or record.stopped is not None:
            found["folder"] = folder
        else:
            found["record"] = record.model_dump_json()
        if share is not None:
            found["share_of_dense"] = share
        details = {
            "measured_ms": record.latency.median_ms if record.latency is not None else None,
            "quality_se": record.quality.standard_error if record.quality is not None else None,
            "shapes": record.shapes.model_dump(mode="json") if record.shapes is not None else None,
            "parameters": record.parameters,
            "train_s": record.train_s or None,
        }
        optional = {
            "details": {name: value for name, value in details.items() if value is not None} or None,
            "failure": record.failure,
            "message": record.message or None,
            "stopped": record.stopped,
            "infeasible": infeasible,
        }
        return {**found, **{name: value for name, value in optional.items() if value is not None}}
