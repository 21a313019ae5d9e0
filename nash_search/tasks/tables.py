"""What a reader of rows is, whatever the format: which columns a table has, and the cells of some of them.

No reader loses, merges or shifts a row: as many come out as the file holds, or it is refused with the line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

Cells = tuple[Any, ...]
TRANSLATION = "translation"
"""A column of mappings from language to text, whose parts go by `translation.en`."""


class Table(Protocol):
    """A file, or what else holds rows."""

    name: str
    """What errors call it."""
    unit: str
    """What rows are counted by: `line` or `row`, from 1."""
    note: str
    """What was decided while reading; nothing mostly."""

    def columns(self) -> list[str]:
        """Names that cells can be asked for by."""

    def rows(self, names: Sequence[str]) -> Iterator[tuple[int, Cells]]:
        """Line or row number and the cells of these columns, for every row; None where a row has no such cell."""


def cell_of(row: Mapping[str, Any], name: str) -> Any:
    """A row's cell by column, `translation.en` one language of a translation; None where it has none."""
    if name not in row and name.startswith(f"{TRANSLATION}."):
        languages = row.get(TRANSLATION)
        return languages.get(name.partition(".")[2]) if isinstance(languages, dict) else None
    return row.get(name)
