"""Which column is the source and which the target: the named ones, or a guess by usual names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from nash_search.config import TaskConfig
from nash_search.errors import InvalidInput, shown

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
    ("prompt", "completion"),
    ("file", "text"),
    ("file", "transcript"),
    ("file_name", "transcription"),
    ("audio", "text"),
    ("audio", "transcription"),
    ("audio", "sentence"),
    ("path", "sentence"),
)
"""Column names that are guessed, in any case, first match first; two languages come after them."""
_LANGUAGE = re.compile(r"(translation\.)?[A-Za-z]{2,3}([-_][A-Za-z]{2,4})?")


def choose_columns(names: Sequence[str], config: TaskConfig, where: str) -> tuple[str, str]:
    """The source and target column: the named ones, or a guess from `PAIRS`, or the only two languages in their order.

    `translation.en` names one language of a `translation` column.

    Raises:
        InvalidInput: when a named column is not there, or nothing can be guessed.
    """
    asked = []
    for flag, name in (("--source-column", config.source_column), ("--target-column", config.target_column)):
        found = name if name is None else same_column(name, names)
        if name is not None and found is None:
            nearest = difflib.get_close_matches(name, names, 1)
            what = f"{flag} must be one of {listed(names)}, but got {shown(name)}"
            raise InvalidInput(what, where=where, fix=f"did you mean {nearest[0]}?" if nearest else "")
        asked.append(found)
    for pair in (*PAIRS, *_languages(names)):
        chosen = [own or same_column(usual, names) for own, usual in zip(asked, pair, strict=True)]
        if chosen[0] is not None and chosen[1] is not None and chosen[0] != chosen[1]:
            return chosen[0], chosen[1]
    if asked[0] and asked[1]:
        what = f"--source-column and --target-column must differ, but got {config.source_column} twice"
        raise InvalidInput(what, where=where)
    what = f"columns must be guessable (source and target, document and summary, …), but got {listed(names)}"
    raise InvalidInput(what, where=where, fix="name them with --source-column and --target-column")


def same_column(name: str, names: Sequence[str]) -> str | None:
    """The column of this name, else the only one that differs in case alone; None where there is none."""
    if name in names:
        return name
    alike = [other for other in names if other.strip().casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 else None


def listed(names: Sequence[str]) -> str:
    """Column names as errors show them."""
    return shown(", ".join(names), 80).strip("'\"")


def _languages(names: Sequence[str]) -> list[tuple[str, str]]:
    """The parts of a translation column, or the only columns, where they are exactly two languages."""
    parts = [name for name in names if name.startswith("translation.")] or list(names)
    return [(parts[0], parts[1])] if len(parts) == 2 and all(map(_LANGUAGE.fullmatch, parts)) else []
