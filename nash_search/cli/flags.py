"""Flags that several commands share, as one table: the flag, the field it sets, what to say about it.

Values stay strings until `config_loader` checks them, so a flag and a file are refused in the same
words. `configured` turns a command that takes `overrides` into one with these flags.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from nash_search.config_loader import flag_of, seconds
from nash_search.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One flag of the command line and the dotted field of `SearchConfig` it sets."""

    field: str
    help: str
    metavar: str = "TEXT"
    many: bool = False
    switch: Any = None
    """The value the field takes when a flag without a value is given."""
    read: Callable[[str], Any] | None = None
    """Turns the text into the field's value."""

    @property
    def parameter(self) -> inspect.Parameter:
        """How typer sees it."""
        option = typer.Option(
            flag_of(self.field),
            help=self.help,
            metavar=None if self.switch is not None else self.metavar,
        )
        kind: Any = bool if self.switch is not None else list[str] if self.many else str
        name = self.field.replace(".", "__")
        default: Any = False if self.switch is not None else None
        return inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind | None, option]
        )


def percent(asked: str) -> float:
    """`2%` or `2` as 2.0."""
    try:
        return float(asked.strip().removesuffix("%"))
    except ValueError:
        raise InvalidInput(f"max_drop must be a percentage like 2%, but got {asked!r}", where="--max-drop") from None


TASK = (
    Flag(field="task.name", metavar="NAME", help="Embedded task, or the name your own data goes by."),
    Flag(
        field="task.data",
        metavar="PATH|HUB-ID",
        help="Your data: JSONL, JSON, CSV, TSV or Parquet, a folder of them or of parallel text, or a hub dataset.",
    ),
    Flag(field="task.data_config", metavar="NAME", help="Configuration of a hub dataset."),
    Flag(field="task.train_split", metavar="NAME", help="Name of the train split."),
    Flag(field="task.validation_split", metavar="NAME", help="Name of the validation split."),
    Flag(field="task.test_split", metavar="NAME", help="Name of the test split; it stays sealed until certification."),
    Flag(field="task.source_column", metavar="NAME", help="Column of the inputs (guessed when not given)."),
    Flag(field="task.target_column", metavar="NAME", help="Column of the references (guessed when not given)."),
    Flag(field="task.prefix", help="Prompt put before every input."),
    Flag(
        field="task.metric",
        metavar="NAME",
        help="rouge1|2|L|Lsum, bleu, chrf, exact_match, accuracy, f1, per, wer or module:Class.",
    ),
    Flag(field="task.metric_direction", metavar="maximize|minimize", help="Direction of a metric of your own."),
    Flag(field="task.max_input_tokens", metavar="N", help="Inputs are cut to this many tokens."),
    Flag(field="task.max_output_tokens", metavar="N", help="Longest output when scoring."),
    Flag(field="task.validation_examples", metavar="N", help="Validation examples each trial is scored on."),
    Flag(field="task.test_examples", metavar="N", help="Test examples that certification scores."),
    Flag(field="task.allow_overlap", switch=True, help="Keep and count sources that stand in two splits."),
)
MODEL = (
    Flag(
        field="model",
        metavar="PATH|HUB-ID",
        help="The fine-tuned model to prune (default: the teacher shipped with the task).",
    ),
    Flag(field="revision", metavar="REF", help="Revision of a hub model."),
    Flag(field="trim_vocab", switch=True, help="First drop every token that the train split does not need."),
)
WORKLOAD = (
    Flag(field="workload.device", metavar="auto|cpu|cuda[:N]", help="Device to train and time on."),
    Flag(field="workload.dtype", metavar="float32|bfloat16|float16", help="Precision of the timed model."),
    Flag(field="workload.threads", metavar="N", help="CPU threads of the timed process."),
    Flag(field="workload.batch_size", metavar="N", help="Sequences per generate call."),
    Flag(field="workload.input_tokens", metavar="N", help="Encoder tokens after padding (default: the data's median)."),
    Flag(
        field="workload.output_tokens",
        metavar="N",
        help="Decoder steps, forced exactly (default: the references' median).",
    ),
    Flag(field="workload.beams", metavar="N", help="Beams (default: the teacher's generation config)."),
    Flag(
        field="workload.runtime",
        metavar="NAME",
        help="eager, compile, ctranslate2 or onnxruntime (the last two: nash-search[ctranslate2,onnxruntime]).",
    ),
    Flag(field="workload.quantize", metavar="none|int8", help="Quantisation, where the runtime has it."),
)
ENGINES = Flag(
    field="engines", switch=False, help="Do not first try the unpruned model on every other engine installed here."
)
BUDGETS = (
    Flag(
        field="budgets",
        metavar="MS|SHARE",
        many=True,
        help="Latency budget: 40 (ms) or 50% of the dense latency. Repeatable.",
    ),
)
SEARCH = (
    *BUDGETS,
    Flag(field="trials", metavar="N", help="Trials that train."),
    Flag(field="workers", metavar="N", help="Trials that train side by side."),
    Flag(field="serial", switch=True, help="Run trials in this process, without Ray."),
    Flag(field="seed", metavar="N", help="Seed of the search and of every trial."),
    Flag(field="sampler", metavar="gp|tpe|random|grid|nsga2", help="Who proposes."),
    Flag(field="study", metavar="NAME", help="Name of the study (default: task and a hash of the question)."),
    Flag(field="max_drop_pct", metavar="PERCENT", read=percent, help="Largest quality drop relative to the teacher."),
    Flag(field="trial_timeout_s", metavar="TIME", read=seconds, help="A trial ends after this long (90s, 10m, 2h)."),
    Flag(field="time_budget_s", metavar="TIME", read=seconds, help="The whole search ends about after this long."),
    ENGINES,
    Flag(field="early_stopping", switch=False, help="Train every trial to its end, dominated or not."),
    Flag(
        field="finalist_seeds",
        metavar="N",
        help="Train each budget's winner with N seeds: quality as mean and interval, the best validated is exported.",
    ),
    Flag(field="keep_all", switch=True, help="Keep the weights of dominated trials."),
    Flag(field="format", metavar="auto|stock", help="stock: every export loads without code of ours (uniform widths)."),
    Flag(field="ray_address", metavar="ADDRESS", help="Join a Ray cluster (auto) instead of starting one."),
)
EVERYTHING = (*SEARCH, *MODEL, *TASK, *WORKLOAD)

ConfigFile = Annotated[
    str,
    typer.Option("--config", "-c", metavar="NAME|FILE", help="Search space by name or file; auto: own or g2p."),
]


def configured(flags: tuple[Flag, ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command these flags; it receives what was given as `overrides` (dotted field to value)."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = inspect.signature(command, eval_str=True)
        by_name = {flag.field.replace(".", "__"): flag for flag in flags}

        def run(**given: Any) -> Any:
            overrides = {}
            for name, flag in by_name.items():
                value = given.pop(name)
                if value is None or value is False or value == []:
                    continue
                overrides[flag.field] = (
                    flag.switch if flag.switch is not None else flag.read(value) if flag.read else value
                )
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
