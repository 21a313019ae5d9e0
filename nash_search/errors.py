"""What can go wrong for a user, and the exit code each answer has.

Every message is one line, `<what> (<where>): <fix>`, where <what> reads "rule, but got value" in
the user's own field name. Any room raises them; `cli` prints the line and ends with the code.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


class NashSearchError(Exception):
    """An answer the user can act on; `exit_code` is what the command line returns."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what + (f" ({where})" if where else "") + (f": {fix}" if fix else ""))


class InvalidInput(NashSearchError, ValueError):
    """What was asked cannot be asked: a flag, a file, a model or data that break a rule."""

    exit_code = 2


class Locked(NashSearchError):
    """A live process holds the study or the device; the message names the holder."""

    exit_code = 4


class StorageDamaged(NashSearchError):
    """The study's database or the disk is not usable; nothing was lost by refusing."""

    exit_code = 5


class Unfinished(NashSearchError):
    """Every trial failed, or what follows the trials did, for want of memory, disk or time; `resume` goes on."""

    exit_code = 5


class NashSearchWarning(UserWarning):
    """Something the user should know that stops nothing; the command line shows it as one stderr line."""


def shown(value: object, limit: int = 60) -> str:
    """A value as an error quotes it: `repr`, so control characters are escaped, and cut short."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def shown_path(path: Path | str) -> str:
    """A path as an error names it: control characters escaped, cut short."""
    return shown(str(path), 120).strip("'\"")


def typed_study(folder: Path) -> str:
    """A study as a command names it: by its name where that finds it, else by its folder, quoted for a shell."""
    found = folder.absolute().parent == Path("results").absolute()  # where commands look
    return shlex.quote(folder.name if found else str(folder))


def message_of(error: BaseException, limit: int = 100) -> str:
    """What an error says, in one line of at most so many characters; its class where it says nothing."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


def either(names: Sequence[str]) -> str:
    """Alternatives as a sentence lists them: `CSV, TSV or Parquet`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
