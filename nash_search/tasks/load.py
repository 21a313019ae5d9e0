"""From what was asked of the task to a `Task`: the embedded one, or the user's own data.

Lengths come from the data's own distribution: the longest source or target counts when it is at
most twice the 99th percentile, else that percentile (rounded up to a multiple of 8) does, and
what is cut is said in `Task.notes`. The tokenizer and the generation
settings are handed to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nash_search.config import EMBEDDED, TaskConfig, TeacherRecipe
from nash_search.errors import InvalidInput
from nash_search.tasks import models, speech
from nash_search.tasks.data import Split, Texts, read_texts
from nash_search.tasks.example_counts import TaskMetric
from nash_search.tasks.kept_tokens import encode_once
from nash_search.tasks.metrics import METRICS
from nash_search.tasks.speech_settings import SpeechSettings, speech_settings_of
from nash_search.tasks.task import Examples, SealedTest, Task, encode, length_cap, median_length, scored_with

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

G2P_BATCH = 64
"""Default workload batch of g2p: a page of text at once; at batch 1 the encoder's width is invisible."""
G2P_MAX_OUTPUT_TOKENS = 32
"""The longest pronunciation of the dictionary has 28 phonemes."""
DEFAULT_METRIC = "rougeL"


def load_task(
    config: TaskConfig,
    tokenizer: PreTrainedTokenizerBase | None = None,
    generation: Mapping[str, Any] | None = None,
    *,
    texts: Texts | None = None,
    speech_settings: SpeechSettings | None = None,
    longest_output: int | None = None,
) -> Task:
    """Read and check the data, encode it, and say what was decided in `Task.notes`.

    Args:
        config: what was asked.
        tokenizer: the teacher's; None for an embedded task's own.
        generation: the teacher's scoring settings (`models.generation_settings`); None: greedy.
        texts: the user's data where it was read before (`data.read_texts`).
        speech_settings: the model's speech input settings (`speech_settings_of`); None: it reads text.
        longest_output: of a model that reads text, tokens that its decoder has positions for; None: any length.

    Raises:
        InvalidInput: in the user's words, when the data break a rule.
    """
    if config.data is None:
        if config.name not in EMBEDDED:
            what = f"task must be {' or '.join(EMBEDDED)}, or come with data, but got {config.name!r}"
            raise InvalidInput(what, where="--task", fix="give --data")
        return _g2p(config, tokenizer, generation or {})
    if tokenizer is None:
        raise InvalidInput("your own data needs your own model, but got none", where="--model", fix="give --model")
    if speech_settings is not None:
        metric = metric_of(config, speech.DEFAULT_METRIC)
        return speech.speech_task(config, speech_settings, tokenizer, generation or {}, metric)
    return _own(config, tokenizer, generation or {}, texts or read_texts(config), longest_output)


def task_of_model(found: models.ModelFolder, config: TaskConfig, beams: int | None = None) -> Task:
    """The task as a vetted folder's model reads or hears it, and writes.

    Args:
        found: the folder.
        config: what was asked of the task.
        beams: what the workload asks for instead of the folder's own.
    """
    settings, speech_settings = models.generation_settings(found, beams), speech_settings_of(found, config)
    limit = models.positions(found.config)
    tokenizer = models.load_tokenizer(found)
    return load_task(config, tokenizer, settings, speech_settings=speech_settings, longest_output=limit and limit[1])


def load_scratch_task(config: TaskConfig, recipe: TeacherRecipe) -> Task:
    """The task of a teacher from scratch: over own data, with a tokenizer trained on its train split.

    Raises:
        InvalidInput: when the data or `teacher.tokenizer` break a rule.
    """
    if config.data is None:
        return load_task(config)
    from nash_search.tasks.scratch_tokenizer import train_tokenizer

    texts = read_texts(config)
    both = [*texts.train.sources, *(several[0] for several in texts.train.references), config.prefix]
    tokenizer, limit = train_tokenizer(recipe.tokenizer, both), models.positions(recipe.model)
    if limit is not None:
        tokenizer.model_max_length = min(limit[0], tokenizer.model_max_length)
    return load_task(config, tokenizer, texts=texts, longest_output=limit and limit[1])


def metric_of(config: TaskConfig, default: str) -> TaskMetric:
    """The metric that was asked for, built in or imported."""
    name = config.metric or default
    if name in METRICS:
        metric = METRICS[name]()
        if config.metric_direction not in (None, metric.direction):
            what = f"metric_direction of {name} must be {metric.direction}, but got {config.metric_direction}"
            raise InvalidInput(what, where="--metric-direction", fix="leave it out for a built-in metric")
        return metric
    from nash_search.tasks.own_metric import import_metric

    return import_metric(name, config.metric_direction)


def _g2p(config: TaskConfig, tokenizer: PreTrainedTokenizerBase | None, generation: Mapping[str, Any]) -> Task:
    from nash_search.tasks import g2p

    tokens = tokenizer or g2p.build_tokenizer()
    train = g2p.examples_of("train", tokens, config.train_examples, shuffled=config.train_examples is not None)
    cap = config.max_output_tokens or G2P_MAX_OUTPUT_TOKENS
    return Task(
        name=config.name,
        tokenizer=tokens,
        train=train,
        validation=g2p.examples_of("validation", tokens, config.validation_examples),
        metric=metric_of(config, "per"),
        input_tokens=median_length(train.inputs),
        output_tokens=median_length(train.labels),
        max_output_tokens=cap,
        generation=scored_with(generation, cap),
        batch_size=G2P_BATCH,
        sealed=SealedTest(read=lambda: g2p.examples_of("test", tokens, config.test_examples)),
    )


def _own(
    config: TaskConfig,
    tokenizer: PreTrainedTokenizerBase,
    generation: Mapping[str, Any],
    texts: Texts,
    longest_output: int | None,
) -> Task:
    metric = metric_of(config, DEFAULT_METRIC)
    notes = list(texts.notes)
    limit = tokenizer.model_max_length if tokenizer.model_max_length < 1_000_000 else None
    sample = texts.train.first(2000)
    sources, targets = _texts(sample, config.prefix)
    inputs = length_cap(encode(tokenizer, sources, None).lengths, config.max_input_tokens, limit)
    outputs = length_cap(encode(tokenizer, targets, None, as_target=True).lengths, config.max_output_tokens, limit)
    outputs = min(outputs, longest_output or outputs)

    def encoded(split: Split, count: int | None) -> Examples:
        split = split.first(count)
        with_prefix, first_targets = _texts(split, config.prefix)
        return Examples(
            sources=with_prefix,
            references=split.references,
            inputs=encode_once(tokenizer, with_prefix, inputs),
            labels=encode_once(tokenizer, first_targets, outputs, as_target=True),
        )

    train = encoded(texts.train, config.train_examples)
    validation = encoded(texts.validation, config.validation_examples)
    for what, cap, found in (("sources", inputs, train.inputs), ("targets", outputs, train.labels)):
        cut = int((found.lengths >= cap).sum())
        if cut:
            notes.append(f"{cut:,} of {len(found):,} {what} of train are cut to (or exactly) {cap} tokens")
    return Task(
        name=config.name,
        tokenizer=tokenizer,
        train=train,
        validation=validation,
        metric=metric,
        input_tokens=median_length(train.inputs),
        output_tokens=median_length(train.labels),
        max_output_tokens=outputs,
        generation=scored_with(generation, outputs),
        batch_size=1,
        sealed=SealedTest(read=lambda: encoded(texts.read_test(), config.test_examples)),
        prefix=config.prefix,
        max_input_tokens=inputs,
        data=texts.facts,
        notes=tuple(notes),
    )


def _texts(split: Split, prefix: str) -> tuple[list[str], list[str]]:
    return [prefix + source for source in split.sources], [several[0] for several in split.references]
