"""From a search space file and flags to a frozen `SearchConfig`, or one line that says what to change.

Flags override what the file says and are checked by the same rules under their own names: types
strictly (a string is not a number, `true` is not 1), except that a quoted `1e-3` is the number the
user means. Nothing here needs torch, so that a typing error is told within half a second; what only a model can
refute is checked when it is loaded.
"""

from __future__ import annotations

import difflib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from nash_search.budget import as_percentile
from nash_search.config import RETIRED, LatencyBudget, SearchConfig
from nash_search.errors import InvalidInput, NashSearchWarning, shown, shown_path
from nash_search.plain_yaml import read_mapping

FLAGS = {"budgets": "--budget-ms", "task.name": "--task"}
"""Flags whose name is not their field's."""
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_WHOLE = re.compile(r"[-+]?\d{1,18}")
_DURATION = re.compile(r"(?P<number>\d+(\.\d*)?|\.\d+)\s*(?P<unit>s|m|min|h)?")
_UNIT_S = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600}


def search_spaces() -> dict[str, Path]:
    """The search spaces that ship, by name."""
    packaged = Path(str(resources.files("nash_search"))) / "search_spaces"
    # in a checkout the files lie beside the package, and travel into it when a wheel is built
    folder = packaged if packaged.is_dir() else packaged.parent.parent / "search_spaces"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_search_space(name: str) -> Path:
    """The file of a search space: a shipped one by its name, any other by its path."""
    shipped = search_spaces()
    if name in shipped:
        return shipped[name]
    if name.endswith((".yaml", ".yml")) or "/" in name or "\0" in name:
        return Path(name)
    nearest = difflib.get_close_matches(name, shipped, 1)
    fix = f"did you mean {nearest[0]}?" if nearest else f"shipped are {', '.join(shipped)}; a file ends in .yaml"
    raise InvalidInput(
        f"search space must be a shipped name or a file, but got {shown(name)}", where="--config", fix=fix
    )


def load_config(search_space: str | Path | None = "auto", overrides: Mapping[str, Any] | None = None) -> SearchConfig:
    """The whole question: a search space (name or path) with flags on top.

    Args:
        search_space: what `find_search_space` takes; "auto": `own` for the user's own data, else `g2p`;
            None for the defaults alone.
        overrides: dotted field ("workload.batch_size") to value; None values say nothing.

    Raises:
        InvalidInput: one line naming the field as the user wrote it, and the file or flag.
    """
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    if search_space == "auto":
        search_space = "own" if "task.data" in given else "g2p"
    path = None if search_space is None else find_search_space(str(search_space))
    fields = {} if path is None else read_mapping(path)
    for name in sorted(RETIRED.keys() & fields.keys()):
        what = f"{name} is no longer a setting and is ignored, for {RETIRED[name]}"
        warnings.warn(f"{what} ({name} in {shown_path(path or Path())})", NashSearchWarning, stacklevel=2)
        del fields[name]
    if path is not None and "task.data" in given and "task.name" not in given and not _names_task(fields):
        given["task.name"] = _name_of(str(given["task.data"]))
    if fields.get("recipe") == "auto":
        fields["recipe"] = {"calibrate": True}
    for name, value in given.items():
        _put(fields, name.split("."), value)
    if fields.get("format") == "stock":  # nothing else can be said by a stock config
        _put(fields, ["recipe", "widths"], "uniform")
    _parse_budgets(fields, flagged="budgets" in given, path=path)
    return _validated(fields, flags=set(given), path=path)


def _names_task(fields: Mapping[str, Any]) -> bool:
    task = fields.get("task")
    return isinstance(task, Mapping) and "name" in task


def flag_of(field: str) -> str:
    """The flag that sets a dotted field, e.g. `--batch-size` for `workload.batch_size`.

    A flag's name is the field's without its unit, which is typed with the value (90s, 2%).
    """
    name = field.rpartition(".")[2].removesuffix("_s").removesuffix("_pct")
    return FLAGS.get(field, "--" + name.replace("_", "-"))


def seconds(asked: str | float, where: str = "") -> float:
    """A duration as a flag takes it: `90`, `90s`, `15m`, `2h`; `where` is the flag, for the error.

    Raises:
        InvalidInput: when it is none of these, or not greater than 0.
    """
    match = _DURATION.fullmatch(str(asked).strip())
    found = float(match["number"]) * _UNIT_S[match["unit"]] if match else 0.0
    if not 0 < found < 1e9:
        raise InvalidInput(
            f"duration must be more than 0, like 90s, 15m or 2h, but got {shown(str(asked))}", where=where
        )
    return found


def _name_of(data: str) -> str:
    """What a task over own data goes by: the file's, folder's or dataset's name."""
    stem = Path(data).name.partition(".")[0] or Path(data).resolve().name
    return re.sub(r"[^A-Za-z0-9_-]", "-", stem)[:40].lstrip("-_") or "own"


def _put(fields: Any, path: Sequence[str | int], value: Any) -> None:
    """Set a value at a path of keys and list indices; a mapping on the way is made where there is none."""
    for part, next_part in pairwise(path):
        if isinstance(next_part, str) and not (part in fields and isinstance(fields[part], dict)):
            fields[part] = {}
        fields = fields[part]
    fields[path[-1]] = value


def _parse_budgets(fields: dict[str, Any], *, flagged: bool, path: Path | None) -> None:
    if "budgets" not in fields:
        return
    where = "--budget-ms" if flagged or path is None else f"budgets in {shown_path(path)}"
    asked = fields["budgets"]
    if isinstance(asked, bool) or not isinstance(asked, list | tuple):
        raise InvalidInput(f"budgets must be a list like [70%, 40], but got {shown(asked)}", where=where)
    default = _default_percentile(fields)
    parsed = []
    for budget in asked:
        if isinstance(budget, bool) or not isinstance(budget, str | int | float):
            raise InvalidInput(f"budget must be like 40 or 50%, but got {shown(budget)}", where=where)
        try:
            parsed.append(LatencyBudget.parse(budget, default).model_dump())
        except ValueError as error:
            raise InvalidInput(str(error), where=where) from None
    fields["budgets"] = parsed


def _default_percentile(fields: Mapping[str, Any]) -> float | None:
    """Percentile of budgets that name none; None if unset, or invalid, which `_validated` reports."""
    workload = fields.get("workload")
    asked = workload.get("percentile") if isinstance(workload, Mapping) else None
    try:
        return None if asked is None else as_percentile(asked)
    except ValueError:
        return None


def _validated(fields: dict[str, Any], *, flags: set[str], path: Path | None) -> SearchConfig:
    for _ in range(2):
        try:
            # strict: a string is not a number and True is not 1; JSON mode lets a list be a tuple
            return SearchConfig.model_validate_json(json.dumps(fields), strict=True)
        except ValidationError as error:
            found = error.errors(include_url=False)
        if not _texts_read_as_numbers(fields, found, flags):
            break
    first = found[0]
    names = [str(part) for part in first["loc"]]
    named = [part for part in names if not part.isdigit()] or ["search space"]
    field, name = ".".join(named), named[-1]
    flag = next((f for f in flags if f == field or field.startswith(f + ".")), None)
    where = (
        flag_of(flag)
        if flag is not None
        else f"{shown('.'.join(names))[1:-1]} in {shown_path(path)}"
        if path
        else field
    )
    fix = ""
    if first["type"] == "extra_forbidden":
        known = list(fields_at(names[:-1]))
        nearest = difflib.get_close_matches(names[-1], known, 1, 0.5)
        fix = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(known[:12])}, …"
    what = _rule(first, name) + (f"; {len(found) - 1} more" if len(found) > 1 else "")
    raise InvalidInput(what, where=where, fix=fix)


def _texts_read_as_numbers(fields: dict[str, Any], errors: list[Any], flags: set[str]) -> bool:
    """Read texts where a number is due: every flag, and a quoted 1e-3 of a file; True when any was."""
    changed = False
    for error in errors:
        value, names = error["input"], error["loc"]
        flagged = ".".join(str(name) for name in names if not isinstance(name, int)) in flags
        read: Any = None
        if isinstance(value, str) and error["type"] == "float_type" and _NUMBER.fullmatch(value):
            read = float(value)
        elif isinstance(value, str) and flagged and error["type"] == "int_type" and _WHOLE.fullmatch(value):
            read = int(value)
        if read is not None:
            _put(fields, names, read)
            changed = True
    return changed


def _rule(error: Any, name: str) -> str:
    """One pydantic error as "rule, but got value"."""
    kind, context, got = error["type"], error.get("ctx", {}), shown(error["input"])
    rules = {
        "greater_than_equal": "at least {ge}",
        "greater_than": "greater than {gt}",
        "less_than_equal": "at most {le}",
        "less_than": "less than {lt}",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "finite_number": "a finite number",
        "bool_type": "true or false",
        "string_type": "text",
        "literal_error": "{expected}",
        "tuple_type": "a list",
        "list_type": "a list",
        "dict_type": "a mapping",
        "model_type": "a mapping",
        "model_attributes_type": "a mapping",
        "missing": "given",
    }
    if kind == "extra_forbidden":
        return f"key must be a known one, but got {shown(name)}"
    if kind == "value_error":
        return str(context.get("error", error["msg"]))
    if kind == "too_long" or (kind == "missing" and isinstance(error["input"], list)):
        return f"{name} must have {'fewer' if kind == 'too_long' else 'more'} values, but got {got}"
    if kind in rules:
        rule = rules[kind].format(**context) + (", or auto" if error["loc"] == ("recipe",) else "")
        return f"{name} must be {rule}, but got {got}"
    return f"{name}: {error['msg']}, but got {got}"


def fields_at(names: list[str]) -> dict[str, FieldInfo]:
    """The fields known at a place of `SearchConfig`, e.g. at ["task"], by name."""
    model: type[BaseModel] = SearchConfig
    for name in names:
        if name not in model.model_fields:
            continue
        annotation = model.model_fields[name].annotation
        for inner in (annotation, *get_args(annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                model = inner
    return model.model_fields
