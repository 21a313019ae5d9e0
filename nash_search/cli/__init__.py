"""The command line: one entry, one error line, one exit code.

    0 ok · 1 a bug of ours · 2 invalid input · 3 no budget is met · 4 locked
    5 storage damaged, or trials or what follows them failed · 130 SIGINT · 143 SIGTERM

People read stderr; stdout carries nothing but the answer asked for (with `--json`, one document as its
last line). The commands live in the modules beside this one, a few lines each, and
import torch, Ray and transformers only once their input has been checked.
"""

from __future__ import annotations

import difflib
import errno
import os
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from nash_search.cli import finetune, latency, search, studies
from nash_search.cli.flags import EVERYTHING, LIMITS, ConfigFile, configured
from nash_search.errors import NashSearchError
from nash_search.storage import log

UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # click's own, wherever typer keeps it
LONGEST = 300


class Commands(TyperGroup):
    """Commands whose interruption keeps its signal: typer answers every one with 130 and says nothing."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an interruption is told and becomes its exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            code = int(getattr(error, "exit_code", 128 + signal.SIGINT))  # a search's own knows its signal
            return complain("interrupted: run the same command again to go on", code)


app = typer.Typer(
    name="nash-search",
    cls=Commands,
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Name a latency budget, get the best version of your encoder-decoder model that measurably meets it.",
)

app.callback(invoke_without_command=True)(configured(EVERYTHING)(search.main_job))
app.command("probe")(configured(latency.PROBE)(latency.probe))
app.command("measure")(configured(latency.MEASURE)(latency.measure))
app.command("remeasure")(latency.remeasure)
app.command("finetune")(configured(finetune.FLAGS)(finetune.finetune))
app.command("init")(finetune.init)
app.command("resume")(studies.resume)
app.command("recover")(studies.recover)
app.command("report")(studies.report)
app.command("pick")(configured(LIMITS)(studies.pick))
app.command("dashboard")(studies.dashboard)

__all__ = ["ConfigFile", "app", "main"]


def one_line(text: str) -> str:
    """A message as one printable line of at most 300 characters."""
    flat = " ".join(text.split())
    clean = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in flat)
    return clean if len(clean) <= LONGEST else clean[: LONGEST - 1] + "…"


def usage(error: Exception) -> str:
    """A parser's complaint in our words, with the nearest command or flag."""
    kind = type(error).__name__
    complete = getattr(error, "format_message", None)  # a missing argument has no message of its own
    message = str(complete() if complete else error).rstrip(".")
    if kind == "NoSuchOption":
        name = getattr(error, "option_name", "")
        near = getattr(error, "possibilities", None) or []
        return f"flag must be a known one, but got {name!r}" + (f": did you mean {sorted(near)[0]}?" if near else "")
    if message.startswith("No such command"):
        name = message.split("'")[1] if "'" in message else message
        near = difflib.get_close_matches(name, [c.name or "" for c in app.registered_commands], 1)
        known = ", ".join(sorted(c.name or "" for c in app.registered_commands))
        return f"command must be a known one, but got {name!r}: " + (
            f"did you mean {near[0]}?" if near else f"try {known}"
        )
    return message[:1].lower() + message[1:]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; what a console script returns to the shell."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [word for word in given if word != "--debug"]
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # no child process imports a `queue.py` of the user's folder
    try:
        typed = shlex.join(["nash-search", *given])
        with warnings.catch_warnings():
            warnings.showwarning = log.show
            code = app(args=given, prog_name="nash-search", standalone_mode=False, obj=typed)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except UsageError as error:
        return complain(usage(error), 2)
    except NashSearchError as error:
        if debug:
            traceback.print_exc()
        return complain(str(error), error.exit_code)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        return complain("interrupted: run the same command again to go on", 128 + signal.SIGINT)
    except BrokenPipeError:  # the reader of our stdout has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return complain(f"the disk must have room, but {error}: make some and run the same command again", 5)
        return complain(f"{type(error).__name__}: {error}: run again with --debug to see where", 1)


def complain(message: str, code: int) -> int:
    """The one line on stderr."""
    print(one_line(f"nash-search: error: {message}"), file=sys.stderr)
    return code
