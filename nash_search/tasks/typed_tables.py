"""Readers of typed formats, through `datasets`: Parquet, saved datasets, and (`rows.py`) the hub."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nash_search.errors import InvalidInput, message_of, shown, shown_path
from nash_search.tasks.tables import TRANSLATION, Cells, cell_of

ROW_BATCH = 1000


class Typed:
    """A `datasets.Dataset`: a hub split, Parquet, or what was saved to disk."""

    unit, note = "row", ""

    def __init__(self, name: str, opened: Callable[[Sequence[str] | None], Any]) -> None:
        """`opened` gives the dataset with these columns (None: only its features are asked for)."""
        self.name, self._opened = name, opened

    def columns(self) -> list[str]:
        """Columns, and the languages of a translation."""
        features = self._opened(None)
        feature = features.get(TRANSLATION)
        languages = getattr(feature, "languages", None) or (feature if isinstance(feature, dict) else None) or ()
        return [*features, *(f"{TRANSLATION}.{language}" for language in languages)]

    def rows(self, names: Sequence[str]) -> Iterator[tuple[int, Cells]]:
        """Cells, in batches from disk."""
        own = self._opened(None)
        needed = list(dict.fromkeys(name if name in own else TRANSLATION for name in names))
        numbers = itertools.count(1)
        for batch in _undecoded(self._opened(needed).select_columns(needed)).iter(ROW_BATCH):
            for cells in zip(*(batch[name] for name in needed), strict=True):
                row = dict(zip(needed, cells, strict=True))
                yield next(numbers), tuple(cell_of(row, name) for name in names)


def _undecoded(rows: Any) -> Any:
    """Recordings as the bytes and paths that they are, for `clips` to decode."""
    import datasets

    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Audio):
            rows = rows.cast_column(name, datasets.Audio(decode=False))
    return rows


def parquet(file: Path) -> Typed:
    """A Parquet file, read by `datasets`, the columns asked for only."""

    def opened(names: Sequence[str] | None) -> Any:
        import datasets

        with _refused(file), _plain_name(file, "rows.parquet") as (plain, cache):
            if names is None:
                import pyarrow.parquet

                return datasets.Features.from_arrow_schema(pyarrow.parquet.read_schema(plain))
            found = {"data_files": {"rows": [str(plain)]}, "split": "rows", "columns": list(names)}
            return datasets.load_dataset("parquet", cache_dir=str(cache), keep_in_memory=True, **found)

    return Typed(shown_path(file), opened)


def saved(folder: Path) -> Typed:
    """A folder written by `Dataset.save_to_disk`."""

    def opened(names: Sequence[str] | None) -> Any:
        import datasets

        with _refused(folder), _plain_name(folder, "saved") as (plain, _):
            found = datasets.load_from_disk(str(plain), keep_in_memory=names is not None)
            return found.features if names is None else found

    return Typed(shown_path(folder), opened)


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """What `datasets` cannot read is the user's to mend; its progress bars stay out of the terminal."""
    import datasets

    progress = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    except Exception as error:
        raise InvalidInput(
            f"data must be readable, but got {shown(root_cause(error), 120)}", where=shown_path(path)
        ) from None
    finally:
        if progress:
            datasets.enable_progress_bars()


@contextmanager
def _plain_name(path: Path, name: str) -> Iterator[tuple[Path, Path]]:
    """The same under a name that `datasets` takes neither for a pattern nor for an address; and a folder to use."""
    with tempfile.TemporaryDirectory(prefix="nash-search-") as folder:
        link = Path(folder) / name
        link.symlink_to(path.resolve())
        yield link, Path(folder)


def root_cause(error: BaseException) -> str:
    """The innermost cause, one line."""
    while error.__cause__ is not None or (error.__context__ is not None and not error.__suppress_context__):
        error = error.__cause__ or error.__context__ or error
    if isinstance(error, StopIteration) or not str(error).strip() or "corresponds to no data" in str(error):
        return "no rows"
    return message_of(error, 120)
