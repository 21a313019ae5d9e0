"""How families name what they have in common: config fields, modules and tensors. No torch is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Names of config fields and modules that several families share.

    A field of a config within the config is named by its path (`encoder.head_dim`). Modules are named from a block of
    the encoder or decoder on; tensors have the same names.
    """

    encoder_depth_key: str
    """Config field with the number of encoder blocks."""
    decoder_depth_key: str
    """Config field with the number of decoder blocks; where it is missing, there are as many as encoder blocks."""
    heads_keys: tuple[str, ...]
    """Config fields with numbers of attention heads."""
    head_width_key: str | None
    """Config field with the width of a head (None: the model's width over the number of heads)."""
    ffn_key: str
    """Config field with the width of the encoder's FFN."""
    encoder_ffn_key: str | None
    """The same where it says nothing about the decoder, so that it can express a uniform width (None: it does)."""
    width_key: str = "d_model"
    """Config field with the model's width."""
    blocks: str
    """The blocks of the encoder or decoder."""
    self_attention: str
    cross_attention: str
    query: str
    key: str
    value: str
    head_width: str
    """Attribute of an attention with the width of a head."""
    encoder: str = "encoder"
    """The module that holds the encoder's blocks."""
    embeddings: str = "shared"
    """The table of input tokens."""
    ffn_in: tuple[str, ...]
    """First matrices that an encoder block's FFN may have."""
    ffn_out: str
    """Last part of its second matrix's name."""


T5_LAYOUT = Layout(
    encoder_depth_key="num_layers",
    decoder_depth_key="num_decoder_layers",
    heads_keys=("num_heads",),
    head_width_key="d_kv",
    ffn_key="d_ff",
    encoder_ffn_key=None,
    blocks="block",
    self_attention="layer.0.SelfAttention",
    cross_attention="layer.1.EncDecAttention",
    query="q",
    key="k",
    value="v",
    head_width="key_value_proj_dim",
    ffn_in=("layer.1.DenseReluDense.wi", "layer.1.DenseReluDense.wi_0"),
    ffn_out="wo",
)
BART_LAYOUT = Layout(
    encoder_depth_key="encoder_layers",
    decoder_depth_key="decoder_layers",
    heads_keys=("encoder_attention_heads", "decoder_attention_heads"),
    head_width_key=None,
    ffn_key="encoder_ffn_dim",
    encoder_ffn_key="encoder_ffn_dim",
    blocks="layers",
    self_attention="self_attn",
    cross_attention="encoder_attn",
    query="q_proj",
    key="k_proj",
    value="v_proj",
    head_width="head_dim",
    ffn_in=("fc1",),
    ffn_out="fc2",
)
GEMMA_LAYOUT = Layout(
    encoder_depth_key="encoder.num_hidden_layers",
    decoder_depth_key="decoder.num_hidden_layers",
    heads_keys=("encoder.num_attention_heads", "decoder.num_attention_heads"),
    head_width_key="encoder.head_dim",
    ffn_key="encoder.intermediate_size",
    encoder_ffn_key="encoder.intermediate_size",
    width_key="encoder.hidden_size",
    blocks="layers",
    self_attention="self_attn",
    cross_attention="cross_attn",
    query="q_proj",
    key="k_proj",
    value="v_proj",
    head_width="head_dim",
    embeddings="encoder.embed_tokens",
    ffn_in=("mlp.gate_proj", "mlp.up_proj"),
    ffn_out="down_proj",
)
MERGED_GEMMA_LAYOUT = replace(
    GEMMA_LAYOUT,
    encoder_depth_key="encoder.text_config.num_hidden_layers",
    heads_keys=("encoder.text_config.num_attention_heads", "decoder.num_attention_heads"),
    head_width_key="encoder.text_config.head_dim",
    ffn_key="encoder.text_config.intermediate_size",
    encoder_ffn_key="encoder.text_config.intermediate_size",
    width_key="encoder.text_config.hidden_size",
    cross_attention="self_attn",  # one attention over what was written and what was read
    encoder="encoder.text_model",
    embeddings="encoder.text_model.embed_tokens",
)
LAYOUTS = (T5_LAYOUT, BART_LAYOUT, GEMMA_LAYOUT, MERGED_GEMMA_LAYOUT)


def setting(config: Any, key: str) -> Any:
    """A field of a config, or of its JSON, by its path; None: it has none."""
    for name in key.split("."):
        config = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
    return config


def use_setting(config: Any, key: str, value: Any) -> None:
    """Set a field of a config by its path."""
    *path, name = key.split(".")
    for part in path:
        config = getattr(config, part)
    setattr(config, name, value)
