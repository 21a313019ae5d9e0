"""YAML as plain data: one mapping of YAML 1.2's core types, or one line that says what is wrong.

No tags, no aliases, no duplicate keys, one document, at most 1 MiB; `no`, `010`, `12:30` and `2026-01-01` stay the
text they look like, and `1e-3` is a number. PyYAML parses; what stands here is the choice of types (its own are YAML
1.1's, where `no` is false and `1e-3` a text) and the refusals in the user's words, which no loader has.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from nash_search.errors import InvalidInput, shown, shown_path

MAX_BYTES = 1 << 20
"""Largest file that is read."""


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping a YAML file holds, as plain JSON types.

    Raises:
        InvalidInput: when it cannot be read, or is not one mapping of plain values.
    """
    where = shown_path(path)
    if "\0" not in str(path) and path.exists() and not (path.is_file() or path.is_dir()):
        raise InvalidInput("file must be a regular file, but got a device or pipe", where=where)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InvalidInput("file must exist, but got none", where=where, fix="check the path") from None
    except IsADirectoryError:
        raise InvalidInput("path must name a file, but got a folder", where=where, fix="name the file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(f"file must be readable, but got {reason}", where=where) from None
    if len(content) > MAX_BYTES:
        raise InvalidInput("file must be at most 1 MiB, but got more", where=where)
    try:
        found = yaml.load(content.decode("utf-8-sig"), Loader=_PlainLoader)  # noqa: S506 (a SafeLoader)
    except UnicodeDecodeError:
        raise InvalidInput("file must be UTF-8 text, but got other bytes", where=where) from None
    except RecursionError:
        raise InvalidInput("file must be nested sensibly, but got too many levels", where=where) from None
    except yaml.YAMLError as error:
        raise InvalidInput(_yaml_problem(error), where=_yaml_place(error, where)) from None
    except ValueError:  # the one left: more digits than Python turns into an int
        raise InvalidInput("file must hold plain values, but got a number too long", where=where) from None
    if found is None:
        raise InvalidInput("file must hold a mapping, but got an empty file", where=where)
    if not isinstance(found, dict):
        raise InvalidInput(f"file must hold a mapping, but got a {_kind(found)}", where=where)
    return found


class _Refused(yaml.MarkedYAMLError):
    """YAML, but more than plain data."""


class _PlainLoader(yaml.SafeLoader):
    """YAML 1.2 core types, without aliases, tags or duplicate keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()
            raise _Refused(None, None, "an alias (*name)", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        found: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                raise _Refused(None, None, "a key that is no plain name", key_node.start_mark)
            if key in found:
                problem = f"key {shown(key)} twice"
                raise _Refused(None, None, problem, key_node.start_mark)
            found[key] = self.construct_object(value_node, deep=True)
        return found

    def refuse_tag(self, node: yaml.Node) -> Any:
        raise _Refused(None, None, f"the tag {shown(node.tag)}", node.start_mark)


def _construct_map(loader: _PlainLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    return loader.construct_mapping(node)


_PlainLoader.yaml_constructors = {
    f"tag:yaml.org,2002:{name}": yaml.SafeLoader.yaml_constructors[f"tag:yaml.org,2002:{name}"]
    for name in ("null", "str", "seq", "bool")
}
_PlainLoader.add_constructor("tag:yaml.org,2002:map", _construct_map)
_PlainLoader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))
_PlainLoader.add_constructor("tag:yaml.org,2002:float", lambda _, node: float(node.value))
_PlainLoader.add_constructor(None, _PlainLoader.refuse_tag)
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_pattern})$"), _first)


def _yaml_problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        return "file must be text, but got control characters"
    problem = str(getattr(error, "problem", None) or "text that is not YAML")
    if not isinstance(error, _Refused):
        problem = f"a syntax error: {problem}"
    if "\\t" in problem:
        problem = "a tab (indent with spaces)"
    elif "expected a single document" in str(getattr(error, "context", "")):
        problem = "two documents"
    return f"file must be plain YAML, but got {problem}"


def _yaml_place(error: yaml.YAMLError, where: str) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"{where} line {mark.line + 1}" if mark is not None else where


def _kind(found: Any) -> str:
    return "list" if isinstance(found, list) else "single value"
