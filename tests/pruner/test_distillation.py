"""Losses: pads count nowhere, the teacher teaches itself nothing."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from tiny import KINDS, VOCABULARY, batch_of, model_of
from torch.nn import functional as F

from nash_search.config import PruningRecipe
from nash_search.pruner import TeacherCache, distillation, shorten, trim_vocabulary
from nash_search.pruner.distillation import (
    Distillation,
    cross_entropy,
    divergence,
    forward,
    hidden_distance,
    logits_of,
    states_of,
)
from nash_search.pruner.surgery import keep_decoder_blocks
from nash_search.pruner.vocabulary import named_ids


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
    assert torch.equal(counted(logits, batch), counted(expected.logits, batch))
    assert torch.allclose(cross_entropy(logits, batch["labels"]), expected.loss)


def counted(logits, batch):
    return logits[batch["labels"] != -100]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_teacher_forcing_sees_no_later_token(kind, attention):
    """Generation cannot either; transformers 5.15 to 5.17 let UMT5 look ahead, so our floor is above them."""
    model, batch = model_of(kind, attention=attention), batch_of(kind=kind)
    other = {**batch, "labels": batch["labels"].clone()}
    other["labels"][:, 2] = (batch["labels"][:, 2] + 5) % 30 + 3  # the decoder is given it at the fourth position
    with torch.no_grad():
        one, two = forward(model, batch), forward(model, other)
    torch.testing.assert_close(one[:, :3], two[:, :3])
    assert not torch.allclose(one[:, 3], two[:, 3])


def test_versions_of_transformers_that_look_ahead_are_not_admitted():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    (admitted,) = [r.specifier for r in map(Requirement, project["dependencies"]) if r.name == "transformers"]
    assert not list(admitted.filter(["5.15.1", "5.16.1", "5.17.0"])) and "5.23.0" in admitted


@pytest.mark.parametrize("untied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_head_on_its_states_is_the_model(kind, untied):
    model, batch = model_of(kind, untied=untied), batch_of(kind=kind)
    with torch.no_grad():
        logits_NV = logits_of(model, states_of(model, batch))
        torch.testing.assert_close(logits_NV, counted(forward(model, batch), batch), rtol=1e-5, atol=1e-5)
    assert not model.get_output_embeddings()._forward_pre_hooks


@pytest.mark.parametrize("kind", ["t5", "flan", "bart", "pegasus"])
def test_a_trimmed_vocabulary_has_its_own_head(kind):
    whole = model_of(kind)
    kept = sorted({*named_ids(whole), *range(3, VOCABULARY, 2)})
    trimmed = trim_vocabulary(whole, kept)
    words, batch = torch.tensor(kept), batch_of()
    row_of = torch.zeros(VOCABULARY, dtype=torch.long).scatter(0, words, torch.arange(len(kept)))
    renumbered = {name: row_of[batch[name].clamp(min=0)] for name in ("input_ids", "labels")}
    renumbered["labels"][batch["labels"] == -100] = -100
    renumbered["attention_mask"] = batch["attention_mask"]
    with torch.no_grad():
        states = states_of(trimmed, renumbered)
        torch.testing.assert_close(logits_of(trimmed, states), logits_of(whole, states)[:, words])
    assert logits_of(trimmed, states).shape[1] == len(kept)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("kind", ["t5", "flan", "bart", "marian"])
def test_remembered_states_teach_the_full_divergence(kind, temperature, tmp_path):
    """The gradient with the states in half precision against the definition, on a vocabulary of 4,000."""
    teacher, batch = model_of(kind, vocabulary=4000), batch_of()
    student = shorten(teacher, 2)
    recipe = PruningRecipe(ce_weight=0.0, kd_weight=1.0, temperature=temperature)
    outputs = TeacherCache(folder=tmp_path)

    def gradient(loss):
        student.zero_grad()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])

    remembered = gradient(Distillation(student, teacher, (0, 3), recipe, hidden=False, outputs=outputs).loss(batch))
    with torch.no_grad():
        theirs_NV = counted(forward(teacher, batch), batch)
    p_NV = F.softmax(theirs_NV / temperature, dim=-1)
    log_q_NV = F.log_softmax(counted(forward(student, batch), batch) / temperature, dim=-1)
    exact = gradient(temperature**2 * (p_NV * (p_NV.log() - log_q_NV)).sum(-1).mean())
    assert float(F.cosine_similarity(remembered, exact, dim=0)) >= 0.999
    assert float(remembered.norm()) == pytest.approx(float(exact.norm()), rel=5e-3)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size < 2 * 32 * len(theirs_NV) + 200  # two bytes times the width, a token


@pytest.mark.parametrize("kind", ["t5", "bart", "marian"])
def test_both_stages_teach_by_one_loss(kind, tmp_path):
    teacher, batch = model_of(kind), batch_of()
    student = shorten(teacher, 2)
    recipe = PruningRecipe(hidden_weight=1e-12)
    with Distillation(student, teacher, (0, 3), recipe, hidden=True).attached() as loss:
        narrow = loss(batch).detach()
    outputs = TeacherCache(folder=tmp_path)
    tune = Distillation(student, teacher, (0, 3), recipe, hidden=False, outputs=outputs).loss(batch).detach()
    torch.testing.assert_close(narrow, tune, rtol=1e-3, atol=0)


@pytest.mark.parametrize("kind", ["t5", "bart", "marian"])
def test_loss_is_unchanged_by_extra_padding(kind):
    teacher = model_of(kind)
    student = shorten(teacher, 2)
    with Distillation(student, teacher, (0, 3), PruningRecipe(hidden_weight=1.0), hidden=True).attached() as loss:
        one, other = loss(batch_of()).detach(), loss(padded(batch_of())).detach()
    assert torch.allclose(one, other, rtol=1e-5)


def test_divergence_is_zero_from_itself_and_the_definition_elsewhere(monkeypatch):
    monkeypatch.setattr(distillation, "CACHED", 5 * 7)  # three slices, the last one shorter
    generator = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, 13, 7, generator=generator, dtype=torch.float64)
    assert float(divergence(p, p, 2.0)) == pytest.approx(0, abs=1e-7)
    q.requires_grad_()
    expected = 0.0
    for token in range(13):
        teacher, student = (F.softmax(x[token] / 2.0, 0) for x in (p, q))
        expected = expected + (teacher * (teacher / student).log()).sum() / 13
    found = divergence(q, p, 2.0)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    gradients = [torch.autograd.grad(3 * value, q)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)


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
    ce = float(cross_entropy(mine, batch["labels"]))
    kl = float(divergence(counted(mine, batch), counted(theirs, batch), 3.0))
    outputs = TeacherCache(folder=tmp_path) if remembered else None
    for a, b in ((1.0, 0.0), (0.0, 1.0), (0.3, 0.6)):
        recipe = PruningRecipe(ce_weight=a, kd_weight=b, temperature=3.0)
        found = Distillation(student, teacher, (0, 3), recipe, hidden=False, outputs=outputs).loss(batch)
        assert float(found.detach()) == pytest.approx(a * ce + b * 9 * kl, rel=2e-3 if remembered else 1e-5)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_the_last_decoder_block_is_matched_with_the_teachers_last(layers):
    teacher = model_of("t5")
    from nash_search.pruner import selected_blocks

    blocks = selected_blocks(4, layers)
    matched = Distillation(shorten(teacher, layers), teacher, blocks, PruningRecipe(), hidden=True).matched
    assert matched[-1] == 3
    assert matched[:-1] == list(blocks[:-1])


def test_the_teacher_itself_as_student_has_no_distance_and_the_teacher_gets_no_gradient():
    teacher = model_of("t5")
    recipe = PruningRecipe(ce_weight=0.0, hidden_weight=1.0)
    student = shorten(teacher, 4)
    with Distillation(student, teacher, (0, 1, 2, 3), recipe, hidden=True).attached() as loss:
        value = loss(batch_of())
        assert abs(float(value.detach())) < 1e-6
        value.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any(module._forward_hooks for module in student.modules())


def test_a_frozen_encoder_hears_a_batch_once_for_teacher_student_and_later_trials(tmp_path):
    teacher, batch = model_of("whisper"), batch_of(kind="whisper")
    recipe, seen = PruningRecipe(), []
    teacher.get_encoder().register_forward_hook(lambda *_: seen.append("teacher"))

    def gradients(frozen, outputs=None):
        student = keep_decoder_blocks(teacher, [0, 2])
        student.get_encoder()._forward_hooks.clear()  # the copy has the teacher's
        student.get_encoder().register_forward_hook(lambda *_: seen.append("student"))
        student.get_encoder().requires_grad_(not frozen)
        loss = Distillation(student, teacher, [0, 2], recipe, hidden=False, outputs=outputs).loss(batch)
        loss.backward()
        return float(loss.detach()), [p.grad for p in student.get_decoder().parameters()]

    plain, expected = gradients(frozen=False)
    assert sorted(seen) == ["student", "teacher"]
    cache = TeacherCache(folder=tmp_path / "kept")
    for outputs, calls in ((None, ["teacher"]), (cache, ["teacher"]), (cache, [])):
        seen.clear()
        found, given = gradients(frozen=True, outputs=outputs)
        assert found == pytest.approx(plain, rel=1e-3) and seen == calls
        for one, other in zip(given, expected, strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.allclose(one, other, atol=2e-2 * float(other.abs().max()) + 1e-6)
