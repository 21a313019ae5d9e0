"""A PyTorch encoder-decoder model, dense or cut, said in CTranslate2's layer specifications.

CTranslate2 has one head count per encoder and one per decoder, so a narrower block is filled up with
heads of zeros, which add nothing:

    heads 3 1 2  ->  3 3 3        q, k, v rows and relative biases 0, output columns 0
    FFN widths and relative position biases are each block's own

Wrong spellings convert silently to wrong tokens; whoever converts must compare (`ctranslate2.py` does).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from ctranslate2.specs import common_spec, transformer_spec, whisper_spec
from torch import nn

from nash_search.errors import InvalidInput
from nash_search.families import Family, find_family, served_by
from nash_search.layouts import BART_LAYOUT, T5_LAYOUT, Layout
from nash_search.modeling_nash import block_parts, encoder_blocks

ACTIVATIONS = {
    "relu": common_spec.Activation.RELU,
    "gelu": common_spec.Activation.GELU,
    "gelu_new": common_spec.Activation.GELUTanh,
    "gelu_pytorch_tanh": common_spec.Activation.GELUTanh,
    "quick_gelu": common_spec.Activation.GELUSigmoid,
    "silu": common_spec.Activation.SWISH,
    "swish": common_spec.Activation.SWISH,
    "tanh": common_spec.Activation.Tanh,
    "sigmoid": common_spec.Activation.Sigmoid,
}
UNKNOWN = "<unknown>"


def spec_of(model: Any) -> Any:
    """The model's specification, on the CPU in float32, without a vocabulary.

    Raises:
        InvalidInput: a family or activation that CTranslate2 cannot express exactly.
    """
    kind = model.config.model_type
    family = find_family(kind)
    if family is None:
        known = ", ".join(served_by("ctranslate2"))
        raise InvalidInput(f"model must be one of {known} for runtime ctranslate2, but got {kind}")
    family.check_engine("ctranslate2")
    if not family.reads_text:
        return _whisper(model)
    return CONVERSIONS[family.layout](model, family)


def sizes_of(spec: Any) -> tuple[int, int]:
    """Rows of the encoder's and of the decoder's embeddings; they differ where each language has its own tokens."""
    written = int(spec.decoder.embeddings.weight.shape[0])
    if isinstance(spec, whisper_spec.WhisperSpec):  # it reads no tokens
        return written, written
    return int(spec.encoder.embeddings[0].weight.shape[0]), written


def _stacks(
    encoder_blocks_: Any, decoder_blocks: Any, decoder_heads: int, **settings: Any
) -> transformer_spec.TransformerSpec:
    heads = max(block_parts(block).heads for block in encoder_blocks_)
    encoder = transformer_spec.TransformerEncoderSpec(len(encoder_blocks_), heads, **settings)
    return transformer_spec.TransformerSpec(
        encoder, transformer_spec.TransformerDecoderSpec(len(decoder_blocks), decoder_heads, **settings)
    )


def _activation(name: str) -> common_spec.Activation:
    if name not in ACTIVATIONS:
        raise InvalidInput(
            f"activation must be one of {', '.join(ACTIVATIONS)} for runtime ctranslate2, but got {name}"
        )
    return ACTIVATIONS[name]


# -- T5, mT5, UMT5 ----------------------------------------------------------------------------------


def _t5(model: Any, family: Family) -> transformer_spec.TransformerSpec:
    config = model.config
    spec = _stacks(
        encoder_blocks(model),
        model.decoder.block,
        model.decoder.block[0].layer[0].SelfAttention.n_heads,
        pre_norm=True,
        activation=_activation(config.dense_act_fn),
        ffn_glu=config.is_gated_act,
        relative_attention_bias=True,
        rms_norm=True,
    )
    heads = int(spec.encoder.num_heads)
    for stack, module in ((spec.encoder, model.encoder), (spec.decoder, model.decoder)):
        first = module.block[0].layer[0].SelfAttention
        stack.scale_embeddings = False
        _embedding(stack, module.embed_tokens)
        stack.layer_norm.gamma = _plain(module.final_layer_norm.weight)
        for layer, block in zip(stack.layer, module.block, strict=True):
            own = block.layer[0].SelfAttention
            table = own if own.has_relative_attention_bias else first
            wide = heads if stack is spec.encoder else own.n_heads
            _attention(layer.self_attention, own, "qkvo", own.n_heads, wide)
            layer.self_attention.layer_norm.gamma = _plain(block.layer[0].layer_norm.weight)
            bias = _plain(table.relative_attention_bias.weight)
            layer.self_attention.relative_attention_bias = _filled(bias, wide, 1)
            layer.self_attention.relative_attention_max_distance = np.int32(table.relative_attention_max_distance)
            if len(block.layer) == 3:
                _attention(layer.attention, block.layer[1].EncDecAttention, "qkvo", own.n_heads, own.n_heads)
                layer.attention.layer_norm.gamma = _plain(block.layer[1].layer_norm.weight)
            ffn = block.layer[-1]
            gated = hasattr(ffn.DenseReluDense, "wi_0")
            _linear(layer.ffn.linear_0, [ffn.DenseReluDense.wi_0 if gated else ffn.DenseReluDense.wi])
            if gated:
                _linear(layer.ffn.linear_0_noact, [ffn.DenseReluDense.wi_1])
            _linear(layer.ffn.linear_1, [ffn.DenseReluDense.wo])
            layer.ffn.layer_norm.gamma = _plain(ffn.layer_norm.weight)
    _linear(spec.decoder.projection, [model.lm_head])
    if family.scaled_states_key is not None and getattr(config, family.scaled_states_key, False):
        spec.decoder.scale_outputs = float(config.d_model**-0.5)
    spec.config.layer_norm_epsilon = config.layer_norm_epsilon
    return spec


# -- BART, mBART, Pegasus, Marian, M2M100 -----------------------------------------------------------


def _bart(model: Any, family: Family) -> transformer_spec.TransformerSpec:
    encoder, decoder = model.get_encoder(), model.get_decoder()
    spec = _stacks(
        encoder.layers,
        decoder.layers,
        decoder.layers[0].self_attn.num_heads,
        pre_norm=not family.post_norm,
        activation=_activation(model.config.activation_function),
        layernorm_embedding=hasattr(encoder, "layernorm_embedding"),
    )
    for stack, module in ((spec.encoder, encoder), (spec.decoder, decoder)):
        scale = float(getattr(module.embed_tokens, "embed_scale", getattr(module, "embed_scale", 1.0)))
        if family.normalises_tokens_alone and module is decoder:  # the engine would normalise sums: say it in the table
            spec.decoder.embeddings.weight = _plain(module.layernorm_embedding(scale * module.embed_tokens.weight))
            stack.scale_embeddings = False
            del stack.layernorm_embedding
        else:
            stack.scale_embeddings = scale
            _embedding(stack, module.embed_tokens)
        stack.position_encodings.encodings = _positions(module.embed_positions)
        if not family.post_norm:
            _norm(stack.layer_norm, module.layer_norm)
        if hasattr(stack, "layernorm_embedding"):
            _norm(stack.layernorm_embedding, module.layernorm_embedding)
        _bart_blocks(stack, module)
    _linear(spec.decoder.projection, [model.lm_head])
    bias = getattr(model, "final_logits_bias", None)
    if bias is not None and bool(bias.any()):
        spec.decoder.projection.bias = _plain(bias[0])
    spec.config.layer_norm_epsilon = encoder.layers[0].final_layer_norm.eps
    return spec


def _bart_blocks(stack: Any, module: Any) -> None:
    """Every block of an encoder or decoder, filled up to the stack's number of heads, where that is one."""
    for layer, block in zip(stack.layer, module.layers, strict=True):
        own = block.self_attn.num_heads
        _attention(layer.self_attention, block.self_attn, _BART, own, int(stack.num_heads))
        _norm(layer.self_attention.layer_norm, block.self_attn_layer_norm)
        if hasattr(block, "encoder_attn"):
            _attention(layer.attention, block.encoder_attn, _BART, own, own)
            _norm(layer.attention.layer_norm, block.encoder_attn_layer_norm)
        _linear(layer.ffn.linear_0, [block.fc1])
        _linear(layer.ffn.linear_1, [block.fc2])
        _norm(layer.ffn.layer_norm, block.final_layer_norm)


_BART = ("q_proj", "k_proj", "v_proj", "out_proj")
CONVERSIONS: dict[Layout, Callable[[Any, Family], transformer_spec.TransformerSpec]] = {
    T5_LAYOUT: _t5,
    BART_LAYOUT: _bart,
}
"""One per layout of `families`."""


# -- Whisper ----------------------------------------------------------------------------------------


def _whisper(model: Any) -> whisper_spec.WhisperSpec:
    encoder, decoder = model.get_encoder(), model.get_decoder()
    activation = model.config.activation_function
    if activation != "gelu":
        raise InvalidInput(f"activation must be gelu for speech on runtime ctranslate2, but got {activation}")
    spec = whisper_spec.WhisperSpec(
        len(encoder.layers),
        max(block_parts(block).heads for block in encoder.layers),
        len(decoder.layers),
        decoder.layers[0].self_attn.num_heads,
    )
    for name in ("conv1", "conv2"):
        own, module = getattr(spec.encoder, name), getattr(encoder, name)
        own.weight, own.bias = _plain(module.weight), _plain(module.bias)
    _embedding(spec.decoder, decoder.embed_tokens)
    for stack, module in ((spec.encoder, encoder), (spec.decoder, decoder)):
        stack.position_encodings.encodings = _positions(module.embed_positions)
        _norm(stack.layer_norm, module.layer_norm)
        _bart_blocks(stack, module)
    _linear(spec.decoder.projection, [model.get_output_embeddings()])
    return spec


# -- parts ------------------------------------------------------------------------------------------


def _positions(table: Any) -> torch.Tensor:
    """Row i is what position i adds: past BART's two unused rows, or past padding's in M2M100."""
    if not isinstance(table, nn.Embedding):  # M2M100: a buffer, whose first position follows the padding's
        return _plain(table.weights[table.padding_idx + 1 :])
    return _plain(table.weight[getattr(table, "offset", 0) :])


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """A copy: the engine quantises in place, and the model must stay as it was."""
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()


def _filled(tensor: torch.Tensor, size: int, dim: int) -> torch.Tensor:
    """Zeros behind the last row (dim 0) or column (dim 1), up to `size`."""
    missing = list(tensor.shape)
    missing[dim] = size - tensor.shape[dim]
    return torch.cat([tensor, tensor.new_zeros(missing)], dim) if missing[dim] else tensor


def _embedding(stack: Any, module: nn.Embedding) -> None:
    spec = stack.embeddings[0] if isinstance(stack.embeddings, list) else stack.embeddings
    spec.weight = _plain(module.weight)


def _norm(spec: Any, module: nn.LayerNorm) -> None:
    spec.gamma, spec.beta = _plain(module.weight), _plain(module.bias)


def _linear(spec: Any, modules: Sequence[nn.Linear], rows: int | None = None) -> None:
    """One projection from several, each filled up to so many rows."""
    weights = [_plain(m.weight) for m in modules]
    spec.weight = torch.cat([_filled(w, rows or w.shape[0], 0) for w in weights])
    if any(m.bias is not None for m in modules):  # Whisper's keys have none
        biases = [
            _plain(m.bias) if m.bias is not None else w.new_zeros(len(w)) for m, w in zip(modules, weights, strict=True)
        ]
        spec.bias = torch.cat([_filled(b, rows or b.shape[0], 0) for b in biases])


def _attention(spec: Any, module: Any, names: Sequence[str], own_heads: int, heads: int) -> None:
    """Queries, keys and values fused as the engine wants them, filled up to `heads` heads."""
    q, k, v, out = (getattr(module, name) for name in names)
    width = q.weight.shape[0] // own_heads
    fused = [[q, k, v]] if len(spec.linear) == 2 else [[q], [k, v]]
    for linear, modules in zip(spec.linear, fused, strict=False):
        _linear(linear, modules, heads * width)
    spec.linear[-1].weight = _filled(_plain(out.weight), heads * width, 1)
    if out.bias is not None:
        spec.linear[-1].bias = _plain(out.bias)
    spec.queries_scale = float(getattr(module, "scaling", 1.0))
