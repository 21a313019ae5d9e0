"""From what was asked of the task to a `Task`: the embedded one, or the user's own data.

This module refuses to know models: a tokenizer and generation settings are handed to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nash_search.config import TaskConfig
from nash_search.errors import InvalidInput
from nash_search.tasks.metrics import METRICS, TaskMetric
from nash_search.tasks.task import Examples, SealedTest, Task, median_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

G2P_BATCH = 64
"""Default workload batch of g2p: a page of text at once; at batch 1 the encoder's width is invisible."""
G2P_MAX_OUTPUT_TOKENS = 32
"""The longest pronunciation of the dictionary has 28 phonemes."""


def load_task(
    config: TaskConfig,
    tokenizer: PreTrainedTokenizerBase | None = None,
    generation: Mapping[str, Any] | None = None,
) -> Task:
    """Read and check the data, encode it, and say what was decided in `Task.notes`.

    Args:
        config: what was asked.
        tokenizer: the teacher's; None for an embedded task's own.
        generation: the teacher's scoring settings (`models.generation_settings`); None: greedy.

    Raises:
        InvalidInput: in the user's words, when the data break a rule.
    """
    if config.data is None:
        if config.name != "g2p":
            raise InvalidInput(f"task must be g2p, or come with --data, but got {config.name!r}")
        return _g2p(config, tokenizer, dict(generation or {}))
    raise InvalidInput("--data is not read yet")


def _metric(config: TaskConfig, default: str) -> TaskMetric:
    name = config.metric or default
    return METRICS[name]()


def _g2p(config: TaskConfig, tokenizer: PreTrainedTokenizerBase | None, generation: dict[str, Any]) -> Task:
    from nash_search.tasks import g2p

    tokens = tokenizer or g2p.build_tokenizer()
    train = g2p.examples_of("train", tokens)
    validation = g2p.examples_of("validation", tokens).in_hash_order().first(config.validation_examples)
    cap = config.max_output_tokens or G2P_MAX_OUTPUT_TOKENS

    def read_test() -> Examples:
        return g2p.examples_of("test", tokens).in_hash_order().first(config.test_examples)

    return Task(
        name=config.name,
        tokenizer=tokens,
        train=train,
        validation=validation,
        metric=_metric(config, "per"),
        input_tokens=median_length(train.input_ids),
        output_tokens=median_length(train.labels),
        max_output_tokens=cap,
        generation={"num_beams": 1, "do_sample": False, **generation, "max_new_tokens": cap},
        batch_size=G2P_BATCH,
        sealed=SealedTest(read=read_test),
        prefix=config.prefix,
    )
