"""Commands over a study that exists: resume, recover, report, pick, dashboard."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nash_search.budget import MEDIAN
from nash_search.cli.search import Json, Quiet, Results, quiet_libraries, run_search, storage
from nash_search.config import LatencyBudget, SearchConfig
from nash_search.errors import InvalidInput, shown, typed_study

if TYPE_CHECKING:
    from nash_search.summaries import Summary
    from nash_search.summary_rows import BudgetRow

Study = Annotated[str, typer.Argument(metavar="STUDY", help="Name or folder of a study.")]


def folder_of(study: str, results: Path) -> Path:
    """The folder of a study given by name (below --results) or by path."""
    if not study or any(not c.isprintable() for c in study):
        raise InvalidInput(f"study must be a name or a folder, but got {shown(study)}")
    for folder in (results / study, Path(study)):
        if (folder / "config.json").is_file():
            return folder
    known = sorted(p.parent.name for p in results.glob("*/config.json"))
    fix = f"there are {', '.join(known[-5:])}" if known else "run nash-search --budget-ms 50% first"
    raise InvalidInput(f"study must exist, but got {shown(study)}", where=str(results), fix=fix)


def newest(results: Path) -> str:
    """Name of the study changed last."""
    found = sorted(results.glob("*/config.json"), key=lambda p: p.stat().st_mtime_ns)
    if not found:
        raise InvalidInput(f"results must hold a study, but got {results}", fix="run nash-search --budget-ms 50% first")
    return found[-1].parent.name


def stored_config(folder: Path) -> SearchConfig:
    """The question a study was made with."""
    try:
        config = SearchConfig.stored((folder / "config.json").read_text("utf-8"))
    except ValueError as error:
        raise InvalidInput(f"config.json must be a study's question, but got {folder}") from error
    return config.model_copy(update={"study": folder.name, "storage": storage()})


def resume(
    context: typer.Context,
    study: Study,
    budget: Annotated[
        list[str] | None,
        typer.Option("--budget-ms", metavar="MS|SHARE", help="Another budget, whose winner is trained at length too."),
    ] = None,
    results: Results = Path("results"),
    json_: Json = False,
    quiet: Quiet = False,
) -> int:
    """Go on with a study that was interrupted, or is asked another budget."""
    folder = folder_of(study, results)
    config = stored_config(folder)
    budgets = {b.bound: b for b in config.budgets}
    for more in (parsed(text, config) for text in budget or ()):
        budgets.setdefault(more.bound, more)
    config = config.model_copy(update={"budgets": tuple(budgets.values())})
    return run_search(config, folder.parent, as_json=json_, quiet=quiet, typed=context.obj or "")


def parsed(budget: str, config: SearchConfig) -> LatencyBudget:
    """A budget as typed; where the study was given `--percentile`, of that unless it names another."""
    try:
        found = LatencyBudget.parse(budget, config.workload.percentile)
    except ValueError as error:
        raise InvalidInput(str(error), where="--budget-ms") from None
    if found.percentile != MEDIAN and not config.of_requests:
        what = f"budget of a study that timed one call must be one of its median, but got {budget}"
        raise InvalidInput(what, where="--budget-ms", fix="nash-search measure times an export's requests")
    return found


def recover(study: Study, results: Results = Path("results"), json_: Json = False, quiet: Quiet = False) -> int:
    """Bring a damaged study back: the last backup, plus what the manifests hold."""
    folder = folder_of(study, results)
    with quiet_libraries():
        from nash_search.storage.locks import only_driver
        from nash_search.storage.recovery import rebuild

        with only_driver(folder):
            trials = rebuild(folder, folder.name)
    if not quiet:
        print(
            f"{trials} trials in {folder / 'study.db'}; nash-search resume {typed_study(folder)} goes on",
            file=sys.stderr,
        )
    if json_:
        print(json.dumps({"study": folder.name, "trials": trials}))
    return 0


def report(study: Study, results: Results = Path("results"), json_: Json = False, quiet: Quiet = False) -> int:
    """Write report.html, report.md and the pictures of a study."""
    folder = folder_of(study, results)
    with quiet_libraries():
        from nash_search.report import load as stored
        from nash_search.report import page

        files = page.write(stored.load(folder), folder)
    if not quiet:
        print("\n".join(str(f) for f in files), file=sys.stderr)
    if json_:
        print(json.dumps({"study": folder.name, "files": [str(f) for f in files]}))
    return 0


def pick(
    study: Study,
    budget: Annotated[str, typer.Option("--budget-ms", metavar="MS|SHARE", help="The budget to answer.")],
    certify: Annotated[bool, typer.Option("--certify", help="Time the point again, in fresh processes.")] = False,
    results: Results = Path("results"),
    json_: Json = False,
    quiet: Quiet = False,
    *,
    overrides: dict[str, Any],
) -> int:
    """Answer another budget from a finished study, without training."""
    from nash_search.config_loader import load_config

    checked = load_config(None, overrides)
    limits = {name: getattr(checked, name) for name in overrides}
    folder = folder_of(study, results)
    asked = parsed(budget, stored_config(folder))
    from nash_search.search.pick import pick as answer

    summary = answer(folder, asked, limits=limits, certify=certify)
    if certify:
        from nash_search.cli import live_report

        live_report.restate(folder, stored_config(folder))
    [found] = summary.budgets
    if not quiet:
        for line in picked(summary, found):
            print(line, file=sys.stderr)
    if json_:
        print(json.dumps(summary.public()))
    return 0 if found.verdict == "met" else 3


def picked(summary: Summary, found: BudgetRow) -> list[str]:
    """A budget's answer in one line or two."""
    from nash_search.report.words import at_most, looks_words, renewing, shut_out_words, unmet_words

    kept, ms, dense = found.architecture, found.latency_ms, summary.dense
    if found.checkpoint is None or kept is None or ms is None:
        words = f"{unmet_words([found])} meets {found.asked} (the floor is {found.floor_ms:.4g} ms)"
        if shut := shut_out_words(found.asked, found.shut_out_quality, dense.validation_quality if dense else None):
            words += f"; {shut}"
        nearest = found.nearest_feasible
        words += f": try --budget-ms {nearest}" if nearest and nearest != found.asked else ""
        longer = f"the best within it was trained short: {found.finish} trains it at length and certifies it"
        return [words, longer] if found.finish else [words]
    blocks = kept.decoder_layers
    words = f"{found.asked} ({found.budget_ms:.4g} ms) {found.verdict}: "
    words += f"{blocks} decoder block{'s' if blocks > 1 else ''}, {100 - kept.encoder_sparsity_pct}% of the encoder, "
    words += f"{ms:.4g} ms" + ("" if found.upper_ms is None else at_most(found.upper_ms, ms))
    words += f", {found.speedup:.2f}× faster, quality {found.quality:.2f} on {found.quality_split}"
    if dense is not None and dense.quality_split == found.quality_split:
        words += f" (dense {dense.quality:.2f})"
    said = [words, found.checkpoint]
    if found.searched_up_to:
        said.append(f"nothing slower than {found.searched_up_to} was searched: a new study (--study) may find better")
    if found.finish:
        said.append(f"as the search trained it, not at length: {found.finish} trains it at length and certifies it")
    elif found.finish_steps:
        said.append(f"trained at length, {found.finish_steps:,} steps")
    if asked_again := looks_words(found.looks, found.rounds):
        said.append(asked_again)
    if found.occasion_sd is None:
        said.append(renewing(summary.study))
    return said


def dashboard(
    study: Annotated[str, typer.Argument(metavar="[STUDY]", help="Name or folder (default: the newest).")] = "",
    results: Results = Path("results"),
    port: Annotated[int, typer.Option("--port", min=1, max=65535, metavar="N", help="Port on 127.0.0.1.")] = 8080,
    writable: Annotated[bool, typer.Option("--writable", help="Allow changes through the dashboard.")] = False,
    json_: Json = False,
) -> int:
    """Show a study in the Optuna dashboard, on this machine only, behind a token."""
    folder = folder_of(study or newest(results), results)
    with quiet_libraries():
        from nash_search.report.dashboard import ARTIFACTS, database_url, serve

        url = database_url(storage(), folder)

        def ready(address: str) -> None:
            print(json.dumps({"study": folder.name, "url": address}) if json_ else address, flush=True)

        artifacts = folder / ARTIFACTS
        serve(url, folder.name, port=port, writable=writable, artifacts=artifacts, on_ready=ready)
    return 0
