"""A task of recordings and transcripts, for a model that hears.

    rows (file, text) -> clips checked by their headers -> features, once -> labels: prompt, " text", end

Outputs and references are compared after the normaliser that the tokenizer brings: English's own, which spells out
"don't" and reads numbers alike, or the basic one, which drops case and punctuation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nash_search.config import TaskConfig
from nash_search.errors import InvalidInput, shown_path
from nash_search.tasks.data import Split
from nash_search.tasks.example_counts import CountedMetric
from nash_search.tasks.features import Index, SpeechFeatures
from nash_search.tasks.metrics import METRICS, Normalised
from nash_search.tasks.speech_settings import SpeechSettings, clips_of, texts_of
from nash_search.tasks.task import Examples, SealedTest, Task, length_cap, scored_with
from nash_search.token_rows import TokenRows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from nash_search.tasks.example_counts import TaskMetric

DEFAULT_METRIC = "wer"
MOST_WRONG = 0.1
"""Word errors of a teacher's answer, of its transcript's words, beyond which the transcript is learnt instead."""


def speech_task(
    config: TaskConfig,
    settings: SpeechSettings,
    tokenizer: PreTrainedTokenizerBase,
    generation: Mapping[str, Any],
    metric: TaskMetric,
) -> Task:
    """Build the task of a speech model: features of recordings in, transcripts as labels.

    Args:
        config: the data.
        settings: of the model that is searched.
        tokenizer: the model's.
        generation: the model's scoring settings.
        metric: as it was asked for.

    Raises:
        InvalidInput: a recording cannot be heard, or the tokenizer knows no normaliser.
    """
    texts = texts_of(settings, config)
    speech = SpeechFeatures(settings, clips_of(settings, config), shown_path(config.data or ""), texts.rows_of_clips)
    prompt, end = list(settings.prompt[1:]), int(tokenizer.eos_token_id or 0)
    chosen = [texts.train.first(config.train_examples), texts.validation.first(config.validation_examples)]
    written = np.array([len(row) + 1 for row in _ids(tokenizer, chosen[0])])  # the end is written too
    cap = length_cap(written, config.max_output_tokens, settings.longest_output)

    def encoded(splits: Sequence[Split]) -> tuple[list[Examples], Index]:
        """Splits whose features share a file."""
        rows, index = speech.rows([name for split in splits for name in split.sources])
        found, start = list[Examples](), 0
        for split in splits:
            ids = [[*prompt, *row[: cap - 1], end] for row in _ids(tokenizer, split)]
            inputs, start = rows.picked(range(start, start + len(split))), start + len(split)
            examples = Examples(
                sources=split.sources,
                references=split.references,
                inputs=inputs,
                labels=TokenRows.of(ids),
                content=index.content,
            )
            found.append(examples)
        return found, index

    (train, validation), index = encoded(chosen)
    clip_s = float(np.median(index.seconds))
    notes = [*texts.notes, *_sound_notes(settings, index, clip_s)]
    if cut := int((written > cap).sum()):
        notes.append(f"{cut:,} of {len(train):,} transcripts of train are cut to {cap} tokens")
    return Task(
        name=config.name,
        tokenizer=tokenizer,
        train=train,
        validation=validation,
        metric=_normalised(metric, settings, tokenizer),
        input_tokens=settings.positions,
        output_tokens=max(1, int(np.median(written))),
        max_output_tokens=cap,
        generation=scored_with({**generation, **settings.generation}, cap),
        batch_size=1,
        sealed=SealedTest(read=lambda: encoded([texts.read_test().first(config.test_examples)])[0][0]),
        speech=speech,
        prompt_tokens=len(prompt),
        agrees=_agreement(settings, tokenizer),
        clip_seconds=clip_s,
        data=texts.facts,
        notes=tuple(notes),
    )


def _ids(tokenizer: PreTrainedTokenizerBase, split: Split) -> list[list[int]]:
    """Tokens of the first references; a transcript begins with a space, as the model writes it."""
    texts = [f" {several[0].strip()}" for several in split.references]
    found: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return found


def _agreement(settings: SpeechSettings, tokenizer: Any) -> Callable[[list[int], list[int]], bool]:
    """Few word errors, after the normaliser: a teacher that misheard is not learnt from (arXiv 2311.00430)."""
    metric = _normalised(METRICS[DEFAULT_METRIC](), settings, tokenizer)
    assert isinstance(metric, CountedMetric)

    def agrees(answer: list[int], label: list[int]) -> bool:
        written, due = tokenizer.batch_decode([answer, label], skip_special_tokens=True)
        errors, words = metric.statistics([written], [[due]])[0, :2]
        return bool(errors <= MOST_WRONG * words)

    return agrees


def _normalised(metric: TaskMetric, settings: SpeechSettings, tokenizer: Any) -> TaskMetric:
    """The metric after the tokenizer's normaliser; a metric of the user's own sees texts as they are."""
    if not isinstance(metric, CountedMetric):
        return metric
    if not hasattr(tokenizer, "basic_normalize"):
        what = f"tokenizer must bring a normaliser of transcripts, but got {type(tokenizer).__name__}"
        raise InvalidInput(
            what, where=shown_path(settings.folder), fix="save the one that the model was published with"
        )
    if not settings.english:
        return Normalised(metric, tokenizer.basic_normalize, "basic")
    known = tokenizer.english_spelling_normalizer
    tokenizer.english_spelling_normalizer = known or {}  # folders that were converted often lack the table
    return Normalised(metric, tokenizer.normalize, "english" if known else "english without its spellings")


def _sound_notes(settings: SpeechSettings, index: Index, clip_s: float) -> list[str]:
    count, longest = len(index.seconds), max(index.seconds)
    lengths = f"median {clip_s:.1f} s, longest {longest:.1f} s"
    notes = [f"{count:,} recordings, {lengths}, in a window of {settings.seconds:g} s"]
    for rate, clips in sorted(index.resampled.items()):
        less = f", which holds nothing above {rate / 2000:g} kHz" if rate < settings.rate else ""
        notes.append(f"{clips:,} of {count:,} recordings are resampled from {rate:,} Hz{less}")
    if index.mixed:
        notes.append(f"{index.mixed:,} of {count:,} recordings have several channels, which are averaged")
    if settings.seconds > 2 * longest:
        shorter = f"--audio-seconds {math.ceil(longest)} would hold every recording"
        notes.append(f"the encoder hears silence most of the time: {shorter}")
    if settings.seconds < settings.own_seconds:
        notes.append(
            f"the window is cut from {settings.own_seconds:g} s to {settings.seconds:g} s: exports hear no longer sound"
        )
    return notes
