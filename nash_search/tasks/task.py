"""A task as the rest of the package sees it: examples in, batches out, a sealed test split.

`Examples` holds one split as text and as token ids; `train_batches` turns the train split into a
pure function from the optimizer step to a batch, so that training resumes exactly from the step
number alone:

    epoch  = step // steps_per_epoch                  (the remainder of an epoch is dropped)
    order  = permutation(seed, epoch), sorted by length inside chunks of 50 batches,
             the batches then shuffled

The test split is read through `Task.open_sealed_test` alone, which counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nash_search.encoder_rows import EncoderRows, rows_of
from nash_search.token_rows import Int64, TokenRows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from nash_search.summary_rows import DataFacts
    from nash_search.tasks.example_counts import TaskMetric
    from nash_search.tasks.features import SpeechFeatures

CHUNK_BATCHES = 50
"""Batches whose examples are sorted by length together: enough to save padding, few enough to stay random."""
AT_ONCE = 1000
"""Texts that a tokenizer is given together."""
IGNORED = -100
"""Label of padding: no loss there."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """One split: sources, every reference of each, what goes into the encoder, and the first reference's token ids."""

    sources: list[str]
    """Texts, or what names a recording."""
    references: list[list[str]]
    inputs: EncoderRows
    labels: TokenRows
    content: str = ""
    """Digest of what the sources name, where they are no texts."""

    def __post_init__(self) -> None:
        for name in ("inputs", "labels"):  # lists of lists too, where there are few
            object.__setattr__(self, name, rows_of(getattr(self, name)))
        sizes = {len(self.sources), len(self.references), len(self.inputs), len(self.labels)}
        if len(sizes) != 1:
            raise ValueError(f"examples must have one source, references, ids and labels each, but got {sorted(sizes)}")

    def __len__(self) -> int:
        return len(self.sources)

    def first(self, count: int | None) -> Examples:
        """The first `count` examples (None: all)."""
        if count is None or count >= len(self):
            return self
        return replace(
            self,
            sources=self.sources[:count],
            references=self.references[:count],
            inputs=self.inputs.picked(range(count)),
            labels=self.labels[:count],
        )

    def followed_by(self, more: Examples) -> Examples:
        """These examples, then others."""
        return replace(
            self,
            sources=self.sources + more.sources,
            references=self.references + more.references,
            inputs=self.inputs.followed_by(more.inputs),
            labels=self.labels.followed_by(more.labels),
        )

    @cached_property
    def fingerprint(self) -> str:
        """Eight hex digits of the texts: the same split gives the same number anywhere."""
        state = hashlib.sha256(self.content.encode())
        for source, references in zip(self.sources, self.references, strict=True):
            state.update("\x1f".join((source, *references)).encode("utf-8", "surrogatepass") + b"\x1e")
        return state.hexdigest()[:8]


@dataclass(kw_only=True)
class SealedTest:
    """The test split behind one function: nothing is read before `open`, and every call is counted."""

    read: Callable[[], Examples]
    opened: int = 0
    """How often the split was handed out by this object."""

    def open(self) -> Examples:
        """Count the call, then read the split."""
        self.opened += 1
        return self.read()


@dataclass(frozen=True, kw_only=True)
class Task:
    """Text in, text out, and how good the text is."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    train: Examples
    validation: Examples
    metric: TaskMetric
    input_tokens: int
    """Median source length, tokens."""
    output_tokens: int
    """Median reference length, generated tokens, the end-of-sequence token included."""
    max_output_tokens: int
    """Generation cap used for scoring, tokens."""
    generation: dict[str, Any]
    """Scoring settings handed to `generate`; exports carry the same."""
    batch_size: int
    """Sequences per `generate` call of the default workload."""
    sealed: SealedTest
    speech: SpeechFeatures | None = None
    """What makes features of recordings; None: sources are texts."""
    prompt_tokens: int = 0
    """Tokens of every label that `generate` is given, not asked for."""
    agrees: Callable[[list[int], list[int]], bool] | None = None
    """Whether what a teacher writes (token ids) is near enough to a label to be learnt; None: it always is."""
    clip_seconds: float | None = None
    """Median recording, before it is filled up to the window."""
    prefix: str = ""
    """Prompt already put before every source of the splits; `predict` adds it to new ones."""
    max_input_tokens: int | None = None
    """Sources are truncated to this many tokens (None: never)."""
    data: DataFacts | None = None
    """Rows of the user's splits, and what was dropped from them (None: an embedded task)."""
    notes: tuple[str, ...] = field(default=())
    """What was decided about the data, one sentence each, to be said aloud."""

    def train_batches(self, batch_size: int, seed: int) -> Batches:
        """Length-bucketed, seeded batches of the train split, as a pure function of the step."""
        pad = self.tokenizer.pad_token_id
        pad = 0 if pad is None else int(pad)
        return Batches(self.train, batch_size=batch_size, seed=seed, pad_token_id=pad, agrees=self.agrees)

    def open_sealed_test(self) -> Examples:
        """The only way to the test split; `sealed.opened` says how often it was taken."""
        return self.sealed.open()

    @property
    def extractor(self) -> Any:
        """The feature extractor that every export carries; None: it reads text."""
        return self.speech.extractor if self.speech is not None else None

    def encode(self, sources: Sequence[str]) -> EncoderRows:
        """What goes into the encoder, as the splits have it: texts with the prefix, truncated alike; or recordings."""
        if self.speech is not None:
            return self.speech.rows(sources)[0]
        texts = [self.prefix + source for source in sources]
        return encode(self.tokenizer, texts, self.max_input_tokens)


class Batches:
    """step -> batch of tensors, padded to the batch's own longest; the same step always gives the same batch."""

    def __init__(
        self,
        examples: Examples,
        *,
        batch_size: int,
        seed: int,
        pad_token_id: int,
        agrees: Callable[[list[int], list[int]], bool] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but got {batch_size}")
        if not len(examples):
            raise ValueError("train split must have at least 1 example, but got 0")
        self._inputs, self._labels = examples.inputs, examples.labels
        self._input_lengths, self._label_lengths = self._inputs.lengths, self._labels.lengths
        self._seed = seed
        self._pad = pad_token_id
        self.agrees = agrees
        self.batch_size = min(batch_size, len(examples))
        self.steps_per_epoch = len(examples) // self.batch_size
        self._epoch = -1
        self._order = np.empty((0, self.batch_size), dtype=np.int64)

    def __call__(self, step: int) -> dict[str, torch.Tensor]:
        """The batch of optimizer step `step` (0, 1, …)."""
        rows = self._rows_of(step // self.steps_per_epoch)[step % self.steps_per_epoch]
        labels, _ = self._labels.padded(rows, IGNORED)
        return self._inputs.picked(rows).batch(self._pad) | {"labels": torch.from_numpy(labels)}

    def _rows_of(self, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        if epoch != self._epoch:  # a memo only: the order depends on seed and epoch alone
            random = np.random.default_rng([self._seed, epoch])
            used = self.steps_per_epoch * self.batch_size
            order = random.permutation(len(self._inputs))[:used]
            size = CHUNK_BATCHES * self.batch_size
            for start in range(0, used, size):
                chunk = order[start : start + size]
                # lexsort's last key leads: source length, then target length; ties keep the random order
                keys = (self._label_lengths[chunk], self._input_lengths[chunk])
                order[start : start + size] = chunk[np.lexsort(keys)]
            self._order = random.permutation(order.reshape(self.steps_per_epoch, self.batch_size))
            self._epoch = epoch
        return self._order


def hash_order(texts: Sequence[str]) -> list[int]:
    """Places of the texts, ordered by a hash of each; equal texts stay as they stood."""
    return sorted(range(len(texts)), key=lambda i: hashlib.sha256(texts[i].encode("utf-8")).digest())


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int | None, *, as_target: bool = False
) -> TokenRows:
    """Token ids, special tokens included, truncated to `max_tokens`."""
    return TokenRows.joined(list(encoded_in_parts(tokenizer, texts, max_tokens, as_target=as_target)))


def encoded_in_parts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int | None, *, as_target: bool
) -> Iterator[TokenRows]:
    """As `encode`, a few texts at a time, for memory."""
    for start in range(0, len(texts), AT_ONCE):
        some = list(texts[start : start + AT_ONCE])
        yield TokenRows.of(_encoded(tokenizer, some, max_tokens, as_target))


def _encoded(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], max_tokens: int | None, as_target: bool
) -> Iterable[Sequence[int]]:
    if max_tokens is None and not as_target and tokenizer.is_fast:  # three times as fast as the call below
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        return (found.ids for found in backend.encode_batch_fast(texts))
    words: dict[str, Any] = {"text_target": texts} if as_target else {"text": texts}
    found = tokenizer(**words, truncation=max_tokens is not None, max_length=max_tokens, return_attention_mask=False)
    return iter(found["input_ids"])


def median_length(rows: EncoderRows) -> int:
    """Median length, at least 1."""
    return max(1, int(np.median(rows.lengths))) if len(rows) else 1


def length_cap(lengths: Int64, asked: int | None, limit: int | None) -> int:
    """Tokens kept: asked for, or the data's own, never more than the tokenizer or the model says it takes."""
    longest, usual = int(lengths.max()), float(np.percentile(lengths, 99))
    own = longest if longest <= 2 * usual else usual
    cap = asked or -(-int(own) // 8) * 8
    return min(cap, limit) if limit else cap


def scored_with(generation: Mapping[str, Any], cap: int) -> dict[str, Any]:
    """The settings of `generate`: greedy unless the model's own say otherwise, and this many new tokens at most."""
    return {"num_beams": 1, "do_sample": False, **generation, "max_new_tokens": cap}
