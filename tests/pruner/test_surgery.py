"""Shortening and cutting are exact, for every family.

The oracle of a cut is the uncut model with the inputs of its output projections multiplied by the
gates; the oracle of a shortened decoder is the full one whose dropped blocks hand their input on.
"""

from __future__ import annotations

import copy
import re
from functools import partial

import pytest
import torch
from tiny import KINDS, batch_of, logits_of, model_of, some_kept

from nash_search.config import Architecture, PruningRecipe
from nash_search.errors import InvalidInput
from nash_search.families import family_of
from nash_search.modeling_nash import block_parts, encoder_blocks
from nash_search.pruner import cut, largest_sparsity_pct, random_cut, shapes_of, shorten
from nash_search.pruner.distillation import source_of
from nash_search.pruner.surgery import encoder_parameters, keep_decoder_blocks

CORE = ("t5", "bart")
ALL = [pytest.param(kind, marks=[] if kind in CORE else pytest.mark.slow) for kind in KINDS]
WAYS = ({}, {"num_beams": 3}, {"cache_implementation": "static"})


def gated(model, kept_heads, kept_neurons, soft, seed=7):
    """The oracle: a copy with hooks that multiply, and the gate values of what is kept."""
    generator = torch.Generator().manual_seed(seed)
    model = copy.deepcopy(model)
    head_gates, neuron_gates = [], []
    for block, heads, neurons in zip(encoder_blocks(model), kept_heads, kept_neurons, strict=True):
        parts = block_parts(block)
        head_z, neuron_z = torch.zeros(parts.heads), torch.zeros(parts.neurons)
        head_z[heads] = torch.rand(len(heads), generator=generator) if soft else 1.0
        neuron_z[neurons] = torch.rand(len(neurons), generator=generator) if soft else 1.0
        head_gates.append(head_z[heads])
        neuron_gates.append(neuron_z[neurons])
        columns = head_z.repeat_interleave(parts.head_width)
        out, ffn_out = parts.attention.get_submodule(parts.attention_out), getattr(parts.ffn, parts.ffn_out)
        out.register_forward_pre_hook(lambda _, args, z=columns: (args[0] * z,))
        ffn_out.register_forward_pre_hook(lambda _, args, z=neuron_z: (args[0] * z,))
    return model, head_gates, neuron_gates


def assert_same_function(one, other, batch, exact=False):
    a, b = logits_of(one, batch), logits_of(other, batch)
    tolerance = 0.0 if exact else 1e-5 * max(1.0, float(a.abs().max()))
    assert float((a - b).abs().max()) <= tolerance
    source = source_of(batch)
    for way in WAYS[: 2 if has_no_static_cache(one) else 3]:
        with torch.no_grad():
            tokens = [m.generate(**source, max_new_tokens=7, **way) for m in (one, other)]
        assert torch.equal(*tokens), way


def has_no_static_cache(model):
    """T5Gemma 2 of whose decoder one kind of attention is left: the library makes the masks of that kind and asks for
    both."""
    decoder = model.get_decoder()
    return model.config.model_type.endswith("t5gemma2") and len(set(decoder.config.layer_types)) == 1


def hand_on(forward, hidden, *given, **words):
    """What a block returns, with its input in place of its output."""
    found = forward(hidden, *given, **words)
    return (hidden, *found[1:]) if isinstance(found, tuple) else hidden


# hard gates are soft ones that happen to be 1, so every decoder subset meets soft gates, and each attention meets both
CUTS = [("sdpa", True, subset) for subset in ((0, 1, 2, 3), (0, 3), (0, 1, 3), (0,), (1, 2))]
CUTS += [("eager", False, (0, 3)), ("eager", True, (0, 1, 3)), ("sdpa", False, (1, 2))]
QUICK = (("sdpa", True, (0, 1, 3)), ("eager", False, (0, 3)))


@pytest.mark.parametrize(
    ("kind", "attention", "soft", "decoder"),
    [
        pytest.param(kind, *how, marks=[] if kind in CORE and how in QUICK else pytest.mark.slow)
        for kind in KINDS
        for how in CUTS
    ],
)
def test_cut_equals_gated(kind, attention, soft, decoder):
    model = keep_decoder_blocks(model_of(kind, attention=attention), decoder)
    kept = some_kept(model)
    oracle, head_gates, neuron_gates = gated(model, *kept, soft)
    smaller = cut(model, *kept, head_gates=head_gates, neuron_gates=neuron_gates)
    assert_same_function(oracle, smaller, batch_of(kind=kind))
    shapes = shapes_of(smaller)
    assert shapes.encoder_heads == tuple(map(len, kept[0]))
    assert shapes.encoder_neurons == tuple(map(len, kept[1]))
    assert shapes.decoder_blocks == decoder
    assert smaller.num_parameters() < model.num_parameters()


@pytest.mark.parametrize("decoder", [(0, 3), (2,)], ids=str)
@pytest.mark.parametrize("kind", ALL)
def test_shortened_decoder_equals_one_whose_dropped_blocks_do_nothing(kind, decoder):
    model = model_of(kind)
    family = family_of(model)
    oracle = copy.deepcopy(model)
    attention, _ = family.decoder_attentions(family.decoder_blocks(oracle)[0])
    has_bias = getattr(attention, "has_relative_attention_bias", False) and family.first_block_has_bias
    for index, block in enumerate(family.decoder_blocks(oracle)):
        if index in decoder:
            continue
        for name, parameter in block.named_parameters():  # pre-LN: a block whose outputs are 0 is the identity
            if re.search(r"(o|out_proj|fc2|o_proj|down_proj)\.(weight|bias)$", name):
                parameter.data.zero_()
    if family.post_norm:  # zeros would still normalise, so hand the input on instead
        blocks = family.decoder_blocks(oracle)
        for index, block in enumerate(blocks):
            if index not in decoder:
                block.forward = partial(hand_on, block.forward)
    shortened = keep_decoder_blocks(model, decoder)
    batch = batch_of(kind=kind)
    a, b = logits_of(oracle, batch), logits_of(shortened, batch)
    assert float((a - b).abs().max()) <= 1e-5 * max(1.0, float(a.abs().max()))
    if has_bias:
        first, _ = family.decoder_attentions(family.decoder_blocks(shortened)[0])
        assert torch.equal(first.relative_attention_bias.weight, attention.relative_attention_bias.weight)
    source = source_of(batch)
    with torch.no_grad():
        cached = shortened.generate(**source, max_new_tokens=7)
        plain = shortened.generate(**source, max_new_tokens=7, use_cache=False)
    assert torch.equal(cached, plain)


@pytest.mark.parametrize("kind", ALL)
def test_full_depth_and_full_width_are_the_source_bit_for_bit(kind):
    model, batch = model_of(kind), batch_of(kind=kind)
    same = shorten(model, 4)
    everything = [[list(range(n)) for n in sizes] for sizes in (shapes_of(model).encoder_heads,)][0]
    neurons = [list(range(n)) for n in shapes_of(model).encoder_neurons]
    for copy_ in (same, cut(same, everything, neurons)):
        assert type(copy_) is type(model)
        assert torch.equal(logits_of(model, batch), logits_of(copy_, batch))
        mine, theirs = model.state_dict(), copy_.state_dict()
        assert list(mine) == list(theirs)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("kind", ALL)
def test_the_input_is_never_changed(kind):
    model = model_of(kind)
    before, config = {k: v.clone() for k, v in model.state_dict().items()}, model.config.to_dict()
    smaller = cut(shorten(model, 2), *some_kept(model))
    with torch.no_grad():
        for parameter in smaller.parameters():
            parameter.add_(1)
    assert model.config.to_dict() == config
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_was_frozen_stays_frozen():
    model = model_of("bart")
    parts = block_parts(encoder_blocks(model)[1])
    parts.attention.v_proj.weight.requires_grad_(False)
    smaller = block_parts(encoder_blocks(cut(model, *some_kept(model)))[1]).attention
    assert not smaller.v_proj.weight.requires_grad
    assert smaller.q_proj.weight.requires_grad


def test_kept_heads_keep_their_position_bias():
    model = model_of("t5")
    table = block_parts(encoder_blocks(model)[0]).attention.relative_attention_bias.weight
    heads, neurons = some_kept(model)
    smaller = cut(model, heads, neurons)
    for block, kept in zip(encoder_blocks(smaller), heads, strict=True):
        own = block_parts(block).attention.relative_attention_bias
        assert own.embedding_dim == len(kept)
        assert torch.equal(own.weight, table[:, kept])


def test_whispers_word_timing_follows_its_decoder_blocks():
    model = model_of("whisper")
    model.generation_config.alignment_heads = [[1, 0], [3, 2], [3, 3]]
    assert keep_decoder_blocks(model, (0, 3)).generation_config.alignment_heads == [[1, 2], [1, 3]]
    assert not hasattr(keep_decoder_blocks(model, (0, 2)).generation_config, "alignment_heads")
    assert model.generation_config.alignment_heads == [[1, 0], [3, 2], [3, 3]]


def test_uniform_ffn_width_stays_stock_in_the_bart_family_and_different_widths_do_not():
    model = model_of("bart")
    heads = [[0, 1, 2, 3]] * 3
    uniform = cut(model, heads, [[0, 4, 9], [1, 2, 3], [5, 6, 40]])
    assert type(uniform) is type(model)
    assert uniform.config.encoder_ffn_dim == 3
    assert type(cut(model, heads, [[0, 4], [1, 2, 3], [5, 6, 40]])) is not type(model)


@pytest.mark.parametrize("kind", ALL)
def test_random_cut_has_the_asked_sparsity_and_depth(kind):
    model = model_of(kind)
    largest = largest_sparsity_pct(model, PruningRecipe())
    for sparsity in (0, 20, 60, 95):
        smaller = random_cut(model, Architecture(encoder_sparsity_pct=sparsity, decoder_layers=2))
        shapes = shapes_of(smaller)
        assert shapes.decoder_blocks == (0, 3)
        assert len(set(shapes.encoder_heads)) == len(set(shapes.encoder_neurons)) == 1
        left = encoder_parameters(smaller) / encoder_parameters(model)
        if sparsity < min(90, largest):  # one head per block is the floor
            assert abs(1 - left - sparsity / 100) < 0.03
    logits_of(smaller, batch_of(kind=kind))


def test_on_a_gpu_widths_are_in_eights_and_a_probe_has_them_too():
    recipe = PruningRecipe()
    assert recipe.on("cpu") is recipe and recipe.on("cuda:1").width_multiple == 8
    assert PruningRecipe(width_multiple=32).on("cuda").width_multiple == 32
    model = model_of("t5")
    for sparsity in (10, 40, 80, 95):
        asked = Architecture(encoder_sparsity_pct=sparsity, decoder_layers=2)
        [width] = set(shapes_of(random_cut(model, asked, width_multiple=8)).encoder_neurons)
        [plain] = set(shapes_of(random_cut(model, asked)).encoder_neurons)
        assert width % 8 == 0 and abs(width - plain) <= 7


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([[0], [0]], "kept_heads must list 3 encoder blocks, but got 2"),
        ([[0], [], [1]], r"kept_heads must be one or more increasing indices below 4 per block, but got \[\]"),
        ([[0], [1, 0], [1]], "increasing indices"),
        ([[0], [4], [1]], "below 4"),
    ],
)
def test_impossible_cut_is_refused(heads, message):
    with pytest.raises(InvalidInput, match=message):
        cut(model_of("bart"), heads, [[0]] * 3)


def test_heads_that_must_stay_are_refused_to_go():
    with pytest.raises(InvalidInput, match="kept_heads must be every head of led"):
        cut(model_of("led"), [[0]] * 3, [[0]] * 3)


def test_unsupported_models_are_refused_by_name():
    import transformers

    for config in (transformers.GPT2Config(), transformers.BertConfig(), transformers.FSMTConfig()):
        with pytest.raises(InvalidInput, match=f"model must be one of bart, .*t5.*, but got {config.model_type}"):
            family_of(config)
    with pytest.raises(InvalidInput, match="but got fsmt: its tokenizer gives every text the ids of source words"):
        family_of(transformers.FSMTConfig())
    encoder = model_of("t5").get_encoder()
    with pytest.raises(InvalidInput, match="model must be a T5ForConditionalGeneration, but got T5Stack"):
        family_of(encoder)
