"""The file that exports carry: what it may import, its bias memo, and shapes that do not fit."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
import torch
import transformers

from nash_search import modeling_nash
from nash_search.modeling_nash import NashT5Config, NashT5ForConditionalGeneration, block_parts, encoder_blocks

SIZES = [{"heads": 1, "ffn": 5}, {"heads": 3, "ffn": 16}]


def narrow(shapes, decoder_layers=2, seed=0):
    config = NashT5Config(
        vocab_size=30, d_model=16, d_kv=4, d_ff=16, num_heads=3, num_layers=2, num_decoder_layers=decoder_layers,
        decoder_start_token_id=0, nash_shapes={"version": 1, "encoder": shapes},
    )  # fmt: skip
    torch.manual_seed(seed)
    model = NashT5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for block in encoder_blocks(model):
            block_parts(block).attention.relative_attention_bias.weight.normal_()
    return model


def test_it_imports_torch_transformers_and_the_standard_library_only():
    tree = ast.parse(Path(modeling_nash.__file__).read_text())
    roots = {alias.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    froms = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    assert all(n.level == 0 for n in froms)
    assert roots | {str(n.module).split(".")[0] for n in froms} <= {"copy", "typing", "torch", "transformers"}


def test_the_stock_class_becomes_the_size_its_config_says():
    model = narrow(SIZES)
    assert [{"heads": p.heads, "ffn": p.neurons} for p in map(block_parts, encoder_blocks(model))] == SIZES
    with pytest.raises(ValueError, match="nash_shapes must list 2 encoder blocks, but got 1"):
        narrow(SIZES[:1])


def test_every_narrow_class_is_registered_and_says_so_in_what_it_saves(tmp_path):
    for model in modeling_nash.Narrow.__subclasses__():
        config = model.config_class()
        assert type(transformers.AutoConfig.for_model(config.model_type)) is model.config_class
        assert config.model_type.startswith("nash_")
    narrow(SIZES).save_pretrained(tmp_path)
    assert (tmp_path / "modeling_nash.py").read_text() == Path(modeling_nash.__file__).read_text()


def test_a_narrow_model_s_token_costs_no_more_python_than_a_stock_one_s(monkeypatch):
    """transformers looks up the signature of remote code's forward at every token."""
    config = transformers.T5Config(
        vocab_size=30, d_model=16, d_kv=4, d_ff=16, num_heads=3, num_layers=2, decoder_start_token_id=0
    )
    looked_up, signature = [], inspect.signature
    monkeypatch.setattr(inspect, "signature", lambda *a, **k: (looked_up.append(a), signature(*a, **k))[1])

    def lookups_of(model, tokens):
        looked_up.clear()
        model.generate(torch.tensor([[3, 4, 1]]), min_new_tokens=tokens, max_new_tokens=tokens)
        return len(looked_up)

    stock = transformers.T5ForConditionalGeneration(config).eval()
    for model in (narrow(SIZES), stock):
        lookups_of(model, 2)  # what is remembered from the first call on
    more = [lookups_of(model, 9) - lookups_of(model, 4) for model in (narrow(SIZES), stock)]
    assert more[0] == more[1]


def test_remembered_buckets_never_reach_another_length_model_or_mode():
    models = [narrow(SIZES, seed=seed) for seed in (0, 1)]
    inputs = [torch.randint(2, 30, (1, length)) for length in (5, 9, 5)]

    def fresh(model, ids):
        modeling_nash._buckets = (None, None)
        return model.get_encoder()(ids).last_hidden_state

    with torch.no_grad():
        expected = [[fresh(model, ids) for ids in inputs] for model in models]
        for index, ids in enumerate(inputs):
            for number, model in enumerate(models):
                assert torch.equal(model.get_encoder()(ids).last_hidden_state, expected[number][index])
    modeling_nash._buckets = (None, None)
    with torch.inference_mode():
        models[0].get_encoder()(inputs[0])
    models[0].get_encoder()(inputs[0]).last_hidden_state.sum().backward()
    table = block_parts(encoder_blocks(models[0])[1]).attention.relative_attention_bias.weight
    assert float(table.grad.abs().sum()) > 0


def test_remembered_buckets_never_reach_a_model_that_counts_otherwise():
    one, other = narrow(SIZES), narrow(SIZES)
    for block in encoder_blocks(other):
        block_parts(block).attention.relative_attention_max_distance = 20
    ids = torch.randint(2, 30, (1, 25))
    with torch.no_grad():
        modeling_nash._buckets = (None, None)
        expected = other.get_encoder()(ids).last_hidden_state
        apart = one.get_encoder()(ids).last_hidden_state
        assert torch.equal(other.get_encoder()(ids).last_hidden_state, expected)
    assert not torch.equal(apart, expected)


@pytest.mark.filterwarnings("ignore")
def test_a_trace_neither_reads_nor_leaves_remembered_buckets():
    model, ids = narrow(SIZES).requires_grad_(False), torch.randint(2, 30, (1, 6))
    attention = block_parts(encoder_blocks(model)[0]).attention
    with torch.no_grad():
        expected = attention.compute_bias(6, 6)
        key, buckets = modeling_nash._buckets
        modeling_nash._buckets = poisoned = key, torch.zeros_like(buckets)
        traced = torch.jit.trace(lambda ids: attention.compute_bias(6, 6) + 0 * ids.sum(), ids, check_trace=False)
        assert modeling_nash._buckets is poisoned
        modeling_nash._buckets = (None, None)
        assert torch.equal(traced(ids), expected)


def test_a_decoder_deeper_than_the_encoder_generates():
    model = narrow(SIZES, decoder_layers=4)
    ids = torch.randint(2, 30, (2, 6))
    cached = model.generate(input_ids=ids, max_new_tokens=5)
    assert torch.equal(cached, model.generate(input_ids=ids, max_new_tokens=5, use_cache=False))
