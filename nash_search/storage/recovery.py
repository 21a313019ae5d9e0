"""What a kill leaves behind, put right at the next start.

    row RUNNING, folder whole      told from the folder's record: nothing is run twice
    row RUNNING, folder not whole  told FAIL `interrupted`; the architecture is taken up again first
    folder whole, no row           the database came from a backup: a row is added
    database damaged               refused (exit 5); `rebuild` makes a new one from backup and folders

After each tell the SQLite database is copied by its online backup, the last three kept.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

from optuna.trial import TrialState

from nash_search.config import Architecture
from nash_search.errors import StorageDamaged, message_of, typed_study
from nash_search.files import fsync_file, sqlite_url, take_place
from nash_search.latency_table import LatencyTable
from nash_search.records import TrialRecord
from nash_search.storage import artifacts
from nash_search.storage.database import look_into
from nash_search.storage.space import architecture_of
from nash_search.storage.study import Study, folder_damaged, open_storage, remove_database

DATABASE = "study.db"
BACKUPS = "backups"
KEPT = 3
TUNE = ".tune"
"""In the study's folder: what Ray Tune writes while it runs, nobody's after a kill."""


def check_database(path: Path) -> None:
    """Refuse anything that is not a healthy study database, before Optuna touches it.

    An empty file would silently become a new study; a truncated one would fail in the middle of a run.

    Raises:
        StorageDamaged: with what is wrong and what helps.
    """
    if not path.exists():
        return
    hint = f"run `nash-search recover {typed_study(path.parent)}`"
    if not path.is_file() or path.stat().st_size == 0:
        raise StorageDamaged(f"study database must be an SQLite file, but {path} is empty or no file: {hint}")
    if not os.access(path, os.W_OK):
        raise StorageDamaged(f"study database must be writable, but {path} is not: check its permissions")
    try:
        verdict, tables = look_into(path, "rw")
    except sqlite3.DatabaseError as error:
        raise StorageDamaged(f"study database must be readable, but {path}: {error}: {hint}") from None
    if verdict != "ok":
        raise StorageDamaged(f"study database must be whole, but {path}: {verdict}: {hint}")
    if "studies" not in tables or "trials" not in tables:
        raise StorageDamaged(f"study database must hold an Optuna study, but {path} holds something else: {hint}")
    try:
        open_storage(sqlite_url(path)).engine.dispose()
    except RuntimeError as error:
        line = message_of(error, 160)
        raise StorageDamaged(f"study database must fit the installed Optuna, but {path}: {line}: {hint}") from None


def reconcile(study: Study, table: LatencyTable) -> None:
    """Close every RUNNING row and adopt every whole folder that has no row.

    Raises:
        StorageDamaged: when a COMPLETE row's folder is missing or altered.
    """
    known: dict[str, int] = {}
    shutil.rmtree(study.folder / TUNE, ignore_errors=True)
    for row in study.trials():
        if row.state == TrialState.RUNNING:
            architecture = architecture_of(row.params)
            folder = _folder(study, architecture) if architecture else None
            if folder is not None and artifacts.read(folder, deep=False) is not None:
                record = artifacts.stored_record(folder)
                study.tell(row.number, record, _share(record, table))
            elif "record" in row.user_attrs:  # a failure, killed between its attributes and its tell
                told = TrialRecord.model_validate_json(row.user_attrs["record"])
                study.tell(row.number, told, row.user_attrs.get("share_of_dense"))
            else:
                study.fail(row.number, "interrupted", "the driver ended while this trial ran")
        elif "folder" in row.user_attrs and row.state.is_finished():
            folder = study.folder / row.user_attrs["folder"]
            if artifacts.read(folder, deep=False) is None:
                raise folder_damaged(row.number, folder)
    for row in study.trials():
        if row.state in (TrialState.COMPLETE, TrialState.PRUNED) and "folder" in row.user_attrs:
            known[Path(row.user_attrs["folder"]).name] = row.number
    for folder in whole_folders(study.folder / "trials", study.facts.question_digest):
        if folder.name not in known:
            record = artifacts.stored_record(folder)
            study.add(record, _share(record, table))


def _share(record: TrialRecord, table: LatencyTable) -> float:
    return record.latency.ratio if record.latency else table.share(record.architecture)


def _folder(study: Study, architecture: Architecture) -> Path:
    return study.folder / "trials" / artifacts.folder_key(study.facts.question_digest, architecture)


def whole_folders(folder: Path, question: str) -> list[Path]:
    """Finished trial folders of this question, in the order they were made; litter of kills is removed."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        done = path.with_name(path.name.removeprefix(".work-"))
        if path.name.startswith(".tmp-") or (path.name.startswith(".work-") and done.is_dir()):
            shutil.rmtree(path, ignore_errors=True)
        elif not path.name.startswith("."):
            sealed = artifacts.read(path, deep=False)
            if sealed is not None and sealed.get("question") == question:
                found.append(path)
    return sorted(found, key=lambda p: (artifacts.stored_record(p).created, artifacts.stored_record(p).number))


def back_up(folder: Path) -> None:
    """Copy the database by SQLite's online backup; keep the last three."""
    source, backups = folder / DATABASE, folder / BACKUPS
    if not source.exists():  # another storage: its owner makes the backups
        return
    backups.mkdir(exist_ok=True, mode=0o700)
    numbers = sorted(int(p.stem.rpartition("-")[2]) for p in backups.glob("study-*.db"))
    target = backups / f"study-{(numbers[-1] if numbers else 0) + 1:06d}.db"
    scratch = backups / f".{target.name}.tmp"
    remove_database(scratch)
    origin, copy = sqlite3.connect(source, timeout=60), sqlite3.connect(scratch)
    try:
        copy.execute("PRAGMA synchronous=OFF")  # synced once, below
        origin.backup(copy)
    finally:
        copy.close()
        origin.close()
    fsync_file(scratch)
    take_place(scratch, target, durable=True)
    for number in numbers[: max(0, len(numbers) + 1 - KEPT)]:
        (backups / f"study-{number:06d}.db").unlink(missing_ok=True)


def rebuild(folder: Path, name: str) -> int:
    """Make a healthy database from the latest healthy backup plus what the manifests hold.

    A result whose folder is gone becomes a failure `interrupted`, so its architecture is taken up again first.
    The damaged file is kept beside it as `study.db.damaged`. Returns the number of finished trials.

    Raises:
        StorageDamaged: when no backup can be read.
    """
    backups = sorted((folder / BACKUPS).glob("study-*.db"), reverse=True)
    for backup in backups:
        try:
            check_database(backup)
            old = Study(open_storage(sqlite_url(backup)), name, folder, None)
        except (StorageDamaged, KeyError):
            continue
        break
    else:
        raise StorageDamaged(f"recovery must have a readable backup, but {folder / BACKUPS} holds none")
    fresh = folder / f".{DATABASE}.new"
    remove_database(fresh)
    whole = {p.name for p in whole_folders(folder / "trials", old.facts.question_digest)}
    told = [row for row in old.trials() if row.state.is_finished() and "folder" in row.user_attrs]
    lost = [row._trial_id for row in told if Path(row.user_attrs["folder"]).name not in whole]
    old.close()
    shutil.copyfile(backup, fresh)
    _take_back(fresh, lost)
    new = Study(open_storage(sqlite_url(fresh)), name, folder, None)
    table = LatencyTable.model_validate_json((folder / "probe.json").read_bytes())
    reconcile(new, table)
    finished = sum(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in new.trials())
    new.close()
    for suffix in ("", "-wal", "-shm"):
        if (folder / f"{DATABASE}{suffix}").exists():
            damaged = folder / f"{DATABASE}.damaged{suffix}"
            take_place(folder / f"{DATABASE}{suffix}", damaged, durable=False)
    take_place(fresh, folder / DATABASE, durable=True)
    return finished


def _take_back(path: Path, trials: list[int]) -> None:
    """Turn finished rows into failed ones, which Optuna allows nobody (adding all others anew takes 10 ms each)."""
    database = sqlite3.connect(path)
    try:
        with database:
            for trial_id in trials:
                database.execute("DELETE FROM trial_values WHERE trial_id = ?", (trial_id,))
                database.execute("DELETE FROM trial_user_attributes WHERE trial_id = ?", (trial_id,))
                database.execute("UPDATE trials SET state = 'FAIL' WHERE trial_id = ?", (trial_id,))
                failure = ("failure", trial_id, '"interrupted"')
                database.execute(
                    "INSERT INTO trial_user_attributes (key, trial_id, value_json) VALUES (?, ?, ?)", failure
                )
    finally:
        database.close()
