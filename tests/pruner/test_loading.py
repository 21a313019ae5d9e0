"""What is in memory and what is loaded are one model, in every precision and family."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import KINDS, batch_of, cut_of, logits_of, model_of

from nash_search import loading
from nash_search.config import Architecture, Workload
from nash_search.errors import InvalidInput
from nash_search.families import FAMILIES
from nash_search.latency.runtimes.eager import RUNTIME
from nash_search.pruner import load, random_cut, save
from nash_search.pruner.distillation import source_of

DTYPES = ("float32", "bfloat16", "float16")


def tensors_of(model):
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor for name, tensor in named if not name.endswith("inv_freq")}  # T5Gemma 2: of masks it may lack


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_in_memory_and_its_folder_are_one_in_every_precision(kind, dtype, tmp_path):
    model = cut_of(kind)
    given = model.config._attn_implementation
    served = loading.in_precision(model, dtype)
    loaded = loading.load(save(served, tmp_path / "x"), dtype)
    assert json.loads((tmp_path / "x" / "config.json").read_text())["dtype"] == dtype
    ours, theirs = tensors_of(served), tensors_of(loaded)
    assert ours.keys() == theirs.keys() and type(served) is type(loaded) is type(model)
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]), name
    assert served.config._attn_implementation == loaded.config._attn_implementation == given
    batch = {k: v.to(served.dtype) if v.is_floating_point() else v for k, v in source_of(batch_of(kind=kind)).items()}
    tokens = [m.generate(**batch, max_new_tokens=6) for m in (served, loaded)]
    assert torch.equal(*tokens)
    assert loading.in_precision(loaded, dtype) is loaded
    assert all(t.dtype == torch.float32 for t in model.parameters()), "the given model stays as it was"


@pytest.mark.parametrize("kind", ["t5", "mt5", "umt5", "flan"])
def test_the_probe_times_float16_with_the_same_float32_matrices_as_certification(kind, tmp_path):
    workload = Workload(input_tokens=6, output_tokens=4, dtype="float16")
    half = Architecture(encoder_sparsity_pct=50, decoder_layers=2)
    probed = RUNTIME.placed(random_cut(model_of(kind), half), workload)
    trained = loading.in_precision(cut_of(kind), "float16")
    certified = RUNTIME.load(str(save(trained, tmp_path / "x")), workload)
    kept = [{n for n, t in tensors_of(m).items() if t.dtype == torch.float32} for m in (probed, certified)]
    assert kept[0] == kept[1] and all(".wo." in name for name in kept[0]) and kept[0]


@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
def test_a_folder_in_half_precision_trains_in_float32_and_is_served_as_asked(stored, tmp_path):
    save(loading.in_precision(model_of("t5"), stored), tmp_path / "half")
    teacher = load(tmp_path / "half")
    assert all(t.dtype == torch.float32 for t in tensors_of(teacher).values())
    for dtype in DTYPES:
        exported = loading.load(save(loading.in_precision(teacher, dtype), tmp_path / dtype), dtype)
        given = loading.load(tmp_path / "half", dtype)
        for name, tensor in tensors_of(given).items():
            assert torch.equal(tensor, tensors_of(exported)[name]), (dtype, name)


def test_weights_that_float16_cannot_hold_are_refused(tmp_path):
    model = model_of("bart")
    with torch.no_grad():
        model.model.shared.weight[3, 0] = 1e6
    save(model, tmp_path / "x")
    loading.load(tmp_path / "x", "bfloat16")
    with pytest.raises(InvalidInput, match=r"weights must be finite in float16, but got model\.shared\.weight"):
        loading.load(tmp_path / "x", "float16")


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind in FAMILIES and FAMILIES[kind].positions_are_sinusoidal]
)
def test_sinusoidal_positions_that_a_checkpoint_does_not_store_are_computed(kind, tmp_path):
    model, file = model_of(kind), tmp_path / "x" / "model.safetensors"
    save(model, tmp_path / "x")
    stored = load_file(file)
    left = {name: tensor for name, tensor in stored.items() if "embed_positions" not in name}
    dropped = 2 if kind == "pegasus" else 0  # Marian's are not saved; tables that grow are in no file
    assert len(left) == len(stored) - dropped
    save_file(left, file, metadata={"format": "pt"})
    again, batch = loading.load(tmp_path / "x"), batch_of(kind=kind)
    assert all(torch.equal(tensor, tensors_of(model)[name]) for name, tensor in tensors_of(again).items())
    assert torch.equal(logits_of(again, batch), logits_of(model, batch))
    save_file({name: t for name, t in left.items() if "fc1" not in name}, file, metadata={"format": "pt"})
    with pytest.raises(InvalidInput, match="model must hold all weights, but got none for .*fc1.bias"):
        loading.load(tmp_path / "x")
