"""What student and teacher hold, and a trial that is taught in half precision or computes blocks again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tiny import batch_of, model_of

from nash_search.config import Architecture, PruningRecipe
from nash_search.pruner import TrainingContext, memory, run

ASKED = Architecture(encoder_sparsity_pct=30, decoder_layers=2, decoder_selection="uniform")
RECIPE = PruningRecipe(narrow_steps=2, tune_steps=2, rungs=1)


def test_a_trained_parameter_takes_sixteen_bytes_and_the_teacher_s_four_or_two():
    teacher = model_of("t5")
    whole = sum(p.numel() for p in teacher.parameters())
    total = len(teacher.decoder.block)
    assert memory.student_parameters(teacher, total) == whole
    block = sum(p.numel() for p in teacher.decoder.block[-1].parameters())
    assert memory.student_parameters(teacher, total - 1) == whole - block
    assert (
        memory.held_bytes(teacher, total) == 20 * whole
        and memory.held_bytes(teacher, total, half_teacher=True) == 18 * whole
    )

    def card(share, name="cuda:0"):
        return SimpleNamespace(name=name, total_bytes=lambda: int(20 * whole / share))

    assert memory.must_halve(teacher, total, card(0.7)) and not memory.must_halve(teacher, total, card(0.6))
    assert not memory.must_halve(teacher, total, card(0.9, "cpu"))


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_a_trial_with_blocks_computed_again_is_the_same_trial(kind):
    def data(step):
        return batch_of(step, kind=kind)

    plain, again = (
        run(model_of(kind), ASKED, RECIPE, data, TrainingContext(recompute=recompute)) for recompute in (False, True)
    )
    for name, tensor in plain.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)
    assert not memory.recomputes(again.model)


def test_a_half_teacher_teaches_students_of_whole_weights():
    teacher, seen = model_of("t5"), []
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    teacher.register_forward_hook(
        lambda module, *_: seen.append(1) if module is teacher else None
    )  # students are copies
    recipe = RECIPE.model_copy(update={"learning_rate": 1e-9, "tune_learning_rate": 1e-9, "narrow_steps": 0})
    asked = Architecture(encoder_sparsity_pct=0, decoder_layers=4, decoder_selection="uniform")
    pruned = run(teacher, asked, recipe, batch_of, TrainingContext(half_teacher=True))
    assert not seen and {p.dtype for p in pruned.model.parameters()} == {torch.float32}
    for name, tensor in pruned.model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=1e-6)
