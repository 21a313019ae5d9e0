"""A training step asks the device nothing, and what the host knows of a batch it reads from its own copy."""

from __future__ import annotations

import sys

import pytest
import torch
from tiny import batch_of, model_of
from torch.utils._python_dispatch import TorchDispatchMode

from nash_search.config import Architecture, PruningRecipe
from nash_search.pruner import TeacherCache, TrainingContext, placing, run, teacher_cache
from nash_search.pruner.training import _products, in_tf32
from nash_search.recipes import TeacherRecipe, on_gpu

READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "is_nonzero")
"""Operations whose result the host must wait for."""
OURS = "/nash_search/pruner/"


class Read(TorchDispatchMode):
    """Who of the pruner's functions asks for a number; transformers' own questions are not ours."""

    def __init__(self):
        super().__init__()
        self.by: set[str] = set()

    def __torch_dispatch__(self, operation, types, given=(), more=None):
        name = operation.overloadpacket.__name__
        masked = name.startswith("index") and any(
            isinstance(one, torch.Tensor) and one.dtype in (torch.bool, torch.uint8)
            for part in given[1:2]
            for one in (part if isinstance(part, (list, tuple)) else ())
        )
        if name in READS or masked:
            frame = sys._getframe(1)
            while frame and "/site-packages/torch/" in frame.f_code.co_filename:
                frame = frame.f_back
            if OURS in frame.f_code.co_filename:
                self.by.add(f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_code.co_name}")
        return operation(*given, **(more or {}))


@pytest.mark.parametrize("multiplier", ["solved", "ascent"])
def test_no_training_step_of_ours_waits_for_the_device(multiplier, tmp_path):
    recipe = PruningRecipe(narrow_steps=3, tune_steps=3, rungs=1, multiplier=multiplier)
    cache = TeacherCache(folder=tmp_path / "teacher")
    steps = Read()

    class Watched:
        """Entered around every optimizer step; what is asked between two of them is not a step's."""

        def __enter__(self):
            steps.__enter__()

        def __exit__(self, *error):
            steps.__exit__(*error)

    context = TrainingContext(teacher_cache=cache, step_guard=Watched)
    asked = Architecture(encoder_sparsity_pct=30, decoder_layers=2, decoder_selection="uniform")
    once = {"stages.py:_plain_loss"}  # the loss on both sides of the cut, read once a trial
    fills = {"teacher_cache.py:_halved"}  # what is written to the disk comes to the host anyway
    for beside in (fills, set()):
        steps.by.clear()
        run(model_of("t5"), asked, recipe, batch_of, context)
        assert steps.by - once == {"placing.py:counted"} | beside


def test_what_is_known_of_a_placed_batch_is_the_host_s(tmp_path):
    batch = batch_of(0)
    found = placing.placed(batch, torch.device("cpu"))
    assert found.keys() == batch.keys() and placing.on_host(found) is batch and placing.on_host(batch) is batch
    assert torch.equal(placing.counted(found), (batch["labels"].flatten() != -100).nonzero()[:, 0])

    class Silent:
        """On the device, and never to be read."""

        device = torch.device("cpu")

    for name in found:
        dict.__setitem__(found, name, Silent())
    assert torch.equal(placing.counted(found), placing.counted(batch))
    cache = teacher_cache.TeacherCache(folder=tmp_path)
    states = torch.randn(13, 6)
    cache.states(batch, lambda: states)
    assert torch.equal(cache.states(found, lambda: 1 / 0), states.half())


def test_a_gpu_multiplies_in_half_precision_and_tf32_unless_it_is_told_not_to():
    open_, told = PruningRecipe(), PruningRecipe(precision="fp32")
    assert open_.on("cuda:0").precision == "auto" and told.on("cuda:0").precision == "fp32"
    assert open_.on("cpu").precision == "fp32"
    assert on_gpu(TeacherRecipe()).precision == "auto" and on_gpu(TeacherRecipe(precision="fp32")).precision == "fp32"
    gpu = torch.device("cuda", 0)
    assert in_tf32("auto", gpu) and in_tf32("bf16", gpu) and not in_tf32("fp32", gpu)
    assert not in_tf32("auto", torch.device("cpu"))
    before = torch.get_float32_matmul_precision()
    with _products("high"):
        assert torch.get_float32_matmul_precision() == "high"
    with _products(None):
        assert torch.get_float32_matmul_precision() == before
    assert torch.get_float32_matmul_precision() == before
