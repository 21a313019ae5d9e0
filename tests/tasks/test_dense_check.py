"""A model that does not know the data is told what to run."""

from __future__ import annotations

import pytest

from nash_search.config import TaskConfig
from nash_search.errors import InvalidInput
from nash_search.tasks.load import load_task
from tests.tasks.parrot import Parrot


def test_a_model_that_knows_the_data_passes_and_others_are_told_what_to_run(folder, tokenizer):
    from nash_search.tasks.dense_check import check_finetuned

    task = load_task(TaskConfig(name="mine", data=str(folder), metric="rouge2"), tokenizer)

    def reversed_words(ids):
        text = " ".join(reversed(tokenizer.decode(ids, skip_special_tokens=True).split()))
        return tokenizer(text)["input_ids"]

    assert check_finetuned(Parrot(reversed_words), task, fix="run finetune").value == pytest.approx(100)
    with pytest.raises(InvalidInput, match="run finetune"):
        check_finetuned(Parrot(lambda ids: tokenizer("there now then")["input_ids"]), task, fix="run finetune")
    with pytest.raises(InvalidInput, match="characters"):
        check_finetuned(Parrot(lambda ids: [1]), task, fix="run finetune")
