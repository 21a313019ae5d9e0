"""Losses: pads count nowhere, the teacher teaches itself nothing."""

from __future__ import annotations

import pytest
import torch
from tiny import KINDS, batch_of, model_of
from torch.nn import functional as F

from nash_search.config import PruningRecipe
from nash_search.pruner import TeacherOutputs, shorten
from nash_search.pruner.distillation import Distillation, cross_entropy, divergence, forward, hidden_distance


def padded(batch, source=4, target=3):
    return {
        "input_ids": F.pad(batch["input_ids"], (0, source), value=0),
        "attention_mask": F.pad(batch["attention_mask"], (0, source), value=0),
        "labels": F.pad(batch["labels"], (0, target), value=-100),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_forward_is_the_model_with_labels(kind):
    model, batch = model_of(kind), batch_of(kind=kind)
    with torch.no_grad():
        logits, expected = forward(model, batch), model(**batch)
    assert torch.equal(logits, expected.logits)
    assert torch.allclose(cross_entropy(logits, batch["labels"]), expected.loss)


@pytest.mark.parametrize("kind", ["t5", "bart", "marian"])
def test_loss_is_unchanged_by_extra_padding(kind):
    teacher = model_of(kind)
    student = shorten(teacher, 2)
    distillation = Distillation(student, teacher, (0, 3), PruningRecipe(hidden_weight=1.0), hidden=True)
    with distillation.attached() as loss:
        one, other = loss(batch_of()).detach(), loss(padded(batch_of())).detach()
    assert torch.allclose(one, other, rtol=1e-5)


def test_divergence_is_zero_from_itself_and_the_definition_elsewhere():
    generator = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, 3, 5, 7, generator=generator)
    labels = torch.randint(0, 7, (3, 5), generator=generator)
    labels[0, 3:] = -100
    assert float(divergence(p, p, labels, 2.0)) == 0
    expected, count = 0.0, 0
    for b in range(3):
        for t in range(5):
            if labels[b, t] >= 0:
                teacher, student = (F.softmax(x[b, t] / 2.0, 0) for x in (p, q))
                expected += float((teacher * (teacher / student).log()).sum())
                count += 1
    assert float(divergence(q, p, labels, 2.0)) == pytest.approx(expected / count, rel=1e-5)


def test_hidden_distance_is_free_of_width_scale_and_pads():
    generator = torch.Generator().manual_seed(0)
    teacher = 5 * torch.randn(2, 3, 4, 8, generator=generator)
    student = teacher + torch.randn(teacher.shape, generator=generator)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
    value = float(hidden_distance(student, teacher, mask))
    assert float(hidden_distance(student * 7, teacher * 7, mask)) == pytest.approx(value, rel=1e-4)
    assert float(hidden_distance(student.repeat(1, 1, 1, 2), teacher.repeat(1, 1, 1, 2), mask)) == pytest.approx(value)
    spoiled = student + 100 * (1 - mask)[None, :, :, None]
    assert float(hidden_distance(spoiled, teacher, mask)) == pytest.approx(value)
    expected = 0.0
    for block in range(2):
        t, s = teacher[block][mask.bool()], student[block][mask.bool()]
        expected += float((s - t).square().mean() / t.var(correction=0)) / 2
    assert value == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("remembered", [False, True])
def test_the_loss_is_the_formula(remembered, tmp_path):
    teacher, batch = model_of("t5"), batch_of()
    student = shorten(teacher, 2)
    with torch.no_grad():
        theirs, mine = forward(teacher, batch), forward(student, batch)
    ce, kl = float(cross_entropy(mine, batch["labels"])), float(divergence(mine, theirs, batch["labels"], 3.0))
    outputs = TeacherOutputs(folder=tmp_path, k=40) if remembered else None
    for a, b in ((1.0, 0.0), (0.0, 1.0), (0.3, 0.6)):
        recipe = PruningRecipe(ce_weight=a, kd_weight=b, temperature=3.0)
        found = Distillation(student, teacher, (0, 3), recipe, hidden=False, outputs=outputs).loss(batch)
        assert float(found.detach()) == pytest.approx(a * ce + b * 9 * kl, rel=2e-3 if remembered else 1e-5)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_the_last_decoder_block_is_matched_with_the_teachers_last(layers):
    teacher = model_of("t5")
    from nash_search.pruner import selected_blocks

    blocks = selected_blocks(4, layers)
    distillation = Distillation(shorten(teacher, layers), teacher, blocks, PruningRecipe(), hidden=True)
    assert distillation.matched[-1] == 3
    assert distillation.matched[:-1] == list(blocks[:-1])


def test_the_teacher_itself_as_student_has_no_distance_and_the_teacher_gets_no_gradient():
    teacher = model_of("t5")
    recipe = PruningRecipe(ce_weight=0.0, hidden_weight=1.0)
    student = shorten(teacher, 4)
    distillation = Distillation(student, teacher, (0, 1, 2, 3), recipe, hidden=True)
    with distillation.attached() as loss:
        value = loss(batch_of())
        assert abs(float(value.detach())) < 1e-6
        value.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any(module._forward_hooks for module in student.modules())
