"""Requests as a traffic: the lengths of the user's own data, or of a file with one request a line, read as a stream.

    {"input_tokens": 31, "output_tokens": 12}      lengths, as a server's log has them
    {"source": "…", "target": "…"}                 texts, counted by the model's tokenizer (columns as in --data)

A million lines take as much memory as a few: what is kept is how often each pair of lengths occurs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nash_search.config import SearchConfig, TaskConfig, WorkloadRequest
from nash_search.errors import InvalidInput, shown, shown_path
from nash_search.tasks import models
from nash_search.tasks.columns import choose_columns
from nash_search.traffic import DATA, FIXED, Request, Traffic

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from nash_search.tasks.task import Task

LENGTHS = ("input_tokens", "output_tokens")
AT_ONCE = 1000
"""Texts that are counted together."""
LONGEST_LINE = 4 << 20
"""Characters of a line; a longer one is no request."""

Numbered = Iterator[tuple[int, dict[str, Any]]]
Tokenizer = Callable[[], "PreTrainedTokenizerBase"]


def of_task(task: Task, source: str) -> Traffic:
    """The train split, whose medians are the default of a call of fixed lengths."""
    written = task.train.labels.lengths - task.prompt_tokens
    pairs = zip(task.train.inputs.lengths.tolist(), written.tolist(), strict=True)
    return Traffic.counted(Counter(Request(max(1, read), max(1, written)) for read, written in pairs), source)


def of_search(config: SearchConfig, task: Task, model: Mapping[str, Any]) -> Traffic | None:
    """The requests that a search was asked for: of its data, or of a file; None where one call is timed.

    Args:
        config: what was asked.
        task: the data, and the tokenizer that counts texts.
        model: its config.json, which says how long a request may be.
    """
    if config.traffic == FIXED:
        return None
    if config.traffic == DATA:
        return of_task(task, f"train split of {config.task.data or config.task.name}")
    return of_file(Path(config.traffic), config.task, lambda: task.tokenizer, models.positions(model))


def of_file(path: Path, config: TaskConfig, tokenizer: Tokenizer, positions: tuple[int, int] | None) -> Traffic:
    """A JSONL file, one request a line.

    Args:
        path: the file.
        config: columns and prefix of texts.
        tokenizer: loads the model's, where lines are texts.
        positions: longest input and output that the model has positions for, tokens; None: any length.

    Raises:
        InvalidInput: with the line that breaks a rule.
    """
    name = shown_path(path)
    lines = _objects(path, name)
    first = next(lines, None)
    if first is None:
        raise InvalidInput("traffic must hold a request a line, but got an empty file", where=name)
    every = _chained(first, lines)
    if set(LENGTHS) & first[1].keys():
        found: Iterable[tuple[int, Request]] = ((line, _lengths(row, name, line)) for line, row in every)
    else:
        found = _counted(every, config, tokenizer(), name)
    counts: Counter[Request] = Counter()
    limits = _limits(positions)
    for line, request in found:
        for field, tokens, (limit, whose) in zip(LENGTHS, request, limits, strict=True):
            if not 1 <= tokens <= limit:
                what = f"{field} must be from 1 to {limit}{whose}, but got {tokens}"
                raise InvalidInput(what, where=f"{name}, line {line}")
        counts[request] += 1
    return Traffic.counted(counts, name)


def _limits(positions: tuple[int, int] | None) -> list[tuple[int, str]]:
    """Per length, the most that can be timed, and whose limit that is."""
    if positions is not None:
        return [(limit, " (the model's positions)") for limit in positions]
    bounds = (WorkloadRequest.model_fields[name].metadata for name in LENGTHS)
    return [(next(rule.le for rule in rules if hasattr(rule, "le")), "") for rules in bounds]


def _objects(path: Path, name: str) -> Numbered:
    """Line number and JSON object of every line that is not blank."""
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LONGEST_LINE):
                number += 1
                if not line.strip():
                    continue
                try:
                    row = json.loads(line) if len(line) < LONGEST_LINE else None
                except (ValueError, RecursionError):
                    row = None
                if not isinstance(row, dict):
                    what = (
                        f"traffic must be one JSON object a line, but got {shown(line[:60].decode(errors='replace'))}"
                    )
                    raise InvalidInput(what, where=f"{name}, line {number}")
                yield number, row
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(f"traffic must be data, fixed or a JSONL file, but got {reason}", where=name) from None


def _chained(first: tuple[int, dict[str, Any]], rest: Numbered) -> Numbered:
    yield first
    yield from rest


def _lengths(row: dict[str, Any], name: str, line: int) -> Request:
    values = [row.get(field) for field in LENGTHS]
    for field, value in zip(LENGTHS, values, strict=True):
        if isinstance(value, bool) or not isinstance(value, int):
            what = f"{field} must be a whole number, but got {shown(value) if field in row else 'none'}"
            raise InvalidInput(what, where=f"{name}, line {line}")
    return Request(*values)  # type: ignore[arg-type]


def _counted(
    rows: Numbered, config: TaskConfig, tokenizer: PreTrainedTokenizerBase, name: str
) -> Iterator[tuple[int, Request]]:
    """Tokens of texts, with the prefix and the end token, as the model reads and writes them."""
    from nash_search.tasks.task import encode  # brings torch, which lengths do not need

    columns: tuple[str, str] | None = None
    while batch := list(islice(rows, AT_ONCE)):
        columns = columns or choose_columns(list(batch[0][1]), config, name)
        for line, row in batch:
            for column in columns:
                if not isinstance(row.get(column), str):
                    what = f"{column} must be text, but got {shown(row.get(column))}"
                    raise InvalidInput(what, where=f"{name}, line {line}")
        read = encode(tokenizer, [config.prefix + row[columns[0]] for _, row in batch], config.max_input_tokens)
        written = encode(tokenizer, [row[columns[1]] for _, row in batch], None, as_target=True)
        for (line, _), *lengths in zip(batch, read.lengths.tolist(), written.lengths.tolist(), strict=True):
            yield line, Request(*lengths)
