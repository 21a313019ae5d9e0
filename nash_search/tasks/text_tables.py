"""Readers of text formats, with the standard library.

    JsonLines      .jsonl, or .json with one object a line
    JsonDocument   .json: [{…}, …], or {"data": [{…}, …]}
    Delimited      .csv, .tsv
    Parallel       train.en beside train.de, line by line

Not with `datasets`, because a reader that infers types changes texts: it makes timestamps of "2021-02-01 10:00",
refuses a column that is null first and text later, and lets a stray quote swallow rows.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nash_search.errors import InvalidInput, shown, shown_path
from nash_search.tasks.tables import TRANSLATION, Cells, Table, cell_of


def lines_of(file: Path) -> Iterator[str]:
    """Lines of a text file, their ends kept; a line ends at a line feed and nowhere else.

    Raises:
        InvalidInput: when it cannot be read, or a line is no UTF-8.
    """
    try:
        with gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb") as raw:
            for number, line in enumerate(raw, 1):
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    what = f"data must be UTF-8 text, but got byte 0x{error.object[error.start]:02x} in line {number}"
                    raise InvalidInput(what, where=shown_path(file), fix="convert it to UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(f"data must be readable, but got {shown(reason)}", where=shown_path(file)) from None


class _Objects:
    """JSON objects, one a row."""

    unit, note = "row", ""

    def __init__(self, file: Path) -> None:
        self._file, self.name = file, shown_path(file)

    def columns(self) -> list[str]:
        """Keys of all rows: one may appear late."""
        return _keys(row for _, row in self._objects())

    def rows(self, names: Sequence[str]) -> Iterator[tuple[int, Cells]]:
        """Cells by key."""
        for number, row in self._objects():
            yield number, tuple(cell_of(row, name) for name in names)

    def _objects(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        raise NotImplementedError


class JsonLines(_Objects):
    """One object a line; blank lines are no rows."""

    unit, note = "line", ""

    def _objects(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        for number, line in enumerate(lines_of(self._file), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                what = f"row must be JSON, but got {_why(error)} in line {number}"
                raise InvalidInput(what, where=self.name) from None
            yield number, _object(row, number, self)


class JsonDocument(_Objects):
    """One JSON value: a list of objects, or an object that holds one (`data`, or its only list of objects)."""

    def _objects(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        try:
            found = json.loads("".join(lines_of(self._file)))
        except (ValueError, RecursionError) as error:
            if isinstance(error, InvalidInput):
                raise
            what = f"data must be JSON, but got {_why(error)} in line {getattr(error, 'lineno', 1)}"
            raise InvalidInput(what, where=self.name) from None
        if isinstance(found, dict):
            lists = _lists_of_objects(found)
            if "data" not in lists and len(lists) != 1:
                got = f"an object of {shown(', '.join(found), 60)}"
                what = f"data must be a list of objects, or an object that holds one as data, but got {got}"
                raise InvalidInput(what, where=self.name)
            found = found["data" if "data" in lists else lists[0]]
        if not isinstance(found, list):
            raise InvalidInput(f"data must be a list of objects, but got {shown(found)}", where=self.name)
        for number, row in enumerate(found, 1):
            yield number, _object(row, number, self)


def json_table(file: Path) -> Table:
    """`.json` is used for both: a document, or one object a line."""
    first, *more = [*itertools.islice((line for line in lines_of(file) if line.strip()), 2)] or [""]
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        return JsonDocument(file)
    return JsonLines(file) if isinstance(row, dict) and (more or not _lists_of_objects(row)) else JsonDocument(file)


_DOUBLED = re.compile(r'"[^"]*(?:""|\r)(?:[^"]|"")*"')
"""A quoted cell with a quote or a line break in it."""


class Delimited:
    """A header and rows of as many cells, apart by comma, semicolon or tab.

    Quotes are read as CSV has them (RFC 4180) where the whole file agrees with that. Where it does not, because
    they are part of the text, every line is a row and quotes are characters. A file that could be read both ways,
    into different rows, is refused.
    """

    unit = "line"

    def __init__(self, file: Path, usual: str) -> None:
        self._file, self._usual, self.name = file, usual, shown_path(file)
        self.note = ""

    def columns(self) -> list[str]:
        """The header, less columns without a name (pandas writes its index so)."""
        return [name for name in self._header()[1] if name]

    def rows(self, names: Sequence[str]) -> Iterator[tuple[int, Cells]]:
        """Cells by position under the header."""
        separator, header = self._header()
        for name in names:
            if header.count(name) > 1:
                what = f"first line must name each column once, but got {shown(name)} {header.count(name)} times"
                raise InvalidInput(what, where=self.name)
        at = [header.index(name) for name in names]
        read = self._reading(separator, len(header))
        for number, cells in itertools.islice(read(self._file, separator), 1, None):
            yield number, tuple(cells[i] for i in at)

    def _header(self) -> tuple[str, list[str]]:
        """The separator that cuts the first line into most cells, the usual one first; and those cells."""
        csv.field_size_limit(1 << 30)
        first = next((line for line in lines_of(self._file) if line.strip()), "")
        cut = {separator: next(csv.reader([first], delimiter=separator), []) for separator in (self._usual, *",;\t")}
        separator = max(cut, key=lambda s: len(cut[s]))
        return separator, [name.strip() for name in cut[separator]]

    def _reading(self, separator: str, width: int) -> Callable[[Path, str], Iterator[tuple[int, list[str]]]]:
        quoted, complaint = self._fits(_quoted, separator, width)
        literal, _ = self._fits(_literal, separator, width)
        if quoted is None and literal is None:
            assert complaint is not None
            raise complaint
        if quoted is not None and literal is not None and quoted != literal:
            same = sum(1 for _ in itertools.takewhile(lambda two: two[0] == two[1], zip(quoted, literal, strict=False)))
            what = f"rows must read one way, but got quotes that are text or join lines in line {quoted[same - 1]}"
            raise InvalidInput(what, where=self.name, fix="write it as JSONL")
        if quoted is None:
            self.note = f"quotes in {self.name} are text: it is not quoted as CSV is"
            return _literal
        return _quoted

    def _fits(
        self, read: Callable[[Path, str], Iterator[tuple[int, list[str]]]], separator: str, width: int
    ) -> tuple[list[int] | None, InvalidInput | None]:
        """The lines where rows begin if all have as many cells as the header, else what is wrong with the first."""
        begins: list[int] = []
        try:
            for number, cells in read(self._file, separator):
                if len(cells) != width:
                    what = f"row must have {width} cells, but got {len(cells)} in line {number}"
                    return None, InvalidInput(what, where=self.name)
                begins.append(number)
        except InvalidInput as error:
            return None, error
        return begins, None


def _quoted(file: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Records as CSV quotes them, with the line each begins in; blank lines are no rows.

    Once a record spans lines, every quote of the file must enclose a cell or be doubled inside one: then a quote
    that is missing or stray cannot join rows unseen, because their number would be odd.
    """
    seen: list[str] = []

    def remembered() -> Iterator[str]:
        for line in lines_of(file):
            seen.append(line)
            yield line

    cell = f'(?:"[^"]*(?:""[^"]*)*"|[^"{separator}\r\n]*)'
    exact = re.compile(f"{cell}(?:{separator}{cell})*\r?\n?")
    reader = csv.reader(remembered(), delimiter=separator, strict=True)
    begins, spans, loose = 1, False, 0
    try:
        for cells in reader:
            if cells:
                text = "".join(seen)
                spans = spans or len(seen) > 1
                if '"' in text and not exact.fullmatch(text):
                    loose = loose or begins
                if spans and loose:
                    raise csv.Error("a quote that encloses no cell")
                yield begins, cells
            begins = reader.line_num + 1
            seen.clear()
    except csv.Error as error:
        what = f"row must be quoted as CSV is, but got {shown(str(error))} in the row of line {loose or begins}"
        raise InvalidInput(what, where=shown_path(file), fix="mend the quotes, or write it as JSONL") from None


def _literal(file: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Lines cut at every separator; not where a quoted header or doubled quotes show that quotes are CSV's."""
    for number, line in enumerate(lines_of(file), 1):
        if text := _without_end(line):
            cells = text.split(separator)
            if '"' in text and (number == 1 or any(map(_DOUBLED.fullmatch, cells))):
                what = f"row must be quoted as CSV is, but got quotes that are text beside others in line {number}"
                raise InvalidInput(what, where=shown_path(file))
            yield number, cells


class Parallel:
    """Text files whose n-th lines belong together, one a column; every line is a row, blank ones too."""

    unit, note = "line", ""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files
        self.name = ", ".join(shown_path(file) for file in files.values())

    def columns(self) -> list[str]:
        """The files' endings."""
        return list(self._files)

    def rows(self, names: Sequence[str]) -> Iterator[tuple[int, Cells]]:
        """Lines without their ends; files of unequal length are refused."""
        asked = {name: self._files[name] for name in names}
        together = itertools.zip_longest(*(lines_of(file) for file in asked.values()))
        for number, several in enumerate(together, 1):
            if None in several:
                short = list(asked.values())[several.index(None)].name
                what = f"files must have equally many lines, but got none in line {number} of {shown(short)}"
                raise InvalidInput(what, where=self.name)
            yield number, tuple(_without_end(line) for line in several)


def _object(row: Any, number: int, table: Table) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        what = f"row must be an object, but got {shown(row)} in {table.unit} {number}"
        raise InvalidInput(what, where=table.name)
    return row


def _why(error: Exception) -> str:
    """What JSON's reader met, less its own count of lines."""
    return shown(f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error), 100)


def _lists_of_objects(value: Mapping[str, Any]) -> list[str]:
    """Keys whose value is a list with an object in it."""
    return [key for key, found in value.items() if isinstance(found, list) and any(isinstance(x, dict) for x in found)]


def _keys(rows: Iterator[Mapping[str, Any]]) -> list[str]:
    """Keys of all rows in the order they appear, and the languages of a translation."""
    found: dict[str, None] = {}
    for row in rows:
        found.update(dict.fromkeys(row))
        if isinstance(row.get(TRANSLATION), dict):
            found.update(dict.fromkeys(f"{TRANSLATION}.{language}" for language in row[TRANSLATION]))
    return list(found)


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")
