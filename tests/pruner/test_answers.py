"""The teacher's answers as targets: taught to itself they are its likeliest tokens; pads and ends stay out."""

from __future__ import annotations

import pytest
import torch
from tiny import KINDS, batch_of, model_of

from nash_search.errors import InvalidInput
from nash_search.pruner import TeacherOutputs, answered
from nash_search.pruner.distillation import forward

TAUGHT = [kind for kind in KINDS if kind not in ("mbart", "whisper")]


@pytest.mark.parametrize("kind", TAUGHT)
def test_fed_back_an_answer_is_the_teachers_likeliest_token_everywhere(kind):
    teacher = model_of(kind)
    teacher.generation_config.forced_eos_token_id = 1  # must not end an answer that is cut off
    for seed in range(4):
        batch = answered(teacher, batch_of)(seed)
        labels = batch["labels"]
        assert torch.equal(batch["input_ids"], batch_of(seed)["input_ids"])
        said = labels != -100
        assert labels.shape[1] <= 6
        with torch.no_grad():
            likeliest = forward(teacher, batch).argmax(-1)
        assert torch.equal(likeliest[said], labels[said])


def test_answers_stop_at_the_end_token():
    teacher = model_of("t5")
    whole = [row for seed in range(8) for row in answered(teacher, batch_of)(seed)["labels"].tolist()]
    end = whole[0][2]
    teacher.generation_config.eos_token_id = [end, 1]
    rows = [row for seed in range(8) for row in answered(teacher, batch_of)(seed)["labels"].tolist()]
    assert rows[0] != whole[0]
    for row, unended in zip(rows, whole, strict=True):
        count = unended.index(end) + 1 if end in unended else len(unended)
        assert row[:count] == unended[: len(row)][:count]
        assert set(row[count:]) <= {-100}


def test_answers_are_made_once(tmp_path):
    outputs = TeacherOutputs(folder=tmp_path)
    first = answered(model_of("t5"), batch_of, outputs)(0)["labels"]
    assert torch.equal(answered(model_of("t5", seed=5), batch_of, outputs)(0)["labels"], first)
    assert not torch.equal(answered(model_of("t5", seed=5), batch_of)(0)["labels"], first)


@pytest.mark.parametrize("kind", ["mbart", "whisper"])
def test_families_whose_labels_are_not_what_they_generate_are_refused(kind):
    with pytest.raises(InvalidInput, match=f"answers must be labels as they are generated, but got {kind}"):
        answered(model_of(kind), batch_of)
