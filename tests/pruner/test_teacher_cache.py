"""Remembered teacher outputs: the same numbers whoever comes first, in half precision where they fit, up to a limit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from tiny import batch_of, model_of

from nash_search.config import Architecture, PruningRecipe
from nash_search.pruner import TeacherCache, TrainingContext, run, teacher_cache

RECIPE = PruningRecipe(narrow_steps=4, tune_steps=6, rungs=1)


def test_a_trial_does_not_depend_on_who_filled_the_folder(tmp_path):
    outputs = TeacherCache(folder=tmp_path / "teacher")
    teacher, asked = model_of("t5"), []
    teacher.register_forward_hook(
        lambda module, *_: asked.append(1) if module is teacher else None
    )  # students are copies

    def trial(sparsity):
        asked.clear()
        architecture = Architecture(encoder_sparsity_pct=sparsity, decoder_layers=2)
        model = run(
            teacher, architecture, RECIPE, lambda step: batch_of(step), TrainingContext(teacher_cache=outputs)
        ).model
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

    monkeypatch.setattr(teacher_cache, "save_file", full)
    outputs = TeacherCache(folder=tmp_path / "teacher")
    architecture = Architecture(encoder_sparsity_pct=0, decoder_layers=2)
    run(model_of("t5"), architecture, RECIPE, batch_of, TrainingContext(teacher_cache=outputs))
    assert not list((tmp_path / "teacher").iterdir())


@pytest.mark.parametrize("sparsity", [0, 30])
def test_without_distillation_the_teacher_is_never_asked(sparsity):
    teacher, asked = model_of("bart"), []
    teacher.register_forward_hook(lambda module, *_: asked.append(1) if module is teacher else None)
    recipe = RECIPE.model_copy(update={"kd_weight": 0.0, "hidden_weight": 0.0, "ce_weight": 1.0})
    pruned = run(teacher, Architecture(encoder_sparsity_pct=sparsity, decoder_layers=2), recipe, batch_of)
    assert not asked
    assert sum(stage["steps"] for stage in pruned.stages.values()) == 10


def test_a_damaged_file_is_made_again(tmp_path):
    states = torch.randn(13, 6)
    outputs = TeacherCache(folder=tmp_path)
    outputs.states(batch_of(0), lambda: states)
    for file in tmp_path.iterdir():
        file.write_bytes(b"torn")
    assert torch.equal(outputs.states(batch_of(0), lambda: states), states.half())
    assert torch.equal(outputs.states(batch_of(0), lambda: 1 / 0), states.half())


def test_the_folder_never_holds_more_than_its_limit_however_batches_differ(tmp_path):
    outputs = TeacherCache(folder=tmp_path, limit_bytes=100_000)
    sizes = [10, 2000, 10, 1500, 10, 900, 10, 10]  # tokens: short batches after long ones
    for seed, tokens in enumerate(sizes):
        kept = outputs.states(batch_of(seed), lambda tokens=tokens: torch.zeros(tokens, 32))
        assert len(kept) == tokens
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 100_000
    assert len(list(tmp_path.iterdir())) == 6  # 2,000 tokens of 64 bytes never fit, 900 no longer


def test_states_too_large_for_half_precision_are_kept_whole(tmp_path):
    outputs = TeacherCache(folder=tmp_path)
    for seed, (largest, dtype) in enumerate([(65504.0, torch.float16), (1e6, torch.float32)]):
        states = torch.randn(13, 6)
        states[3, 2] = largest
        for _ in range(2):
            kept = outputs.states(batch_of(seed), lambda states=states: states)
            assert kept.dtype == dtype and torch.equal(kept, states.to(dtype))


def test_the_last_of_a_disk_is_left_to_weights(tmp_path, monkeypatch):
    free = SimpleNamespace(free=teacher_cache.LEFT_FREE_BYTES + 1000)
    monkeypatch.setattr(teacher_cache.shutil, "disk_usage", lambda folder: free)
    outputs = TeacherCache(folder=tmp_path)
    for seed, tokens in enumerate([100, 2]):  # 64 bytes each
        outputs.states(batch_of(seed), lambda tokens=tokens: torch.zeros(tokens, 32))
    assert len(list(tmp_path.iterdir())) == 1
