"""A finished folder either exists whole or not at all.

    work in .tmp-<key>/ -> fsync every file -> manifest.json (sha256 of each) last -> rename to <key>/ -> fsync parent

A folder under its final name therefore carries a manifest that names every byte it needs; `read` believes
nothing else. Weights that nobody needs any more are dropped by writing a smaller manifest first and
deleting afterwards: a kill between the two leaves files too many, never too few.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nash_search.config import Architecture, digest
from nash_search.files import fsync_file, fsync_folder, take_place, write_atomic
from nash_search.records import TrialRecord

NAME = "manifest.json"
RECORD = "record.json"
WEIGHTS = "weights"
FINALISTS = "finalists"
"""In the study's folder: winners trained again, at length or with other seeds."""
CALIBRATION = "calibration"
"""In the study's folder: short trainings that found the recipe."""
SMALL_BYTES = 4 * 2**20


def second(folder: Path, target: Path) -> None:
    """Copy a folder; its large files become hard links where the file system has them, and cost no room.

    Large files are one file under two names: deleting either name leaves the other whole. They become read-only, so
    that nothing can be written into both at once; whoever replaces one (as `save_pretrained` does) gets a file of his
    own. Small files are copied: they may be rewritten where they lie.
    """
    shutil.copytree(folder, target, copy_function=_linked)


def _linked(source: str, target: str) -> None:
    if os.path.getsize(source) < SMALL_BYTES or not _link(Path(source), Path(target)):
        shutil.copy2(source, target)


def _link(source: Path, target: Path) -> bool:
    """Give a file a second name; False where that cannot be (another device, no hard links, too many names)."""
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError):
        return False
    if not source.is_symlink():
        source.chmod(source.stat().st_mode & ~0o222)
    return True


def second_bytes(folders: Sequence[Path], parent: Path) -> int:
    """Bytes that a `second` of each folder takes in `parent`; 0 where a hard link can be made there."""
    large = [p for folder in folders for p in _files(folder) if p.stat().st_size >= SMALL_BYTES]
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=parent) as scratch:
        if large and _link(large[0], Path(scratch, "probe")):
            return 0
    return sum(p.stat().st_size for p in large)


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.relative_to(folder).as_posix() != NAME)


def commit(scratch: Path, final: Path, facts: dict[str, Any]) -> None:
    """Turn a scratch folder into a finished one: fsync, manifest last, rename, fsync the parent.

    A valid folder that is already there wins (its work was finished first); an invalid one is replaced.
    """
    if read(final) is not None:
        shutil.rmtree(scratch)
        return
    entries = {}
    for path in _files(scratch):
        fsync_file(path)
        entries[path.relative_to(scratch).as_posix()] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    for folder in [p for p in scratch.rglob("*") if p.is_dir()]:
        fsync_folder(folder)
    write_atomic(scratch / NAME, json.dumps({**facts, "files": entries}, indent=1, sort_keys=True))
    take_place(scratch, final, durable=True)


def read(folder: Path, *, deep: bool = True) -> dict[str, Any] | None:
    """The manifest of a finished folder, or None when a file is missing, altered or was never sealed.

    Args:
        folder: the finished folder.
        deep: recompute every sha256; otherwise only those of small files (a start must not read all weights).
    """
    try:
        found: dict[str, Any] = json.loads((folder / NAME).read_bytes())
        for name, entry in found["files"].items():
            path = folder / name
            if path.stat().st_size != entry["bytes"]:
                return None
            if (deep or entry["bytes"] < SMALL_BYTES) and sha256(path) != entry["sha256"]:
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return found


def drop(folder: Path, prefix: str) -> None:
    """Forget and delete the files under `prefix` of a finished folder (dominated weights); nothing is hashed."""
    try:
        found = json.loads((folder / NAME).read_bytes())
        names = [name for name in found["files"] if name.startswith(prefix)]
    except (OSError, ValueError, KeyError, TypeError):  # not a finished folder: left to whoever makes it again
        return
    if not names:
        return
    found["files"] = {name: entry for name, entry in found["files"].items() if not name.startswith(prefix)}
    found["dropped"] = sorted({*found.get("dropped", []), prefix})
    write_atomic(folder / NAME, json.dumps(found, indent=1, sort_keys=True))
    shutil.rmtree(folder / prefix, ignore_errors=True)


def folder_key(question: str, architecture: Architecture) -> str:
    """Hash of (question, parameters): the same question about the same point is the same folder."""
    return digest({"question": question, "params": architecture.model_dump(mode="json")})[:16]


def stored_record(folder: Path) -> TrialRecord:
    """The record in a finished folder."""
    return TrialRecord.model_validate_json((folder / RECORD).read_bytes())
