"""Flags made of fields: every plain field of `SearchConfig`, its task, workload and teacher recipe is a flag.

The flag's name, its metavar and how its text is read follow from the field's name and type, its help is the
field's docstring: a new knob is one field. The command line says something else only in `METAVARS`.

    field            flag                  on the command line
    batch_size       --batch-size N
    serial: bool     --serial/--no-serial
    max_drop_pct     --max-drop PERCENT    2% or 2
    trial_timeout_s  --trial-timeout TIME  90s, 15m, 2h
    task.name        --task NAME

Values stay strings until `config_loader` checks them, so a flag and a file are refused in the same words.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from nash_search.config import AnswerLimits
from nash_search.config_loader import fields_at, flag_of, seconds
from nash_search.errors import InvalidInput, shown


def percent(asked: str, where: str) -> float:
    """`2%` or `2` as 2.0; `where` is the flag, for the error."""
    try:
        return float(asked.strip().removesuffix("%"))
    except ValueError:
        raise InvalidInput(f"percentage must be like 2%, but got {shown(asked)}", where=where) from None


UNITS: dict[str, tuple[str, Callable[[str, str], float]]] = {"s": ("TIME", seconds), "pct": ("PERCENT", percent)}
"""By the last part of a field's name, the unit: its metavar, and what reads the text."""
METAVARS = {
    "budgets": "MS|SHARE",
    "model": "PATH|HUB-ID",
    "revision": "REF",
    "ray_address": "ADDRESS",
    "task.data": "PATH|HUB-ID",
    "task.prefix": "TEXT",
    "workload.device": "auto|cpu|cuda[:N]",
    "workload.traffic": "data|fixed|FILE",
    "workload.percentile": "P",
}
"""Where it is neither a number, a choice nor a name."""


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One flag of the command line and the dotted field of `SearchConfig` it sets."""

    field: str
    kind: Any
    """What typer gives: text, a list of texts (repeatable), or a bool (a switch with its negation)."""
    help: str
    metavar: str | None = None
    read: Callable[[str, str], Any] | None = None
    """Turns the text into the field's value; it is also told the flag, for errors."""

    @property
    def parameter(self) -> inspect.Parameter:
        """How typer sees it."""
        name = flag_of(self.field)
        option = typer.Option(
            f"{name}/--no-{name[2:]}" if self.kind is bool else name,
            help=self.help,
            metavar=self.metavar,
        )
        return inspect.Parameter(
            self.field.replace(".", "__"),
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[self.kind | None, option],
        )

    def value(self, given: Any) -> Any:
        """What was given on the command line, as `config_loader` takes it."""
        return self.read(given, flag_of(self.field)) if self.read else given


def flag_for(path: str, field: FieldInfo) -> Flag | None:
    """The flag of a field at a dotted path; None where the field is no plain value, or secret (`repr=False`).

    A process's command line is seen by everyone on the machine, so nothing secret is a flag.
    """
    optional = get_origin(field.annotation) in (Union, UnionType)
    kinds = [k for k in (get_args(field.annotation) if optional else (field.annotation,)) if k is not type(None)]
    kind, choices = kinds[0], get_origin(kinds[0]) is Literal
    many = get_origin(kind) is tuple
    section = kind is dict or get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, BaseModel))
    if section or not field.repr:
        return None
    metavar, read = UNITS.get(path.rpartition("_")[2], ("N" if kind is int else "X" if kind is float else "NAME", None))
    if choices:
        metavar = "|".join(get_args(kind))
    return Flag(
        field=path,
        kind=list[str] if many else bool if kind is bool else str,
        help=inspect.cleandoc(field.description or ""),
        metavar=None if kind is bool else METAVARS.get(path, metavar),
        read=read,
    )


def flags_of(section: str = "") -> tuple[Flag, ...]:
    """The flags of a section of `SearchConfig` ("" for its own fields), in the order of the fields."""
    prefix = section + "." if section else ""
    fields = fields_at([section] if section else [])
    return tuple(flag for name, field in fields.items() if (flag := flag_for(prefix + name, field)) is not None)


def named(flags: tuple[Flag, ...], *fields: str) -> tuple[Flag, ...]:
    """Of these flags those that set these fields."""
    return tuple(flag for flag in flags if flag.field in fields)


TASK = flags_of("task")
WORKLOAD = flags_of("workload")
MODEL = named(flags_of(), "model", "revision", "trim_vocab")
BUDGETS = named(flags_of(), "budgets")
ENGINES = named(flags_of(), "engines")
LIMITS = named(flags_of(), *AnswerLimits.model_fields)
SEARCH = (*BUDGETS, *(flag for flag in flags_of() if flag not in (*BUDGETS, *MODEL)))
EVERYTHING = (*SEARCH, *MODEL, *TASK, *WORKLOAD)

ConfigFile = Annotated[
    str,
    typer.Option("--config", "-c", metavar="NAME|FILE", help="Search space by name or file; auto: own or g2p."),
]


def configured(flags: tuple[Flag, ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command these flags; it receives what was given as `overrides` (dotted field to value)."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = inspect.signature(command, eval_str=True)

        def run(**given: Any) -> Any:
            asked = {flag: given.pop(flag.parameter.name) for flag in flags}
            overrides = {flag.field: flag.value(value) for flag, value in asked.items() if value not in (None, [])}
            return command(**given, overrides=overrides)

        kept = [
            p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, p in own.parameters.items() if name != "overrides"
        ]
        run.__signature__ = inspect.Signature([*kept, *(flag.parameter for flag in flags)])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in run.__signature__.parameters.values()}  # type: ignore[attr-defined]
        run.__doc__ = command.__doc__
        run.__name__ = command.__name__
        return run

    return decorate
