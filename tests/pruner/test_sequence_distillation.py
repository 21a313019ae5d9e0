"""The teacher's answers as targets: taught to itself they are its likeliest tokens; pads and ends stay out."""

from __future__ import annotations

import pytest
import torch
from tiny import KINDS, batch_of, model_of

from nash_search.errors import InvalidInput
from nash_search.pruner import TeacherCache, answered, labelled
from nash_search.pruner.distillation import forward

OWN_BEGINNING = ["mbart", "plbart"]
TAUGHT = [kind for kind in KINDS if kind not in (*OWN_BEGINNING, "whisper")]


@pytest.mark.parametrize("kind", TAUGHT)
def test_fed_back_an_answer_is_the_teachers_likeliest_token_everywhere(kind):
    teacher = model_of(kind)
    teacher.generation_config.forced_eos_token_id = 1  # must not end an answer that is cut off
    for seed in range(4):
        batch = answered(teacher, batch_of)(seed)
        labels = batch["labels"]
        assert torch.equal(batch["input_ids"], batch_of(seed)["input_ids"])
        said = labels != -100
        assert ((labels != -100).sum(1) <= 2 * (batch_of(seed)["labels"] != -100).sum(1)).all()
        with torch.no_grad():
            likeliest = forward(teacher, batch).argmax(-1)
        assert torch.equal(likeliest[said], labels[said])


def test_a_model_that_hears_is_fed_its_answers_behind_the_labels_own_prompt(tmp_path):
    teacher, prompt, end = model_of("whisper"), [30, 31], 1
    for config in (teacher.config, teacher.generation_config):
        config.pad_token_id = end  # as real ones have it
    teacher.generation_config.no_timestamps_token_id = prompt[-1]

    class Heard:
        """Batches that say when an answer may be learnt."""

        def __init__(self, agrees=None):
            self.agrees = agrees

        def __call__(self, step):
            batch = batch_of(step, kind="whisper")
            own = batch["labels"].masked_fill(batch["labels"] == end, 5)
            return batch | {"labels": torch.cat([torch.tensor([prompt] * len(own)), own], dim=1)}

    kept = TeacherCache(folder=tmp_path / "kept")
    for seed in range(3):
        batch = answered(teacher, Heard(), kept)(seed)
        labels, said = batch["labels"], batch["labels"] != -100
        assert torch.equal(batch["input_features"], Heard()(seed)["input_features"])
        assert labels[:, :2].tolist() == [prompt] * len(labels)
        with torch.no_grad():
            likeliest = forward(teacher, batch)[..., : prompt[-1] + 1].argmax(-1)  # what is behind are time stamps
        written = said & (torch.arange(labels.shape[1]) >= 2)
        assert torch.equal(likeliest[written], labels[written])
    asked = []
    own = Heard(lambda answer, label: bool(asked.append((answer, label))))  # never
    refused = answered(teacher, own, kept)
    for _ in range(2):
        assert torch.equal(refused(0)["labels"], own(0)["labels"])
    assert len(asked) == 3 and all(label[:2] == prompt for _, label in asked)


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
    outputs = TeacherCache(folder=tmp_path)
    first = answered(model_of("t5"), batch_of, outputs)(0)["labels"]
    assert torch.equal(answered(model_of("t5", seed=5), batch_of, outputs)(0)["labels"], first)
    assert not torch.equal(answered(model_of("t5", seed=5), batch_of)(0)["labels"], first)


def test_an_example_is_answered_once_whatever_batch_it_comes_back_in(tmp_path, monkeypatch):
    teacher, asked = model_of("t5"), []
    generate = teacher.generate
    monkeypatch.setattr(
        teacher, "generate", lambda **given: (asked.append(len(given["input_ids"])), generate(**given))[1]
    )
    rows = {name: torch.cat([batch_of(seed)[name] for seed in range(3)]) for name in batch_of(0)}
    count = len(rows["labels"])

    def shuffled(step):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(step))
        return {name: tensor[order] for name, tensor in rows.items()}

    outputs = TeacherCache(folder=tmp_path)
    first = [answered(teacher, shuffled, outputs)(step) for step in (0, 1)]
    assert asked == [count]
    assert torch.equal(answered(teacher, shuffled)(1)["labels"], first[1]["labels"]) and asked == [count, count]
    two = answered(teacher, lambda step: {n: t[:2] for n, t in shuffled(step).items()}, outputs)(1)["labels"]
    assert len(asked) == 2 and torch.equal(two, first[1]["labels"][:2, : two.shape[1]])


def test_where_memory_runs_out_halves_are_answered(monkeypatch):
    teacher, asked = model_of("t5"), []
    whole = answered(teacher, batch_of)(0)["labels"]
    generate = teacher.generate

    def small(**given):
        asked.append(len(given["input_ids"]))
        if asked[-1] > 1:
            raise torch.OutOfMemoryError
        return generate(**given)

    monkeypatch.setattr(teacher, "generate", small)
    labels = answered(teacher, batch_of)(0)["labels"]
    assert torch.equal(labels, whole) and max(asked) == len(whole) and asked.count(1) == len(whole)
    monkeypatch.setattr(teacher, "generate", lambda **given: small(input_ids=given["input_ids"].repeat(2, 1)))
    with pytest.raises(torch.OutOfMemoryError):
        answered(teacher, batch_of)(0)


def test_an_answer_fits_the_models_positions():
    teacher = model_of("bart")
    teacher.generation_config.eos_token_id = 10**6  # never ends
    long = batch_of(0) | {"labels": torch.full((len(batch_of(0)["labels"]), teacher.config.max_position_embeddings), 5)}
    labels = answered(teacher, lambda step: long)(0)["labels"]
    assert labels.shape[1] == teacher.config.max_position_embeddings - 1
    forward(teacher, {**long, "labels": labels})


@pytest.mark.parametrize("kind", OWN_BEGINNING)
def test_families_whose_labels_are_not_what_they_generate_are_refused(kind):
    with pytest.raises(InvalidInput, match=f"answers must be labels as they are generated, but got {kind}"):
        answered(model_of(kind), batch_of)


def test_mixed_labels_take_turns_row_by_row_and_step_by_step():
    teacher = model_of("t5")
    whole = answered(teacher, batch_of)
    mixed = labelled(teacher, batch_of, "mixed")
    for step in (0, 1, 2, 3):
        found, own, said = (batches(step)["labels"] for batches in (mixed, batch_of, whole))
        for row in range(len(own)):
            expected = said if (row - step) % 2 == 0 else own
            assert found[row][found[row] != -100].tolist() == expected[row][expected[row] != -100].tolist()
    assert labelled(teacher, batch_of, "data") is batch_of
    assert torch.equal(labelled(teacher, batch_of, "teacher")(0)["labels"], whole(0)["labels"])
