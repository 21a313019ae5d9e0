"""What a folder of data may look like, and which table each split is.

    train.jsonl  validation.csv.gz  …        one file a split, or shards of one format (train-00000-of-00002.parquet)
    train.en  train.de, train.src  train.tgt parallel text, line by line
    train/  validation/  test/               a folder a split, with any of these in it
    dataset_dict.json, state.json            what `datasets.save_to_disk` writes
    data/                                    any of these one folder down, as hub repositories have it
    rows.jsonl                               one file: the other splits are carved from it

What else lies there is left alone, never read and never run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nash_search.config import DATA_FORMATS
from nash_search.errors import InvalidInput, either, shown, shown_path
from nash_search.tasks.tables import Table
from nash_search.tasks.text_tables import Delimited, JsonLines, Parallel, json_table
from nash_search.tasks.typed_tables import parquet, saved

FORMATS: dict[str, Callable[[Path], Table]] = {
    ".jsonl": JsonLines,
    ".json": json_table,
    ".csv": lambda file: Delimited(file, ","),
    ".tsv": lambda file: Delimited(file, "\t"),
    ".parquet": parquet,
}
"""File ending (without .gz) to its reader."""
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}
"""What file names call the three splits."""
KNOWN = either(DATA_FORMATS)
_PAIRED = {"src", "tgt", "source", "target", "document", "summary", "input", "output"}
_LANGUAGE = re.compile(r"[a-z]{2,3}([-_][a-z]{2,4})?")
_NO_LANGUAGE = set(
    "txt log md py sh bin pkl pth npy npz tmp bak zip tar bz2 xml pdf doc cfg ini yml idx lock wav ogg".split()
)
_DESCRIPTIONS = {"dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"}
_UNREMARKABLE = re.compile(
    r"(readme|licen[cs]e|citation|dataset_dict|dataset_infos?)\b.*|.*\.(wav|flac|ogg|opus|mp3|m4a)|clips|audio",
    re.IGNORECASE,
)
"""Left alone without a word; recordings are named by rows."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The splits of a file or folder."""

    tables: Mapping[str, tuple[Table, ...]]
    notes: tuple[str, ...] = ()
    """What was put together and what was left alone, one sentence each."""


def look(path: Path, wanted: Mapping[str, str]) -> Found:
    """Which tables the splits of a file or folder are; nothing is read but names and first bytes.

    Args:
        path: a file or folder that exists.
        wanted: split to the name it was asked for by; its own name means any of `SPLIT_WORDS`.

    Raises:
        InvalidInput: when nothing readable is there, or a split is there twice.
    """
    if path.is_file():
        return Found(tables={"train": (_file(path),)})
    if not path.is_dir():
        raise InvalidInput("data must be a file or folder, but got neither", where=shown_path(path))
    if _is_saved(path):
        return Found(tables={"train": (saved(path),)})
    inside = _inside(path)
    tables: dict[str, tuple[Table, ...]] = {}
    notes: list[str] = []
    used: set[Path] = set()
    for split, name in wanted.items():
        members = _of_split(path, inside, SPLIT_WORDS[split] if name == split else (name,))
        found = _together(path, members)
        if not found:
            continue
        tables[split] = tuple(found.values())
        used.update(one for one in members if one.is_dir() or any(one in several for several in found))
        if len(found) > 1:
            names = [several[0].name for several in found]
            notes.append(f"{split} is {len(found)} files one after the other: {_names(names)}")
    if "train" not in tables:
        return _one_file(path, inside, used, wanted)
    left = [p.name for p in inside if p not in used and not _UNREMARKABLE.fullmatch(p.name)]
    if left:
        notes.append(f"left alone in {shown_path(path.name)}: {_names(left)}")
    return Found(tables=tables, notes=tuple(notes))


def _one_file(path: Path, inside: Sequence[Path], used: set[Path], wanted: Mapping[str, str]) -> Found:
    """No split goes by the name of train: one table is train, else a folder `data` is looked into."""
    tables = [p for p in inside if p.is_file() and _ending(p) in FORMATS and p.name not in _DESCRIPTIONS]
    others = [p for p in tables if p not in used]
    if len(tables) == 1 == len(others):
        return Found(tables={"train": (_file(tables[0]),)})
    if not tables and not used and (path / "data").is_dir():
        return look(path / "data", wanted)
    if not tables and not used:
        raise InvalidInput(f"data folder must hold {KNOWN} files, but got none", where=shown_path(path))
    raise InvalidInput(
        f"data folder must hold a file named {wanted['train']}.*, but got {_names([p.name for p in inside])}",
        where=shown_path(path),
        fix="rename it, or give --train-split",
    )


def _of_split(path: Path, inside: Sequence[Path], words: tuple[str, ...]) -> list[Path]:
    """What goes by one of these words: `train.csv`, `train-0.csv`, `train.en`, and folders named exactly so."""
    found: dict[str, list[Path]] = {}
    for one in inside:
        name = one.name.lower()
        for word in map(str.lower, words):
            exact = name == word if one.is_dir() else re.match(rf"{re.escape(word)}($|[^a-z])", name)
            if exact and (one.is_dir() or _ending(one) in FORMATS or _stem_and_ending(one) is not None):
                found.setdefault(word, []).append(one)
    if len(found) > 1:
        names = _names([one.name for several in found.values() for one in several])
        fix = "name the one that is meant with --validation-split, or move the other away"
        raise InvalidInput(f"split must go by one name, but got {names}", where=shown_path(path), fix=fix)
    return next(iter(found.values()), [])


def _together(path: Path, members: Sequence[Path]) -> dict[tuple[Path, ...], Table]:
    """The tables that make one split, with the files of each: all of one kind."""
    kinds: dict[str, dict[tuple[Path, ...], Table]] = {}
    for one in members:
        if one.is_dir():
            kinds[f"{one.name}/"] = _folder(one)
        elif _ending(one) in FORMATS:
            kinds.setdefault(_ending(one), {})[(one,)] = _file(one)
    parallel = _parallel([one for one in members if one.is_file() and _ending(one) not in FORMATS])
    if parallel:
        kinds["parallel text"] = parallel
    if len(kinds) > 1:
        names = _names([one.name for one in members])
        raise InvalidInput(f"files of one split must have one format, but got {names}", where=shown_path(path))
    found = next(iter(kinds.values()), {})
    files = sorted(file.name for several in found for file in several)
    if len({name.lower().removesuffix(".gz") for name in files}) < len(files):
        raise InvalidInput(f"split must hold each file once, but got {_names(files)}", where=shown_path(path))
    return found


def _folder(path: Path) -> dict[tuple[Path, ...], Table]:
    """A folder that is one split: saved by `datasets`, or tables under any names."""
    if _is_saved(path):
        return {(path,): saved(path)}
    found = _together(path, [p for p in _inside(path) if p.is_file() and p.name not in _DESCRIPTIONS])
    if not found:
        raise InvalidInput(f"data folder must hold {KNOWN} files, but got none", where=shown_path(path))
    return found


def _parallel(files: Sequence[Path]) -> dict[tuple[Path, ...], Table]:
    """Files of one name and several endings are one table, a column an ending; English before other languages."""
    stems: dict[str, dict[str, Path]] = {}
    for file in files:
        named = _stem_and_ending(file)
        if named is not None:
            stems.setdefault(named[0], {})[named[1]] = file
    tables: dict[tuple[Path, ...], Table] = {}
    for columns in stems.values():
        if len(columns) > 1:
            ordered = dict(sorted(columns.items(), key=lambda one: (not one[0].startswith("en"), one[0])))
            for file in ordered.values():
                _check_not_empty(file)
            tables[tuple(ordered.values())] = Parallel(ordered)
    return tables


def _stem_and_ending(file: Path) -> tuple[str, str] | None:
    """`train.en-de` and `en` of `train.en-de.en.txt.gz`; None for what is no half of a parallel text."""
    stem, dot, ending = file.name.removesuffix(".gz").removesuffix(".txt").rpartition(".")
    low = ending.lower()
    paired = low in _PAIRED or (_LANGUAGE.fullmatch(low) and low not in _NO_LANGUAGE)
    return (stem, ending) if dot and paired else None


def _file(file: Path) -> Table:
    """The table in a file; what cannot be rows is refused before anything is imported."""
    if _ending(file) not in FORMATS:
        got = shown("".join(file.suffixes[-2:]) or "no ending")
        raise InvalidInput(f"data must be {KNOWN} (.gz allowed), but got {got}", where=shown_path(file))
    _check_not_empty(file)
    return FORMATS[_ending(file)](file)


def _check_not_empty(file: Path) -> None:
    try:
        with file.open("rb") as opened:
            if not opened.read(1):
                raise InvalidInput("data must hold rows, but got an empty file", where=shown_path(file))
    except OSError as error:
        raise InvalidInput(f"data must be readable, but got {error.strerror}", where=shown_path(file)) from None


def _inside(path: Path) -> list[Path]:
    try:
        return sorted(p for p in path.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise InvalidInput(f"data folder must be readable, but got {error.strerror}", where=shown_path(path)) from None


def _is_saved(path: Path) -> bool:
    return (path / "state.json").is_file() and (path / "dataset_info.json").is_file()


def _ending(file: Path) -> str:
    return Path(file.name.lower().removesuffix(".gz")).suffix


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return shown(", ".join(names[:4]), 100).strip("'\"") + more
