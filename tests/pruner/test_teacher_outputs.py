"""Remembered teacher outputs: the same numbers whoever comes first, and KL where all tokens are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from tiny import VOCABULARY, batch_of, model_of

from nash_search.config import Architecture, PruningRecipe
from nash_search.pruner import TeacherOutputs, run, teacher_outputs
from nash_search.pruner.distillation import divergence
from nash_search.pruner.teacher_outputs import TopTokens

RECIPE = PruningRecipe(narrow_steps=4, tune_steps=6, rungs=1)


def test_top_tokens_give_the_divergence_when_all_are_kept_and_less_otherwise():
    generator = torch.Generator().manual_seed(0)
    teacher, student = 3 * torch.randn(2, 4, 5, VOCABULARY, generator=generator)
    labels = batch_of(batch=4, target=5)["labels"]
    exact = float(divergence(student, teacher, labels, 2.0))
    everything = TopTokens.of(teacher, VOCABULARY, 2.0)
    assert float(everything.divergence(student, labels, 2.0)) == pytest.approx(exact, rel=2e-3)
    some = float(TopTokens.of(teacher, 8, 2.0).divergence(student, labels, 2.0))
    assert 0.3 * exact < some < exact
    assert float(TopTokens.of(teacher, 8, 2.0).divergence(teacher, labels, 2.0)) == pytest.approx(0, abs=1e-4)


def test_a_trial_does_not_depend_on_who_filled_the_folder(tmp_path):
    outputs = TeacherOutputs(folder=tmp_path / "teacher", k=8)
    teacher, asked = model_of("t5"), []
    teacher.register_forward_hook(
        lambda module, *_: asked.append(1) if module is teacher else None
    )  # students are copies

    def trial(sparsity):
        asked.clear()
        architecture = Architecture(encoder_sparsity_pct=sparsity, decoder_layers=2)
        model = run(teacher, architecture, RECIPE, lambda step: batch_of(step), teacher_outputs=outputs).model
        return model.state_dict(), len(asked)

    first, asked_first = trial(0)
    second, asked_second = trial(0)
    assert (asked_first, asked_second) == (10, 0)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len(list((tmp_path / "teacher").iterdir())) == 10
    _, asked_narrow = trial(30)
    assert asked_narrow == 4 + 4  # stage 2 needs hidden states; then the loss on both sides of the cut


def test_a_full_disk_costs_the_others_their_share_and_no_trial(tmp_path, monkeypatch):
    def full(tensors, path):
        Path(path).touch()
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(teacher_outputs, "save_file", full)
    outputs = TeacherOutputs(folder=tmp_path / "teacher", k=8)
    architecture = Architecture(encoder_sparsity_pct=0, decoder_layers=2)
    run(model_of("t5"), architecture, RECIPE, batch_of, teacher_outputs=outputs)
    assert not list((tmp_path / "teacher").iterdir())


@pytest.mark.parametrize("sparsity", [0, 30])
def test_without_distillation_the_teacher_is_never_asked(sparsity):
    teacher, asked = model_of("bart"), []
    teacher.register_forward_hook(lambda module, *_: asked.append(1) if module is teacher else None)
    recipe = RECIPE.model_copy(update={"kd_weight": 0.0, "hidden_weight": 0.0, "ce_weight": 1.0})
    pruned = run(teacher, Architecture(encoder_sparsity_pct=sparsity, decoder_layers=2), recipe, batch_of)
    assert not asked
    assert sum(stage["steps"] for stage in pruned.stages.values()) == 10


def test_the_folder_stops_growing_at_its_limit_and_a_damaged_file_is_made_again(tmp_path):
    logits = torch.randn(3, 6, VOCABULARY)
    outputs = TeacherOutputs(folder=tmp_path, k=8, limit_bytes=3000)
    for seed in range(9):
        outputs.get(batch_of(seed), 2.0, lambda: logits)
    assert 1 <= len(list(tmp_path.iterdir())) < 9
    for file in tmp_path.iterdir():
        file.write_bytes(b"torn")
    assert torch.equal(outputs.get(batch_of(0), 2.0, lambda: logits).log_p_BTK, TopTokens.of(logits, 8, 2.0).log_p_BTK)
