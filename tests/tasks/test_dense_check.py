"""A model that does not know the data is told what to run."""

from __future__ import annotations

import json

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


def test_a_rare_label_is_looked_at_on_more_examples_before_a_good_model_is_refused(tmp_path, tokenizer):
    """One label in twenty; two answers are wrong, both in the first look, where chance is right nine times of ten."""
    from nash_search.tasks import dense_check

    words = "red green blue small large cat dog bird runs sleeps eats here there now then".split()
    sources = [" ".join((words[i % 15], words[i // 15 % 15], words[i // 225])) for i in range(900)]
    rows = [{"source": s, "target": "now" if i % 20 == 7 else "then"} for i, s in enumerate(sources)]
    for split, some in (("train", rows[:60]), ("validation", rows[60:660]), ("test", rows[660:])):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    task = load_task(TaskConfig(name="mine", data=str(tmp_path), metric="accuracy"), tokenizer)
    label = {row["source"]: row["target"] for row in rows}

    def read(ids):
        return tokenizer.decode(ids, skip_special_tokens=True).strip()

    first = [source for ids in task.validation.first(dense_check.SAMPLE).inputs if label[source := read(ids)] == "then"]
    said = label | dict.fromkeys(first[:2], "now")

    def answer(ids):
        return tokenizer(said[read(ids)])["input_ids"]

    assert dense_check.check_finetuned(Parrot(answer), task, fix="run finetune").n == dense_check.MORE
    guessed = dict(zip(label, [*label.values()][3:] + [*label.values()][:3], strict=True))
    with pytest.raises(InvalidInput, match="run finetune"):
        dense_check.check_finetuned(
            Parrot(lambda ids: tokenizer(guessed[read(ids)])["input_ids"]), task, fix="run finetune"
        )
