"""One row is a family: nothing else in the package names one, and a made-up one prunes, saves, loads and is served."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    BigBirdPegasusConfig,
    MvpConfig,
)

from nash_search import families, modeling_nash, pruner
from nash_search.config import Architecture, PruningRecipe, SearchConfig, Workload
from nash_search.errors import InvalidInput
from nash_search.families import FAMILIES, Family, family_of
from nash_search.latency.runtimes import runtime_of
from nash_search.layouts import BART_LAYOUT, LAYOUTS
from nash_search.pruner.gates import Gates
from nash_search.tasks import models, preflight, starter
from nash_search.tasks.scratch_tokenizer import train_tokenizer
from tests.pruner import tiny

PACKAGE = Path(families.__file__).parent
WORDS = {
    "t5",
    "t5gemma",
    "t5gemma2",
    "mt5",
    "umt5",
    "bart",
    "plbart",
    "mvp",
    "blenderbot",
    "mbart",
    "pegasus",
    "bigbird",
    "marian",
    "m2m",
    "longformer",
    "whisper",
}
NAMED = {
    "families.py": "the table",
    "layouts.py": "what several families share is called after the first",
    "modeling_nash.py": "a class and a config for each, the file that exports carry",
    "latency/runtimes/ctranslate2_spec.py": "one conversion for each layout",
    "latency/runtimes/ctranslate2_engine.py": "the engine calls its class for speech so",
    "latency/runtimes/ctranslate2_loading.py": "the same",
}


class ToyConfig(BartConfig):
    model_type = "toy"


class Toy(BartForConditionalGeneration):
    """BART's modules under a name of their own."""

    config_class = ToyConfig


class NashToyConfig(ToyConfig):
    __module__ = modeling_nash.__name__
    model_type = "nash_toy"


@pytest.fixture
def toy(monkeypatch):
    """A tiny random model of a family whose row, and whose class in `modeling_nash`, are added here."""
    AutoConfig.register("toy", ToyConfig, exist_ok=True)
    AutoModelForSeq2SeqLM.register(ToyConfig, Toy, exist_ok=True)
    narrow = type(
        "NashToy", (modeling_nash.Narrow, Toy), {"config_class": NashToyConfig, "__module__": NashToyConfig.__module__}
    )
    monkeypatch.setattr(modeling_nash, "NashToy", narrow, raising=False)
    monkeypatch.setattr(modeling_nash, "NashToyConfig", NashToyConfig, raising=False)
    row = Family(
        model_type="toy", title="Toy", narrow="NashToy", layout=BART_LAYOUT, positions="learned", post_norm=True
    )
    monkeypatch.setitem(FAMILIES, "toy", row)
    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "bos_token_id": None}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 64}
    sizes = {"encoder_layers": 2, "decoder_layers": 3, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "vocab_size": 100}
    model = Toy(ToyConfig(d_model=32, init_std=0.2, dropout=0.0, forced_eos_token_id=None, **ids, **heads, **sizes))
    torch.set_num_threads(1)
    return model.eval()


def batch_of(step=0):
    generator = torch.Generator().manual_seed(step)
    ids, labels = (torch.randint(2, 100, (3, length), generator=generator) for length in (9, 6))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


@torch.no_grad()
def logits_of(model):
    return model(**batch_of()).logits


def test_a_made_up_family_s_cut_is_its_gated_model(toy):
    gates = Gates(toy)
    gates.logits_G.data.uniform_(-4, 4, generator=torch.Generator().manual_seed(1))
    gates.use_evaluation()
    with gates.attached(toy):
        expected = logits_of(toy)
    heads, neurons = gates.per_block(gates.evaluation().detach())
    kept = [[torch.nonzero(z).flatten().tolist() for z in values] for values in (heads, neurons)]
    folded = [[z[k] for z, k in zip(*pair, strict=True)] for pair in zip((heads, neurons), kept, strict=True)]
    smaller = pruner.cut(toy, *kept, head_gates=folded[0], neuron_gates=folded[1])
    assert type(smaller) is modeling_nash.NashToy
    assert sum(pruner.shapes_of(smaller).encoder_neurons) < sum(pruner.shapes_of(toy).encoder_neurons)
    assert float((logits_of(smaller) - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))


def test_a_made_up_family_is_pruned_saved_loaded_and_accepted_by_every_command(toy, tmp_path):
    recipe = PruningRecipe(narrow_steps=4, tune_steps=2, gate_learning_rate=0.2)
    student = pruner.prune(toy, Architecture(encoder_sparsity_pct=40, decoder_layers=2), recipe, batch_of)
    tokenizer = train_tokenizer({"kind": "bpe", "vocabulary": 90}, ["one two three four five six seven"] * 3)
    for name, model, ours in (("dense", toy, False), ("pruned", student, True)):
        folder = pruner.save(model, tmp_path / name, tokenizer=tokenizer)
        again = pruner.load(folder)
        assert torch.equal(logits_of(again), logits_of(model)) and family_of(again) is FAMILIES["toy"]
        found = models.vet(folder)
        assert (found.model_type, found.ours, found.decoder_layers) == ("toy", ours, 2 if ours else 3)
        assert models.positions(found.config) == (64, 64)
        assert "learning_rate: 5e-5" in starter.search_space_text(str(folder))  # as its row says
        preflight.check(SearchConfig(model=str(folder)))


@pytest.mark.parametrize(
    "kind", ["plbart", "mvp", "blenderbot-small", "pegasus_x", "bigbird_pegasus", "t5gemma", "t5gemma2"]
)
def test_each_way_to_be_built_is_pruned_through_both_stages_and_loads(kind, tmp_path):
    teacher = tiny.model_of(kind)
    recipe = PruningRecipe(narrow_steps=3, tune_steps=2, gate_learning_rate=0.2, hidden_weight=1.0)
    model = pruner.prune(
        teacher,
        Architecture(encoder_sparsity_pct=80, decoder_layers=2),
        recipe,
        lambda step: tiny.batch_of(step, kind=kind),
    )
    assert type(model) is family_of(teacher).narrow_class
    assert pruner.shapes_of(model).encoder_heads != pruner.shapes_of(teacher).encoder_heads
    again, batch = pruner.load(pruner.save(model, tmp_path / "pruned")), tiny.batch_of(kind=kind)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    # loaded tensors lie at other addresses, for which a product may be summed in another order
    torch.testing.assert_close(tiny.logits_of(again, batch), tiny.logits_of(model, batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("runtime", ["ctranslate2", "onnxruntime"])
def test_engines_convert_a_made_up_family_by_its_layout(toy, runtime):
    workload = Workload(batch_size=1, input_tokens=8, output_tokens=6, runtime=runtime, device="cpu", threads=1)
    engine = runtime_of(workload).converted(pruner.cut(toy, [[0, 2], [1]], [[0, 5], [3, 4, 9]]), workload)
    assert engine.told  # what was compared with eager; other tokens would have been refused


def test_every_row_has_a_narrow_class_of_its_own_type():
    for name, family in FAMILIES.items():
        config = family.narrow_class.config_class
        assert (family.model_type, config.model_type) == (name, f"{families.PREFIX}{name}")
        assert family.stock_class.config_class.model_type == name
        assert family.layout in LAYOUTS


def test_whisper_is_no_text_model():
    assert {name for name, family in FAMILIES.items() if not family.reads_text} == {"whisper"}


def test_a_setting_under_which_a_cut_is_not_exact_is_refused_by_name():
    with pytest.raises(InvalidInput, match=r"use_prompt of mvp must be False .*its prompts are.*, but got True"):
        family_of(MvpConfig(use_prompt=True))
    assert family_of(MvpConfig()).model_type == "mvp"
    with pytest.raises(InvalidInput, match="attention_type of bigbird_pegasus .*, but got 'block_sparse'"):
        family_of(BigBirdPegasusConfig())


def table_of_families():
    """What docs/families.md shows of the table, a line each."""
    yield "| family | `model_type` | decoder alone shorter | encoder narrower | engines besides PyTorch |"
    yield "|---|---|---|---|---|"
    for name, family in FAMILIES.items():
        title = family.title if family.reads_text else f"{family.title} ([recordings in](speech.md))"
        uniform = family.layout.encoder_ffn_key is not None
        narrow = "self-contained; FFN alone: stock (`--format stock`)" if uniform else "self-contained"
        engines = ", ".join(family.engines)
        yield f"| {title} | `{name}` | stock | {narrow} | {engines or 'none'} |"


def test_the_docs_show_the_table():
    lines = (PACKAGE.parent / "docs" / "families.md").read_text("utf-8").splitlines()
    assert [line for line in lines if line.startswith("|")] == list(table_of_families())


def names_in(path):
    """Words of a module's identifiers and strings, docstrings aside."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):  # a docstring is prose
        if isinstance(getattr(node, "body", None), list):
            node.body = [n for n in node.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
    for node in ast.walk(tree):
        for field in ("id", "name", "arg", "attr", "value"):
            text = getattr(node, field, None)
            if isinstance(text, str):
                yield from re.split(r"[^a-z0-9]+", text.removeprefix("Nash").lower())


def test_no_other_module_names_a_family():
    found = {str(path.relative_to(PACKAGE)): WORDS & set(names_in(path)) for path in sorted(PACKAGE.rglob("*.py"))}
    assert {path: words for path, words in found.items() if words and path not in NAMED} == {}
    assert set(NAMED) <= {path for path, words in found.items() if words}


def test_reading_the_table_loads_no_torch():
    program = "import sys, nash_search.families, nash_search.tasks.preflight; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
