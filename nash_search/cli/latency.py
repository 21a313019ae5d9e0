"""Latency from the command line: `probe` a model's shapes, `measure` any checkpoint, `remeasure` a study."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from nash_search.cli.flags import BUDGETS, ENGINES, MODEL, TASK, WORKLOAD, ConfigFile
from nash_search.cli.search import Json, Quiet, Results, aloud, quiet_libraries
from nash_search.config import MEASURED_FIELDS
from nash_search.config_loader import load_config
from nash_search.tasks import models, traffic
from nash_search.tasks.preflight import check, check_folder, check_traffic, check_workload
from nash_search.traffic import DATA, FIXED, Traffic

PROBE = (*BUDGETS, *ENGINES, *MODEL, *TASK, *WORKLOAD)
MEASURE = (*BUDGETS, *(flag for flag in TASK if flag.field.removeprefix("task.") in MEASURED_FIELDS), *WORKLOAD)
"""No search space: an export's own record says what it was certified on; flags or data say it of other folders."""


def probe(
    config: ConfigFile = "auto",
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Save the picture (png or svg).")] = None,
    results: Results = Path("results"),
    json_: Json = False,
    quiet: Quiet = False,
    *,
    overrides: dict[str, Any],
) -> int:
    """Time the dense model and every shape, without training: what each budget admits, and the floor."""
    asked = load_config(config, overrides)
    check_folder(results, "results", "--results")  # what is timed is kept there
    notes = check(asked)
    with quiet_libraries():
        from nash_search.report.probe import save_staircase, show
        from nash_search.report.words import named
        from nash_search.search.probe_only import survey

        found = survey(asked, results, _told(quiet))
    aloud(notes, quiet)
    if not quiet:
        show(found)
    if plot is not None:
        save_staircase(found, plot)
    if json_:
        print(json.dumps(found.to_json()))
    missed = [b for b in found.budgets if not b.feasible]
    if missed and len(missed) == len(found.budgets):
        from nash_search.report.engines import instead

        nearest = f"{instead(found.engines)}: try --budget-ms {missed[0].nearest_feasible}"
        asked_for = ", ".join(named(b.asked) for b in missed)
        print(
            f"nash-search: no architecture meets {asked_for} (the floor is {found.floor_ms:.4g} ms){nearest}",
            file=sys.stderr,
        )
        return 3
    return 0


# 8 parameters: the flags of one command, which typer reads off its signature
def measure(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A checkpoint folder, ours or not.")],
    against: Annotated[Path | None, typer.Option("--against", metavar="PATH", help="The dense reference.")] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=2, metavar="N", help="Fresh processes.")] = 5,
    pairs: Annotated[
        int | None,
        typer.Option("--pairs", min=3, metavar="N", help="Timed pairs per process (40; 70 requests or batches)."),
    ] = None,
    results: Results = Path("results"),
    json_: Json = False,
    quiet: Quiet = False,
    *,
    overrides: dict[str, Any],
) -> int:
    """Time any checkpoint next to its dense reference, in fresh processes, alone on the device.

    With --quantize its quality is compared with float32's first, where data are known, and a ruined model is refused.
    """
    from nash_search.percentiles import check_enough, pairs_of  # loads SciPy, which `--help` need not

    asked = load_config(None, overrides)
    timed = {folder: models.vet_timed(folder) for folder in (path, against) if folder is not None}
    for config in timed.values():
        check_workload(asked.workload, config)
    check_traffic(asked)
    requests: Traffic | None = None
    if asked.traffic not in (DATA, FIXED):
        limits = [limit for each in timed.values() if (limit := models.positions(each)) is not None]
        inputs, outputs = zip(*limits, strict=True) if limits else ((), ())
        counted_by = models.vet(path)
        requests = traffic.of_file(
            Path(asked.traffic),
            asked.task,
            lambda: models.load_tokenizer(counted_by),
            (min(inputs), min(outputs)) if limits else None,
        )
        check_enough(asked.highest, requests, rounds=rounds, pairs=pairs or pairs_of(asked.highest, rounds))
    with quiet_libraries():
        from nash_search.latency.measurement import document, rows
        from nash_search.latency.workload import of_traffic
        from nash_search.report.words import one_call
        from nash_search.search import remeasure as timings
        from nash_search.search.summary import fidelity_row

        asked = timings.as_certified(path, asked)
        workload, source = timings.workload_of(path, asked)
        if asked.traffic == DATA:
            requests = timings.traffic_of_data(path, asked)
        if requests is not None:
            workload = of_traffic(workload, requests)
        pairs = pairs or pairs_of(asked.highest if asked.of_requests else None, rounds, workload.longer)
        if requests is not None:
            check_enough(asked.highest, requests, rounds=rounds, pairs=pairs, units=workload.units)
        if not quiet:
            heard = models.window(timed[path])
            told = [
                ("device", workload.device),
                ("one call", one_call(workload, f"{heard} positions" if heard else "")),
            ]
            _tell(told + ([("lengths", source)] if workload.traffic is None else []))
        kept = timings.fidelity_of(path, workload, asked)
        if (kept or workload.quantize != "none") and not quiet:
            _tell([("quality", kept.words if kept else "not compared with float32's: name the data with --data")])
        timing = {"rounds": rounds, "pairs": pairs}
        found = timings.measure_folder(path, against, workload, budgets=asked.budgets, results=results, **timing)
        found = found.at(asked.percentile)
    if not quiet:
        _tell(rows(found, asked.budgets))
    if json_:
        told_of = kept or workload.quantize != "none"
        beside = {"fidelity": fidelity_row(kept).to_json() if kept else None} if told_of else {}
        print(json.dumps(document(found, asked.budgets) | beside))
    verdicts = [found.certificate(budget) for budget in asked.budgets]
    return 0 if not verdicts or "met" in verdicts else 3


def _told(quiet: bool) -> Callable[[str, dict[str, Any]], None]:
    """Stages of a probe that take their time, one line each on stderr."""
    from nash_search.report.engines import trying

    def say(stage: str, detail: dict[str, Any]) -> None:
        if stage == "engines" and not quiet:
            print(trying(detail), file=sys.stderr, flush=True)

    return say


def _tell(rows: Sequence[tuple[str, str]]) -> None:
    for name, value in rows:
        print(f"{name:>16}  {value}", file=sys.stderr, flush=True)


def remeasure(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Name or folder of a finished study.")],
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda[:N]", help="Device to time on.")] = "auto",
    against: Annotated[Path | None, typer.Option("--against", metavar="PATH", help="The dense reference.")] = None,
    results: Results = Path("results"),
    json_: Json = False,
    quiet: Quiet = False,
) -> int:
    """Time every exported point of a study again, here, and draw the front anew.

    On the device and software of the study its certificate is renewed: all rounds count, the looks are counted.
    """
    from nash_search.cli.studies import folder_of, stored_config

    folder = folder_of(study, results)
    with quiet_libraries():
        from nash_search.report.remeasured import caption, save_remeasured
        from nash_search.search.remeasure import remeasure_study

        if against is not None:
            models.vet_timed(against)
        found = remeasure_study(folder, device, against)
        files = save_remeasured(folder, found)
        if found.renewed:
            from nash_search.cli import live_report

            files += [Path(file) for file in live_report.restate(folder, stored_config(folder))]
    if not quiet:
        for point in found.front:
            print(f"{point.checkpoint}: {point.latency_ms:.4g} ms, {point.speedup:.2f}x", file=sys.stderr)
        kept = "the study's certificate counts these rounds too" if found.renewed else found.not_renewed
        print("\n".join([caption(found), kept, *map(str, files)]), file=sys.stderr)
    if json_:
        print(json.dumps(found.to_json()))
    return 0
