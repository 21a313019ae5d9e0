"""The user's data as checked texts: columns, rows, splits, and what was decided about them.

    rows (rows.py) -> columns guessed or named -> every cell is text -> missing splits carved from
    train by a hash of the source -> no example in two splits

Everything decided is said in `Texts.notes`. A `Split` of the test rows is made by `read_test` alone,
which only the sealed test's counted opening calls; the overlap check makes hashes of its rows, one by
one, and keeps nothing else. This module refuses to know tokenizers.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from nash_search.config import TaskConfig
from nash_search.errors import InvalidInput, shown
from nash_search.tasks.rows import Source, open_source

PAIRS = (
    ("source", "target"),
    ("document", "summary"),
    ("dialogue", "summary"),
    ("article", "highlights"),
    ("text", "summary"),
    ("input", "output"),
    ("inputs", "targets"),
    ("src", "tgt"),
    ("question", "answer"),
)
"""Column names that are guessed, first match first; a `translation` column comes after them."""
LEAST_ROWS = {"train": 16, "validation": 8, "test": 8}
"""Fewest rows of a split."""
CARVED_SHARE = 0.05
MOST_CARVED = 2000


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split's texts."""

    sources: list[str]
    references: list[list[str]]

    def __len__(self) -> int:
        return len(self.sources)

    def rows(self) -> Iterable[tuple[str, list[str]]]:
        """Source and references, row by row."""
        return zip(self.sources, self.references, strict=True)

    def hash_order(self) -> list[int]:
        """Row numbers ordered by a hash of the source, so that the first n are a fair sample."""
        return sorted(range(len(self)), key=lambda i: _hash(self.sources[i]))


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Checked texts of the three splits, the test behind a function."""

    train: Split
    validation: Split
    read_test: Callable[[], Split]
    notes: tuple[str, ...]
    """What was decided, one sentence each."""


@lru_cache(maxsize=1)
def read_texts(config: TaskConfig) -> Texts:
    """Read, check and split the data of a task (the last one is kept: it is asked for by check and by load).

    Raises:
        InvalidInput: one line naming the file, column, row or split that breaks a rule.
    """
    source = open_source(config)
    notes: list[str] = []
    reader = _Reader(config, source, notes)
    train = reader.read("train")
    missing = [split for split in ("validation", "test") if split not in source.splits]
    hashes: dict[str, list[bytes]] = {}
    carved: dict[str, Split] = {}
    for split in missing:
        train, found = _carve(train, split, source.name)
        notes.append(
            f"{source.name} has no {split} split: {len(found):,} rows carved from train by a hash of the source"
        )
        hashes[split] = _hashes(found.rows())
        if split != "test":
            carved[split] = found
    validation = carved.get("validation") or reader.read("validation")

    def read_test() -> Split:
        again = _Reader(config, source, [])
        if "test" in source.splits:
            return again.read("test")
        rest = again.read("train")
        for split in missing:
            rest, found = _carve(rest, split, source.name)
        return found

    hashes |= {"train": _hashes(train.rows()), "validation": _hashes(validation.rows())}
    if "test" not in missing:
        hashes["test"] = _hashes(_Reader(config, source, []).rows("test"))
    for split, least in LEAST_ROWS.items():
        if len(hashes[split]) < least:
            what = f"{split} split must have at least {least} rows, but got {len(hashes[split])}"
            raise InvalidInput(what, where=source.name)
    _refuse_overlap({split: set(found) for split, found in hashes.items()}, config, source, notes)
    return Texts(train=train, validation=validation, read_test=read_test, notes=tuple(notes))


class _Reader:
    """Rows of one source as texts; columns are settled once, on the first split read."""

    def __init__(self, config: TaskConfig, source: Source, notes: list[str]) -> None:
        self._config = config
        self._source = source
        self._notes = notes
        self._columns: tuple[str, str] | None = None

    def read(self, split: str) -> Split:
        """Every row of a split that has text."""
        found = list(self.rows(split))
        return Split(sources=[source for source, _ in found], references=[several for _, several in found])

    def rows(self, split: str) -> Iterator[tuple[str, list[str]]]:
        """Source and references of every row of a split that has text; None and numbers are refused."""
        rows = self._source.splits[split]()
        where = f"{split} split of {self._source.name}"
        if not len(rows):
            raise InvalidInput("data must hold rows, but got none", where=where)
        if self._columns is None:
            self._columns = choose_columns(rows, self._config, self._source.name)
            if (self._config.source_column, self._config.target_column) != self._columns:
                self._notes.append(f"columns: {self._columns[0]} -> {self._columns[1]}")
        cells = [_column(rows, name, where) for name in self._columns]
        kept = 0
        for number, (text, target) in enumerate(zip(*cells, strict=True), start=1):
            several = target if isinstance(target, list) else [target]
            for name, cell in ((self._columns[0], text), *((self._columns[1], one) for one in several)):
                if not isinstance(cell, str) and not (cell is None and self._source.is_hub):
                    what = f"{name} must be text in every row, but got {shown(cell)} in row {number}"
                    raise InvalidInput(what, where=where)
            several = [one for one in several if one and one.strip()]
            if text and text.strip() and several:
                kept += 1
                yield text, several
        if not kept:
            raise InvalidInput("rows must have a source and a reference, but got none that do", where=where)
        if kept < len(rows):
            self._notes.append(f"{len(rows) - kept:,} of {len(rows):,} rows of {split} have no text and are left out")


def choose_columns(rows: Any, config: TaskConfig, where: str) -> tuple[str, str]:
    """The source and target column: the named ones, or a guess from `PAIRS`.

    `translation.en` names one language of a `translation` column.
    """
    names = list(rows.column_names)
    for language in _languages(rows):
        names.append(f"translation.{language}")
    for flag, asked in (("--source-column", config.source_column), ("--target-column", config.target_column)):
        if asked is not None and asked not in names:
            nearest = difflib.get_close_matches(asked, names, 1)
            what = f"{flag} must be one of {_list(names)}, but got {shown(asked)}"
            raise InvalidInput(what, where=where, fix=f"did you mean {nearest[0]}?" if nearest else "")
    translation = [f"translation.{language}" for language in _languages(rows)]
    pairs = [*PAIRS, (translation[0], translation[1])] if len(translation) == 2 else PAIRS
    for source, target in pairs:
        chosen = (config.source_column or source, config.target_column or target)
        if chosen[0] in names and chosen[1] in names and chosen[0] != chosen[1]:
            return chosen
    if config.source_column and config.target_column:
        what = f"--source-column and --target-column must differ, but got {config.source_column} twice"
        raise InvalidInput(what, where=where)
    what = f"columns must be guessable (source and target, document and summary, …), but got {_list(names)}"
    raise InvalidInput(what, where=where, fix="name them with --source-column and --target-column")


def _languages(rows: Any) -> list[str]:
    """The languages of a `translation` column of mappings."""
    feature = rows.features.get("translation")
    languages = getattr(feature, "languages", None) or (feature if isinstance(feature, dict) else None) or ()
    return [str(language) for language in languages]


def _column(rows: Any, name: str, where: str) -> Sequence[Any]:
    if name not in rows.column_names and name.startswith("translation."):
        return [row.get(name.partition(".")[2]) if row else None for row in rows["translation"]]
    if name not in rows.column_names:
        raise InvalidInput(f"every split must have column {name}, but got {_list(rows.column_names)}", where=where)
    return list(rows[name])


def _carve(train: Split, split: str, where: str) -> tuple[Split, Split]:
    """(train without them, the rows whose source hashes lowest); equal sources stay together."""
    least = LEAST_ROWS[split]
    distinct = sorted(set(train.sources), key=lambda source: _hash(f"{split}\x1f{source}"))
    wanted = min(MOST_CARVED, max(least, round(CARVED_SHARE * len(distinct))))
    needed = wanted + LEAST_ROWS["train"]
    if len(distinct) < needed:
        what = f"data must have at least {needed} rows to carve {split} from, but got {len(distinct)}"
        raise InvalidInput(what, where=where)
    taken = set(distinct[:wanted])
    return _where_source(train, lambda s: s not in taken), _where_source(train, lambda s: s in taken)


def _where_source(split: Split, keep: Callable[[str], bool]) -> Split:
    rows = [i for i, source in enumerate(split.sources) if keep(source)]
    return Split(sources=[split.sources[i] for i in rows], references=[split.references[i] for i in rows])


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:12]


def _hashes(rows: Iterable[tuple[str, list[str]]]) -> list[bytes]:
    """One hash per row: source and references, outer white space aside."""
    return [_hash("\x1f".join((source.strip(), *(r.strip() for r in several)))) for source, several in rows]


def _refuse_overlap(hashes: dict[str, set[bytes]], config: TaskConfig, source: Source, notes: list[str]) -> None:
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        shared = len(hashes[one] & hashes[other])
        if not shared:
            continue
        found = f"{shared:,} of the {len(hashes[other]):,} examples of {other} also in {one}"
        if not config.allow_overlap:
            fix = "remove them, or pass --allow-overlap and trust the numbers less"
            raise InvalidInput(f"splits must not overlap, but got {found}", where=source.name, fix=fix)
        notes.append(f"overlap allowed: {found}")


def _list(names: Sequence[str]) -> str:
    return shown(", ".join(names), 80).strip("'\"")
