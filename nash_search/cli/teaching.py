"""Stage 0 from the command line: `finetune` makes a teacher, `init` writes a search space to start from."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from nash_search.cli.flags import MODEL, TASK, ConfigFile, Flag
from nash_search.cli.searching import Json, Quiet, aloud, quiet_libraries
from nash_search.config_files import load_config
from nash_search.errors import InvalidInput
from nash_search.tasks.preflight import check

FLAGS = (
    *TASK,
    Flag(field="model", metavar="PATH|HUB-ID", help="Start from this model instead of the recipe's `init`."),
    MODEL[1],
    Flag(field="workload.device", metavar="auto|cpu|cuda[:N]", help="Device to train on."),
    Flag(field="teacher.epochs", metavar="N", help="Passes over the train split."),
    Flag(field="teacher.learning_rate", metavar="RATE", help="Peak learning rate."),
    Flag(field="teacher.batch_size", metavar="N", help="Sequences per optimizer step."),
    Flag(field="teacher.threads", metavar="N", help="CPU threads to train with."),
    Flag(field="teacher.seed", metavar="N", help="Seed of weights and batches."),
)


def finetune(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the teacher.")],
    config: ConfigFile = "auto",
    json_: Json = False,
    quiet: Quiet = False,
    *,
    overrides: dict[str, Any],
) -> int:
    """Make the teacher (stage 0): a killed run goes on where it was."""
    asked = load_config(config, overrides)
    if asked.teacher is None and asked.model is None:
        raise InvalidInput("teacher must be described (teacher: in the search space) or --model given, but got neither")
    check(asked, needs_model=False)
    with quiet_libraries():
        from nash_search import device
        from nash_search.finetune import finetune as train
        from nash_search.finetune import starting_point

        target = device.resolve(asked.workload.device).name
        task, model, recipe = starting_point(asked)
        aloud(task.notes, quiet)

        def report(step: int, steps: int, loss: float, quality: Any) -> None:
            if not quiet:
                seen = f", {quality.metric} {quality.value:.2f}" if quality else ""
                print(f"step {step}/{steps}, loss {loss:.3f}{seen}", file=sys.stderr)

        done = train(
            task, recipe, output, model=model, device=target, report=report,
            step_guard=lambda: device.training_guard(target),
        )  # fmt: skip
    if not quiet:
        q = done.quality
        print(
            f"{q.metric} {q.value:.2f} ± {1.96 * q.standard_error:.2f} on validation ({q.n}); {output}", file=sys.stderr
        )
    if json_:
        document = {"folder": str(done.folder), "quality": done.quality.model_dump(), "steps": done.steps}
        print(json.dumps({**document, "train_s": done.train_s, "curve": [p.model_dump() for p in done.curve]}))
    return 0


def init(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model the search space is for.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where (default: stdout).")
    ] = None,
) -> int:
    """Write a commented search space for a model."""
    from nash_search.tasks.starter import search_space_text

    text = search_space_text(model)
    if output is None:
        print(text, end="")
        return 0
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        what = f"output must be a new file that can be written, but got {reason}"
        raise InvalidInput(what, where=f"--output {output}") from None
    return 0
