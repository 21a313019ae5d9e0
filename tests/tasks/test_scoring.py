"""Scoring sorts, batches, guards and keeps the mode."""

from __future__ import annotations

import pytest

from nash_search.config import TaskConfig
from nash_search.tasks.load import load_task
from tests.tasks.parrot import Parrot


def test_scoring_sorts_batches_guards_and_keeps_the_mode(folder, tokenizer):
    from contextlib import contextmanager

    from nash_search.tasks.scoring import predict, score

    task = load_task(TaskConfig(name="mine", data=str(folder), metric="exact_match"), tokenizer)
    entered = []

    @contextmanager
    def guard():
        entered.append(True)
        yield

    echo = Parrot(lambda ids: ids)
    quality = score(echo, task, batch_size=7, guard=guard)
    assert len(entered) == 3 and quality.n == 20 and quality.split == "validation"
    palindromes = sum(s == r[0] for s, r in zip(task.validation.sources, task.validation.references, strict=True))
    assert quality.value == pytest.approx(100 * palindromes / 20)
    assert predict(echo, task, ["red cat", "small"]) == ["red cat", "small"]
    assert task.sealed.opened == 0
    assert score(echo, task, "test", limit=5).n == 5 and task.sealed.opened == 1
    assert "exact_match" in quality.signature and "num_beams=1" in quality.signature
