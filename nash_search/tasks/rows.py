"""Rows from files or the hub, through `datasets`: which file is which split, and what cannot be read.

A file or folder of JSONL, JSON, CSV, TSV or Parquet, gzipped or not; or a hub dataset id. Nothing
is executed or unpickled: a folder with a loading script is refused. Local files are parsed without
leaving a cache behind. This module refuses to know what the columns mean.
"""

from __future__ import annotations

import csv
import gzip
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nash_search.config import TaskConfig
from nash_search.errors import InvalidInput, shown
from nash_search.tasks import hub

FORMATS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
"""File ending (without .gz) to the `datasets` builder that reads it."""
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
"""What file names call the three splits."""
_SCRIPTS = (".py", ".pkl", ".pickle", ".pt", ".bin")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where rows come from: a reader per split that exists."""

    name: str
    """The file, folder or hub id, as the user gave it."""
    is_hub: bool
    splits: Mapping[str, Callable[[], Any]]
    """`train`, `validation`, `test` (those that exist) to a function that gives a `datasets.Dataset`."""


def open_source(config: TaskConfig) -> Source:
    """Find the splits of `config.data` without reading rows.

    Raises:
        InvalidInput: when nothing readable is there, or the hub cannot be reached.
    """
    name = config.data or ""
    wanted = {"train": config.train_split, "validation": config.validation_split, "test": config.test_split}
    if len(set(wanted.values())) < len(wanted):
        raise InvalidInput(f"splits must differ, but got {', '.join(wanted.values())}", where="task", fix=SPLIT_FIX)
    if not hub.is_local(name):
        return _named(_hub_source(name, config, wanted), wanted)
    path = Path(name)
    if not name.strip() or not hub.exists(name):
        raise InvalidInput("data must exist, but got no such file or folder", where=_where(name), fix="check --data")
    files = _split_files(path, wanted)
    splits = {split: lambda found=found: _read_files(found) for split, found in files.items()}
    return _named(Source(name=name, is_hub=False, splits=splits), wanted)


def _named(source: Source, wanted: Mapping[str, str]) -> Source:
    """Refuse to carve a split that was named: a slip of the pen must not replace the user's test set."""
    for split, name in wanted.items():
        if name != split and split not in source.splits:
            what = f"{split} split must be in the data when it is named, but got {shown(name)}"
            fix = "check the name; left out, it is carved from train"
            raise InvalidInput(what, where=f"--{split}-split, {_where(source.name)}", fix=fix)
    return source


SPLIT_FIX = "name three splits, or leave out the ones to be carved from train"


def _split_files(path: Path, wanted: Mapping[str, str]) -> dict[str, list[Path]]:
    if path.is_file():
        _format(path)
        return {"train": [path]}
    if not path.is_dir():
        raise InvalidInput("data must be a file or folder, but got neither", where=_where(path))
    try:
        inside = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise InvalidInput(f"data folder must be readable, but got {error.strerror}", where=_where(path)) from None
    for file in inside:
        if file.suffix in _SCRIPTS:
            fix = "convert it to JSONL, CSV or Parquet; code and pickles are never run"
            what = f"data folder must hold data only, but got {shown(file.name)}"
            raise InvalidInput(what, where=_where(path), fix=fix)
    files = [file for file in inside if file.is_file() and _ending(file) in FORMATS]
    if not files and (path / "data").is_dir():
        return _split_files(path / "data", wanted)
    if not files:
        raise InvalidInput(f"data folder must hold {_KNOWN} files, but got none", where=_where(path))
    found: dict[str, list[Path]] = {}
    for split, name in wanted.items():
        words = SPLIT_WORDS[split] if name == split else (name,)
        found[split] = [f for f in files if any(re.match(rf"{re.escape(w)}($|[^a-z])", f.name.lower()) for w in words)]
    if not found["train"] and len(files) == 1:
        return {"train": files}
    if not found["train"]:
        names = ", ".join(file.name for file in files[:4])
        raise InvalidInput(
            f"data folder must hold a file named {wanted['train']}.*, but got {shown(names)}",
            where=_where(path),
            fix="rename it, or give --train-split",
        )
    for several in found.values():
        for file in several:
            _format(file)
        if len({_ending(file) for file in several}) > 1:
            names = ", ".join(file.name for file in several)
            raise InvalidInput(f"files of one split must have one format, but got {shown(names)}", where=_where(path))
    return {split: several for split, several in found.items() if several}


def _read_files(files: Sequence[Path]) -> Any:
    import datasets

    ending = _ending(files[0])
    words: dict[str, Any] = {}
    if FORMATS[ending] == "csv":
        words = _csv_words(files[0], "\t" if ending == ".tsv" else ",")
    progress = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(prefix="nash-search-") as cache:
        plain = []  # names that `datasets` reads neither as a pattern nor as an address
        for number, file in enumerate(files):
            plain.append(Path(cache) / f"rows-{number}{ending}{'.gz' if file.suffix == '.gz' else ''}")
            plain[-1].symlink_to(file.resolve())
        asked: dict[str, Any] = {"data_files": {"rows": [str(file) for file in plain]}, "split": "rows", **words}
        try:
            return datasets.load_dataset(FORMATS[ending], cache_dir=cache, keep_in_memory=True, **asked)
        except Exception as error:
            what = f"data must be readable {ending} rows, but got {shown(_root(error), 120)}"
            raise InvalidInput(what, where=_where(files[0])) from None
        finally:
            if progress:
                datasets.enable_progress_bars()


def _csv_words(file: Path, separator: str) -> dict[str, Any]:
    """Cells stay the text they are ("1" and "NA" are words here), and every row has all of them."""
    import datasets

    csv.field_size_limit(1 << 30)
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8-sig", newline="") as lines:
            rows = csv.reader(lines, delimiter=separator)
            header = next(rows, [])
            for row in rows:
                if row and len(row) != len(header):
                    what = f"row must have {len(header)} cells, but got {len(row)} in line {rows.line_num}"
                    raise InvalidInput(what, where=_where(file))
    except InvalidInput:
        raise
    except (OSError, EOFError, ValueError, csv.Error) as error:
        raise InvalidInput(f"data must be readable text, but got {shown(str(error))}", where=_where(file)) from None
    if not all(header) or len({*header}) < max(1, len(header)):
        raise InvalidInput(f"first line must name each column once, but got {shown(header)}", where=_where(file))
    features = datasets.Features({name: datasets.Value("string") for name in header})
    return {"sep": separator, "features": features, "keep_default_na": False, "encoding": "utf-8-sig"}


def _hub_source(name: str, config: TaskConfig, wanted: Mapping[str, str]) -> Source:
    there = hub.reachable()
    import datasets

    fix = "check the name, or give a local file or folder to --data"
    try:
        known = datasets.get_dataset_split_names(name, config.data_config)
    except Exception as error:
        what = f"hub dataset must be readable, but got {_root(error)}"
        if not there:
            what = "data must be a local path or a hub dataset that can be reached, but got neither"
        raise InvalidInput(what, where=_where(name), fix=fix) from None
    if wanted["train"] not in known:
        what = f"train split must be one of {', '.join(known)}, but got {wanted['train']}"
        raise InvalidInput(what, where=_where(name), fix="give --train-split")

    def read(split: str) -> Any:
        try:
            return datasets.load_dataset(name, config.data_config, split=split)
        except Exception as error:
            what = f"hub dataset must be readable, but got {_root(error)}"
            raise InvalidInput(what, where=_where(name), fix=fix) from None

    splits = {split: asked for split, asked in wanted.items() if asked in known}
    return Source(
        name=name,
        is_hub=True,
        splits={split: lambda asked=asked: read(asked) for split, asked in splits.items()},  # type: ignore[misc]
    )


_KNOWN = "JSONL, JSON, CSV, TSV or Parquet"


def _format(file: Path) -> None:
    """Refuse what cannot be rows, before `datasets` is imported."""
    if _ending(file) not in FORMATS:
        what = f"data must be {_KNOWN} (.gz allowed), but got {shown(''.join(file.suffixes[-2:]) or 'no ending')}"
        raise InvalidInput(what, where=_where(file))
    try:
        with file.open("rb") as opened:
            if not opened.read(1):
                raise InvalidInput("data must hold rows, but got an empty file", where=_where(file))
    except OSError as error:
        raise InvalidInput(f"data must be readable, but got {error.strerror}", where=_where(file)) from None


def _ending(file: Path) -> str:
    name = file.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _root(error: BaseException) -> str:
    """The innermost cause, one line."""
    while error.__cause__ is not None or (error.__context__ is not None and not error.__suppress_context__):
        error = error.__cause__ or error.__context__ or error
    if isinstance(error, StopIteration) or not str(error).strip() or "corresponds to no data" in str(error):
        return "no rows"
    return " ".join(str(error).split())[:120]


def _where(name: str | Path) -> str:
    return shown(str(name), 120).strip("'\"")
