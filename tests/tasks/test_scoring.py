"""Scoring sorts, batches, guards and keeps the mode."""

from __future__ import annotations

import pytest
import torch

from nash_search import writing
from nash_search.config import TaskConfig
from nash_search.tasks import scoring
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


def test_on_a_gpu_the_batch_grows_until_half_of_the_card_is_full_and_halves_where_memory_runs_out(
    folder, tokenizer, monkeypatch
):
    task = load_task(TaskConfig(name="mine", data=str(folder), metric="exact_match"), tokenizer)
    sizes, most = [], 80

    class OnCard(Parrot):
        device = torch.device("cuda", 0)

        def generate(self, input_ids, attention_mask, **settings):
            sizes.append(len(input_ids))
            if len(input_ids) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().generate(input_ids, attention_mask, **settings)

    monkeypatch.setattr(writing, "on_device", lambda batch, model: batch)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    echo, inputs = OnCard(lambda ids: ids), task.encode(["red cat", "small"] * 200)
    for free, expected in ((60, [32, 64, 128, 64, 64, 64, 64, 48]), (30, [32] * 12 + [16])):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 100))
        sizes.clear()
        assert scoring.generate(echo, task, inputs) == ["red cat", "small"] * 200
        assert sizes == expected
