"""The main job: `nash-search --budget-ms …`, watched in the terminal and drawn when it ends."""

from __future__ import annotations

import json
import os
import sys
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nash_search.cli.flags import ConfigFile
from nash_search.config import Profile, SearchConfig
from nash_search.config_loader import load_config
from nash_search.errors import InvalidInput
from nash_search.tasks.preflight import check, check_folder

if TYPE_CHECKING:
    from nash_search.summaries import Summary

Results = Annotated[Path, typer.Option("--results", metavar="DIR", help="Folder of studies.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document as the last line of stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but the answer asked for.")]


# 9 parameters: each is a flag of its own.
def main_job(
    context: typer.Context,
    config: ConfigFile = "auto",
    results: Results = Path("results"),
    json_: Json = False,
    quiet: Quiet = False,
    profile: Annotated[
        Profile,
        typer.Option("--profile", help="Half, once or three times the trials and steps of the search space."),
    ] = "balanced",
    fork: Annotated[bool, typer.Option("--fork", help="Start a new study from one whose question differs.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    *,
    overrides: dict[str, Any],
) -> int:
    """Name a latency budget, get the best version of your encoder-decoder model that measurably meets it.

    Without a command, search: nash-search --budget-ms 70% --budget-ms 50%
    """
    if context.invoked_subcommand is not None:
        if overrides or any(typed_here(context, name) for name in context.params):
            raise InvalidInput(f"flags must come after the command, but got some before {context.invoked_subcommand}")
        return 0
    if version:
        from importlib.metadata import version as version_of

        print(version_of("nash-search"))
        return 0
    asked = load_config(config, overrides).profiled(profile, keep_trials="trials" in overrides)
    if not asked.budgets:
        raise InvalidInput(
            "budget must be given at least once, but got none", where="--budget-ms", fix="try --budget-ms 50%"
        )
    check_folder(results, "results", "--results")
    check(asked)
    asked = asked.model_copy(update={"storage": storage(asked.storage)})
    return run_search(asked, results, as_json=json_, quiet=quiet, fork=fork, typed=context.obj or "")


def typed_here(context: typer.Context, parameter: str) -> bool:
    """Was the parameter named on the command line?"""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


def aloud(notes: tuple[str, ...], quiet: bool) -> None:
    """What was decided about the data and the model, one line each on stderr."""
    for note in () if quiet else notes:
        print(note if note.startswith("model: ") else f"data: {note}", file=sys.stderr)


def storage(asked: str | None = None) -> str | None:
    """The storage URL of the environment, else the one asked for, checked; a password in it is never repeated."""
    url = os.environ.get("NASH_SEARCH_STORAGE") or asked
    if url:
        from nash_search.storage.database import check as check_url

        check_url(url)
    return url or None


class Opening:
    """A listener of the first stage, when model and data have proved good and the study has a folder, and of the last
    one where certification fails."""

    def __init__(self, results: Path, typed: str, *, quiet: bool) -> None:
        """`typed` is the command, kept with the study."""
        self._results, self._typed, self._quiet = results, typed, quiet
        self.unfinished: Summary | None = None
        """What was known when certification failed."""

    def on_stage(self, stage: str, detail: Any) -> None:
        """Say what was decided about the data, keep the command, begin the log; keep an unfinished answer."""
        if stage == "workload":
            from nash_search.storage import log, provenance

            aloud(detail["notes"], self._quiet)
            log.to_file(self._results / detail["study"])
            provenance.remember(self._results / detail["study"], self._typed)
        elif stage == "unfinished":
            from nash_search.summaries import Summary

            self.unfinished = Summary.model_validate(detail)

    def on_trial(self, record: Any, state: Any) -> None:
        """Nothing to say."""

    def on_progress(self, number: int, stage: str, step: int, steps: int, loss: float) -> None:
        """Nothing to say."""


def run_search(
    config: SearchConfig,
    results: Path,
    *,
    as_json: bool,
    quiet: bool,
    fork: bool = False,
    typed: str = "",
) -> int:
    """Search, keep the pictures current, tell the answer; the exit code is the search's."""
    from nash_search.cli import live_report
    from nash_search.report.console import RunTable
    from nash_search.search import search

    with ExitStack() as open_:
        live = () if quiet else (open_.enter_context(live_report.LiveDashboard(config, results)),)
        table = open_.enter_context(RunTable(quiet=quiet, dashboard_url=live[0].url if live else None))
        open_.enter_context(quiet_libraries())
        plots = live_report.study_plots(config, results)
        said = Opening(results, typed, quiet=quiet)
        try:
            result = search(config, results=results, listeners=(said, table, plots, *live), fork=fork)
        except Exception:
            if as_json and said.unfinished is not None:
                print(json.dumps(said.unfinished.public() | {"unfinished": said.unfinished.unfinished}))
            raise
        if result.front:
            table.finish(*live_report.finish(result.folder, config, plots, result.answers))
    if as_json:
        print(json.dumps(result.document))
    if result.exit_code == 3:
        print(f"nash-search: {nothing_met(result.summary)}", file=sys.stderr)
    return result.exit_code


def nothing_met(summary: Summary) -> str:
    """One line: no budget is met, the floor, and what to ask for instead."""
    from nash_search.report.engines import instead
    from nash_search.report.words import shut_out_words, unmet_words

    assert summary.dense is not None
    first, asked = summary.budgets[0], [b.asked for b in summary.budgets]
    sure = "is certain to meet" if any(b.verdict == "ambiguous" for b in summary.budgets) else "meets"
    words = f"{unmet_words(summary.budgets)} {sure} {', '.join(asked)}"
    words += f" (the floor is {first.floor_ms:.4g} ms, the dense model {summary.dense.latency_ms:.4g} ms)"
    words += instead(summary.engines)
    shut = (shut_out_words(b.asked, b.shut_out_quality, summary.dense.validation_quality) for b in summary.budgets)
    words += "".join(f"; {each}" for each in shut if each)
    nearest = first.nearest_feasible
    return words + (f": try --budget-ms {nearest}" if nearest and nearest not in asked else "")


def quiet_libraries() -> AbstractContextManager[None]:
    """Third parties' progress bars and warnings stay out of the terminal."""
    from nash_search.storage import log

    return log.hushed()
