"""Stage 0 from the command line: `finetune` makes a teacher, `init` writes a search space to start from."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from nash_search.cli.flags import MODEL, TASK, WORKLOAD, ConfigFile, flags_of, named
from nash_search.cli.search import Json, Quiet, aloud, quiet_libraries
from nash_search.config_loader import load_config
from nash_search.errors import InvalidInput
from nash_search.tasks.preflight import check, check_folder

SAID_OTHERWISE = {
    "model": "Start from this model instead of the recipe's init.",
    "workload.device": "Device to train on.",
}
"""Help of flags that mean something else here than in a search."""
FLAGS = (
    *TASK,
    *(replace(flag, help=SAID_OTHERWISE[flag.field]) for flag in named(MODEL, "model")),
    *named(MODEL, "revision"),
    *(replace(flag, help=SAID_OTHERWISE[flag.field]) for flag in named(WORKLOAD, "workload.device")),
    *(flag for flag in flags_of("teacher") if flag.field != "teacher.init"),  # --model says it
)


class EpochLines:
    """How training goes, on stderr: where it begins, a line every few seconds, every epoch's quality."""

    def __init__(self, every_s: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s, self._clock = every_s, clock
        self._began: tuple[float, int] | None = None
        self._said_at = 0.0

    def __call__(self, step: int, steps: int, loss: float, quality: Any) -> None:
        """The report of `finetune`; its first call comes before the first step."""
        now = self._clock()
        if self._began is None:
            self._began, self._said_at = (now, step), now
            words = f"goes on after step {step:,} of {steps:,}" if step else f"{steps:,} steps"
            print(f"training: {words}", file=sys.stderr)
            return
        if quality is None and now - self._said_at < self._every_s:
            return
        self._said_at = now
        since, first = self._began
        words = f"step {step:,}/{steps:,}, loss {loss:.3f}"
        if quality is not None:
            words += f", {quality.metric} {quality.value:.2f}"
        if first < step < steps:
            from nash_search.report.words import format_duration

            words += f", about {format_duration((now - since) / (step - first) * (steps - step))} left"
        print(words, file=sys.stderr)


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
    check_folder(output, "output", "--output", begun=".training")  # a finished teacher is never overwritten
    with quiet_libraries():  # before any is imported, or their progress bars stay
        check(asked, needs_model=False)
        from nash_search import device
        from nash_search.finetune import finetune as train
        from nash_search.finetune import starting_point

        target = device.resolve(asked.workload.device).name
        task, model, recipe = starting_point(asked)
        aloud(task.notes, quiet)

        done = train(
            task, recipe, output, model=model, device=target, report=None if quiet else EpochLines(),
            step_guard=lambda: device.training_guard(target),
        )  # fmt: skip
    if not quiet:
        q = done.quality
        print(f"{q.metric} {q.value:.2f} ± {q.half_width:.2f} on validation ({q.n}); {output}", file=sys.stderr)
    if json_:
        document = {"folder": str(done.folder), "quality": done.quality.model_dump(), "steps": done.steps}
        print(json.dumps({**document, "train_s": done.train_s, "curve": [p.model_dump() for p in done.curve]}))
    return 0


def init(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model the search space is for.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where (default: stdout).")
    ] = None,
    json_: Json = False,
) -> int:
    """Write a commented search space for a model."""
    from nash_search.tasks.starter import search_space_text

    text = search_space_text(model)
    if output is not None:
        try:
            with output.open("x", encoding="utf-8") as file:
                file.write(text)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            what = f"output must be a new file that can be written, but got {reason}"
            raise InvalidInput(what, where=f"--output {output}") from None
    if json_:
        print(json.dumps({"file": None if output is None else str(output), "text": text}))
    elif output is None:
        print(text, end="")
    return 0
