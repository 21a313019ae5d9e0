"""The user's data as checked texts: rows, splits, and what was decided about them.

    tables (rows.py) -> columns guessed or named -> every cell is text -> no source in two splits
    -> missing splits carved from train by a hash of the source

A source is the same as another when they differ in case, white space or Unicode form alone (`same_source`). A train
row whose source stands in validation or test is dropped, and so is a validation row whose source stands in test;
both are counted. Everything decided is said in `Texts.notes`. A `Split` of the test rows is made by `read_test`
alone, which only the sealed test's counted opening calls; before, hashes are made of its rows, one by one, and
nothing else is kept.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from nash_search.config import TaskConfig
from nash_search.errors import InvalidInput, shown
from nash_search.files import stamp
from nash_search.summary_rows import DataFacts
from nash_search.tasks.clips import Clips
from nash_search.tasks.columns import choose_columns, listed, same_column
from nash_search.tasks.rows import Source, open_source
from nash_search.tasks.tables import Table

LEAST_ROWS = {"train": 16, "validation": 8, "test": 8}
"""Fewest rows of a split."""
CARVED_SHARE = 0.05
MOST_CARVED = 2000
MOST_SHARED = 0.05
"""Share of a split whose sources may stand in one that is trained on or chosen by, before the data are refused."""


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

    def first(self, count: int | None) -> Split:
        """`count` rows (None: all) in the order of a hash of their source, so that they are a fair sample."""
        order = sorted(range(len(self)), key=lambda i: _hash(self.sources[i]))[:count]
        return Split(sources=[self.sources[i] for i in order], references=[self.references[i] for i in order])


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Checked texts of the three splits, the test behind a function."""

    train: Split
    validation: Split
    read_test: Callable[[], Split]
    facts: DataFacts
    notes: tuple[str, ...]
    """What was decided, one sentence each."""
    rows_of_clips: Mapping[str, str] = field(default_factory=dict)
    """By the name of a recording, a row that names it, as errors say it."""


def read_texts(config: TaskConfig, clips: Clips | None = None) -> Texts:
    """Read, check and split the data of a task (the last one is kept: it is asked for by check and by load).

    Args:
        config: what was asked.
        clips: the recordings that sources name; None: sources are texts.

    Raises:
        InvalidInput: one line naming the file, column, row or split that breaks a rule.
    """
    return _read_texts(config, clips, stamp(config.data))


@lru_cache(maxsize=1)
def _read_texts(config: TaskConfig, clips: Clips | None, _: tuple[Any, ...]) -> Texts:
    source = open_source(config)
    notes = list(source.notes)
    reader = _Reader(config, source, notes, clips)
    train = reader.read("train")
    validation = reader.read("validation") if "validation" in source.splits else None
    keys = {"train": [_key(one) for one in train.sources]}
    if validation is not None:
        keys["validation"] = [_key(one) for one in validation.sources]
    if "test" in source.splits:
        keys["test"] = [_key(one) for one, _ in reader.rows("test")]
    overlap = _Overlap(keys, config.allow_overlap, source.name)
    notes += overlap.notes
    train = overlap.without(train, "train")
    missing = [split for split in LEAST_ROWS if split not in source.splits]
    rows: dict[str, int] = {"test": len(keys.get("test", ()))}
    for split in missing:
        train, found = _carve(train, split, source.name)
        rows[split] = len(found)
        how = f"{len(found):,} rows carved from train by a hash of the source"
        notes.append(f"{source.name} has no {split} split: {how}")
        if split == "validation":
            validation = found
    assert validation is not None
    validation = overlap.without(validation, "validation")
    rows |= {"train": len(train), "validation": len(validation)}
    for split, least in LEAST_ROWS.items():
        if rows[split] < least:
            what = f"{split} split must have at least {least} rows, but got {rows[split]}"
            raise InvalidInput(what, where=source.name)

    def read_test() -> Split:
        again = _Reader(config, source, [], clips)
        if "test" in source.splits:
            return again.read("test")
        rest = overlap.without(again.read("train"), "train")
        for split in missing:
            rest, found = _carve(rest, split, source.name)
        return found

    facts = DataFacts(
        **rows,
        train_dropped=overlap.dropped["train"],
        validation_dropped=overlap.dropped["validation"],
        validation_in_train=overlap.shared["train", "validation"],
        test_in_train=overlap.shared["train", "test"],
        test_in_validation=overlap.shared["validation", "test"],
        overlap_allowed=config.allow_overlap,
    )
    return Texts(
        train=train,
        validation=validation,
        read_test=read_test,
        facts=facts,
        notes=tuple(notes),
        rows_of_clips=reader.rows_of_clips,
    )


class _Reader:
    """Rows of one source as texts; columns are chosen once, on the first table read."""

    def __init__(self, config: TaskConfig, source: Source, notes: list[str], clips: Clips | None) -> None:
        self._config = config
        self._clips = clips
        self._source = source
        self._notes = notes
        self._columns: tuple[str, str] | None = None
        self.rows_of_clips: dict[str, str] = {}

    def read(self, split: str) -> Split:
        """Every row of a split that has text."""
        found = list(self.rows(split))
        return Split(sources=[source for source, _ in found], references=[several for _, several in found])

    def rows(self, split: str) -> Iterator[tuple[str, list[str]]]:
        """Source and references of every row of a split that has text; None and numbers are refused."""
        kept = seen = 0
        for table in self._source.splits[split]:
            columns = self._columns_in(table)
            for number, (text, target) in table.rows(columns):
                seen += 1
                text = text if self._clips is None else self._clips.named(text)
                several = list(target) if isinstance(target, list | tuple) else [target]
                for name, cell in ((columns[0], text), *((columns[1], one) for one in several)):
                    if not _is_text(cell) and not (cell is None and self._source.is_hub):
                        what = f"{name} must be text in every row, but got {shown(cell)} in {table.unit} {number}"
                        raise InvalidInput(what, where=table.name)
                several = [one for one in several if one and one.strip()]
                if self._clips is not None and bool(text and text.strip()) != bool(several):
                    # a text without its twin is chaff; a recording without its transcript is a slip of the pen
                    lacks, has = ("transcript", "recording") if text and text.strip() else ("recording", "transcript")
                    where = f"{table.name}, {table.unit} {number}"
                    raise InvalidInput(f"{lacks} must stand beside every {has}, but got none", where=where)
                if text and text.strip() and several:
                    self._check_clip(text, f"{table.name}, {table.unit} {number}")
                    kept += 1
                    yield text, several
            if table.note and table.note not in self._notes:
                self._notes.append(table.note)
        where = f"{split} split of {self._source.name}"
        if not seen:
            raise InvalidInput("data must hold rows, but got none", where=where)
        if not kept:
            raise InvalidInput("rows must have a source and a reference, but got none that do", where=where)
        if kept < seen:
            self._notes.append(f"{seen - kept:,} of {seen:,} rows of {split} have no text and are left out")

    def _check_clip(self, name: str, where: str) -> None:
        """Refuse a row whose recording cannot be heard, by its header."""
        if self._clips is None:
            return
        try:
            self._clips.check(name)
        except InvalidInput as error:
            raise InvalidInput(str(error), where=where) from None
        self.rows_of_clips[name] = where

    def _columns_in(self, table: Table) -> tuple[str, str]:
        """What this table calls the two columns; other splits and shards may differ in order and case."""
        names = table.columns()
        if self._columns is None:
            self._columns = choose_columns(names, self._config, table.name)
            if (self._config.source_column, self._config.target_column) != self._columns:
                self._notes.append(f"columns: {self._columns[0]} -> {self._columns[1]}")
        found = [same_column(name, names) for name in self._columns]
        if found[0] is None or found[1] is None:
            missing = self._columns[found.index(None)]
            what = f"every split must have column {missing}, but got {listed(names) or 'none'}"
            raise InvalidInput(what, where=table.name)
        return found[0], found[1]


def _is_text(cell: object) -> bool:
    """A string of whole characters (JSON may hold half of one, which no tokenizer takes)."""
    return isinstance(cell, str) and (cell.isascii() or not any("\ud800" <= c <= "\udfff" for c in cell))


def same_source(source: str) -> str:
    """Equal for sources that differ in case, white space or Unicode form alone."""
    return " ".join(unicodedata.normalize("NFKC", source).casefold().split())


def _key(source: str) -> bytes:
    return _hash(same_source(source))


class _Overlap:
    """Sources that stand in two splits: refused beyond `MOST_SHARED`, else dropped, or allowed and counted."""

    def __init__(self, keys: dict[str, list[bytes]], allowed: bool, where: str) -> None:
        """`keys` are the sources of the splits that are given, row by row."""
        self.notes: list[str] = []
        self.shared = {pair: 0 for pair in (("train", "validation"), ("train", "test"), ("validation", "test"))}
        self.dropped = {"train": 0, "validation": 0}
        self._barred: dict[str, set[bytes]] = {"train": set(), "validation": set()}
        distinct = {split: set(found) for split, found in keys.items()}
        said = []
        for one, other in self.shared:
            if one not in keys or other not in keys:
                continue
            both = distinct[one] & distinct[other]
            shared = self.shared[one, other] = sum(key in both for key in keys[other])
            if not shared:
                continue
            found = f"{shared:,} of the {len(keys[other]):,} sources of {other} also in {one}"
            said.append(found)
            if not allowed and shared > MOST_SHARED * len(keys[other]):
                fix = "remove them, or pass --allow-overlap and trust the numbers less"
                what = f"splits must share at most {MOST_SHARED:.0%} of their sources, but got {found}"
                raise InvalidInput(what, where=where, fix=fix)
            self._barred[one] |= both
        if allowed:
            self.notes += [f"overlap allowed: {found}" for found in said]
            self._barred = {"train": set(), "validation": set()}
            return
        for split, barred in self._barred.items():
            self.dropped[split] = sum(key in barred for key in keys.get(split, ()))
            if self.dropped[split]:
                others = "validation or test" if split == "train" else "test"
                rows = "row" if self.dropped[split] == 1 else "rows"
                self.notes.append(
                    f"{self.dropped[split]:,} {rows} of {split} dropped, whose source stands in {others} "
                    f"({', '.join(f for f in said if f.endswith(f' in {split}'))})"
                )

    def without(self, split: Split, name: str) -> Split:
        """The split less the rows to be dropped."""
        barred = self._barred[name]
        return _where_source(split, lambda source: _key(source) not in barred) if barred else split


def _carve(train: Split, split: str, where: str) -> tuple[Split, Split]:
    """(train without them, the rows whose source hashes lowest); the same sources stay together."""
    least = LEAST_ROWS[split]
    distinct = sorted({same_source(one) for one in train.sources}, key=lambda key: _hash(f"{split}\x1f{key}"))
    wanted = min(MOST_CARVED, max(least, round(CARVED_SHARE * len(distinct))))
    needed = wanted + LEAST_ROWS["train"]
    if len(distinct) < needed:
        what = f"data must have at least {needed} rows to carve {split} from, but got {len(distinct)}"
        raise InvalidInput(what, where=where)
    taken = set(distinct[:wanted])
    return _where_source(train, lambda s: same_source(s) not in taken), _where_source(
        train, lambda s: same_source(s) in taken
    )


def _where_source(split: Split, keep: Callable[[str], bool]) -> Split:
    rows = [i for i, source in enumerate(split.sources) if keep(source)]
    return Split(sources=[split.sources[i] for i in rows], references=[split.references[i] for i in rows])


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:12]
