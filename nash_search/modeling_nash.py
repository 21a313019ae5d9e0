"""Encoder-decoder models whose encoder blocks differ in size: the one file that exports carry.

A stock config has one head count and one FFN width for the whole encoder. Here each block has its
own, listed in the config:

    nash_shapes = {"version": 1, "encoder": [{"heads": 3, "ffn": 120}, ...], "decoder_blocks": [0, 2, 5]}

A class below is the stock class, built full and then narrowed to `nash_shapes`; forward, caches and
generation stay the library's. Importing this file registers the classes with the Auto API, and every
`save_pretrained` copies it next to the weights, so it imports torch and transformers alone.

T5's and mT5's first block computes the relative position bias for all blocks. Blocks of different
head counts cannot share it, so each owns the columns of its own heads and ignores what it is handed.
"""

import copy
from typing import Any, NamedTuple

import torch
import transformers
from torch import nn
from transformers.models.mt5.modeling_mt5 import MT5Attention
from transformers.models.pegasus_x.modeling_pegasus_x import DimensionInfo, PegasusXGlobalLocalAttention
from transformers.models.t5.modeling_t5 import T5Attention


class BlockParts(NamedTuple):
    """Where an encoder block keeps its matrices, whatever the family calls them (from `attention` and `ffn` on)."""

    attention: Any
    attention_in: tuple[str, ...]
    attention_out: str
    ffn: Any
    ffn_in: tuple[str, ...]
    ffn_out: str

    @property
    def counted(self) -> Any:
        """The module that knows how wide a head is: BigBirdPegasus and LED have one inside their attention."""
        return getattr(self.attention, "self", getattr(self.attention, "longformer_self_attn", self.attention))

    @property
    def heads(self) -> int:
        """Heads that can go; where several queries share a key (grouped-query attention), such groups."""
        names = ("key_value_proj_dim", "attention_head_size", "head_dim")
        width = next(getattr(self.counted, name) for name in names if hasattr(self.counted, name))
        return int(self.attention.get_submodule(self.attention_in[1]).out_features // width)

    @property
    def head_width(self) -> int:
        """Columns of the output projection that are one head's, or one group's."""
        return int(self.attention.get_submodule(self.attention_out).in_features // self.heads)

    @property
    def neurons(self) -> int:
        return int(getattr(self.ffn, self.ffn_out).in_features)


def block_parts(block: Any) -> BlockParts:
    """The matrices of one encoder block."""
    if hasattr(block, "layer"):  # T5
        attention, dense = block.layer[0].SelfAttention, block.layer[-1].DenseReluDense
        ffn_in = ("wi_0", "wi_1") if hasattr(dense, "wi_0") else ("wi",)
        return BlockParts(attention, ("q", "k", "v"), "o", dense, ffn_in, "wo")
    attention, names = block.self_attn, ("q_proj", "k_proj", "v_proj")
    if hasattr(block, "mlp"):  # T5Gemma
        return BlockParts(attention, names, "o_proj", block.mlp, ("gate_proj", "up_proj"), "down_proj")
    if hasattr(attention, "self"):  # BigBirdPegasus
        return BlockParts(attention, ("self.query", "self.key", "self.value"), "output", block, ("fc1",), "fc2")
    if hasattr(attention, "longformer_self_attn"):  # LED, whose tokens with global attention have their own three
        six = tuple(f"longformer_self_attn.{n}{of}" for of in ("", "_global") for n in ("query", "key", "value"))
        return BlockParts(attention, six, "output", block, ("fc1",), "fc2")
    return BlockParts(attention, names, "out_proj", block, ("fc1",), "fc2")


def encoder_blocks(model: Any) -> Any:
    """The encoder's blocks, in order."""
    encoder = getattr(model.get_encoder(), "text_model", model.get_encoder())
    return encoder.block if hasattr(encoder, "block") else encoder.layers


def narrow_block(block: Any, kept_heads: list[int], kept_neurons: list[int]) -> None:
    """Keep these heads (or groups of them) and FFN neurons of one encoder block, in place; works on the meta device."""
    attention, attention_in, attention_out, ffn, ffn_in, ffn_out = parts = block_parts(block)
    heads, neurons = parts.heads, parts.neurons
    if len(kept_heads) < heads:
        _keep(attention, attention_in, attention_out, kept_heads, heads)
        columns = attention.get_submodule(attention_out).in_features
        if getattr(attention, "has_relative_attention_bias", False):
            table = attention.relative_attention_bias
            table.weight, table.embedding_dim = _kept(table.weight, kept_heads, 1), len(kept_heads)
        if hasattr(attention, "n_heads"):
            attention.n_heads, attention.inner_dim = len(kept_heads), columns
        elif parts.counted is not attention:
            parts.counted.num_attention_heads, parts.counted.all_head_size = len(kept_heads), columns
        elif hasattr(attention, "num_heads"):  # T5Gemma's counts its projections' rows
            attention.num_heads, attention.embed_dim = len(kept_heads), columns  # MVP reads the latter
        if type(attention) is PegasusXGlobalLocalAttention:
            attention.__class__ = NashPegasusXAttention
    if len(kept_neurons) < neurons:
        _keep(ffn, ffn_in, ffn_out, kept_neurons, neurons)


def _keep(module: Any, names_in: tuple[str, ...], name_out: str, units: list[int], total: int) -> None:
    """Slice the rows of the input projections and the columns of the output projection to some of all units."""
    for name in names_in:
        linear = module.get_submodule(name)
        width = linear.out_features // total
        rows = [unit * width + row for unit in units for row in range(width)]
        linear.weight, linear.out_features = _kept(linear.weight, rows, 0), len(rows)
        if linear.bias is not None:
            linear.bias = _kept(linear.bias, rows, 0)
    linear = module.get_submodule(name_out)
    width = linear.in_features // total
    columns = [unit * width + column for unit in units for column in range(width)]
    linear.weight, linear.in_features = _kept(linear.weight, columns, 1), len(columns)


def _kept(parameter: Any, places: list[int], dim: int) -> nn.Parameter:
    kept = parameter.detach().index_select(dim, torch.tensor(places, device=parameter.device))
    return nn.Parameter(kept, requires_grad=parameter.requires_grad)


_buckets: tuple[Any, Any] = (None, None)  # last (key, buckets): blocks of one forward ask for the same


class _OwnBias:
    """Self-attention that computes its own relative position bias and ignores the first block's."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["position_bias"] = None
        return super().forward(*args, **kwargs)  # type: ignore[misc]

    def compute_bias(self: Any, query_length: int, key_length: int, device: Any = None, *_: Any, **__: Any) -> Any:
        global _buckets
        table = self.relative_attention_bias
        device = table.weight.device if device is None else device
        counts = self.relative_attention_num_buckets, self.relative_attention_max_distance
        key = (query_length, key_length, device, counts, torch.is_inference_mode_enabled())
        remembered, buckets = _buckets
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
        if traced or remembered != key:
            distance = (
                torch.arange(key_length, device=device)[None, :] - torch.arange(query_length, device=device)[:, None]
            )
            buckets = self._relative_position_bucket(
                distance, bidirectional=True, num_buckets=counts[0], max_distance=counts[1]
            )
            if not traced:
                _buckets = key, buckets
        return table(buckets).permute(2, 0, 1).unsqueeze(0)


class NashT5Attention(_OwnBias, T5Attention):
    pass


class NashMT5Attention(_OwnBias, MT5Attention):
    pass


_OWN_BIAS = {T5Attention: NashT5Attention, MT5Attention: NashMT5Attention}


def own_position_bias(model: Any) -> None:
    """Give every encoder block a copy of the first block's bias table, in place (T5, mT5; else nothing)."""
    first = block_parts(encoder_blocks(model)[0]).attention
    for block in encoder_blocks(model):
        attention = block_parts(block).attention
        own = _OWN_BIAS.get(type(attention))
        if own is None:
            continue
        attention.__class__ = own
        if not attention.has_relative_attention_bias:
            attention.has_relative_attention_bias = True
            attention.relative_attention_bias = copy.deepcopy(first.relative_attention_bias)


class NashPegasusXAttention(PegasusXGlobalLocalAttention):
    """PegasusX's, of any number of heads: its own takes the model's width for theirs."""

    def forward(self, token_hidden_states: Any, global_hidden_states: Any, attention_mask: Any = None, **_: Any) -> Any:
        rows, tokens, width = token_hidden_states.shape
        size, far_tokens = self.block_size, global_hidden_states.shape[1]
        parts = (tokens, size, self.num_heads, width, self.head_dim, tokens // size, far_tokens, tokens)
        sizes = DimensionInfo(rows, *parts)

        def split(states: Any) -> Any:
            found = (self.q_proj(states) * self.scaling, self.k_proj(states), self.v_proj(states))
            return [self._shape(one, states.shape[1], rows) for one in found]

        query, key, value = split(token_hidden_states)
        far_query, far_key, far_value = split(global_hidden_states)
        far, far_weights = self.compute_global_attention_representations(
            far_query, far_key, far_value, key, value, attention_mask, sizes
        )
        near, near_weights = self.compute_local_attention_representations(
            far_key, far_value, query, key, value, attention_mask, sizes
        )
        near = self.out_proj(near.permute(0, 2, 3, 1, 4).reshape(rows, tokens, -1))
        far = self.out_proj(far.transpose(1, 2).reshape(rows, far_tokens, -1))
        return near, far, {"global": far_weights, "local": near_weights}


class Narrow:
    """The stock model, built full and then narrowed to what its config says; every subclass is known to the Auto API.

    A subclass names this class first and its stock class second. Its `config_class`, whose `model_type` is the stock
    one after `nash_`, is made here unless it names one.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        model: Any = cls
        if "config_class" not in vars(cls):
            stock = model.__bases__[1].config_class
            names = {"model_type": f"nash_{stock.model_type}", "__module__": __name__}
            model.config_class = globals()[f"Nash{stock.__name__}"] = type(f"Nash{stock.__name__}", (stock,), names)
        super().__init_subclass__(**kwargs)
        config = model.config_class
        reads_text = model.main_input_name == "input_ids"
        auto = transformers.AutoModelForSeq2SeqLM if reads_text else transformers.AutoModelForSpeechSeq2Seq
        transformers.AutoConfig.register(config.model_type, config, exist_ok=True)
        auto.register(config, model, exist_ok=True)
        config.register_for_auto_class()
        model.register_for_auto_class(auto.__name__)

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]
        shapes = (getattr(config, "nash_shapes", None) or {}).get("encoder")
        if shapes is None:
            return
        blocks = encoder_blocks(self)
        if len(shapes) != len(blocks):
            raise ValueError(f"nash_shapes must list {len(blocks)} encoder blocks, but got {len(shapes)}")
        own_position_bias(self)
        for block, size in zip(blocks, shapes, strict=True):
            narrow_block(block, list(range(size["heads"])), list(range(size["ffn"])))

    @classmethod
    def is_remote_code(cls) -> bool:
        """`generate` asks, and looks up the signature of remote code's forward at every token: 4 % of a small model."""
        return False

    def save_pretrained(self: Any, *args: Any, **kwargs: Any) -> Any:
        """The config, remote code itself, copies this file; which class to take is said here."""
        known = getattr(self.config, "auto_map", None) or {}
        self.config.auto_map = {**known, self._auto_class: f"modeling_nash.{type(self).__name__}"}
        return super().save_pretrained(*args, **kwargs)  # type: ignore[misc]


class _CacheByDecoderDepth:
    """T5 sizes its generation cache by `num_layers`, the encoder's depth; the decoder's is right."""

    def get_text_config(self, decoder: Any = None, encoder: Any = None) -> Any:
        config = super().get_text_config(decoder=decoder, encoder=encoder)  # type: ignore[misc]
        if decoder and not encoder and config.is_encoder_decoder:
            config = copy.copy(config)
            config.num_layers = config.num_decoder_layers
        return config


class NashT5Config(_CacheByDecoderDepth, transformers.T5Config):
    model_type = "nash_t5"


class NashMT5Config(_CacheByDecoderDepth, transformers.MT5Config):
    model_type = "nash_mt5"


class NashUMT5Config(_CacheByDecoderDepth, transformers.UMT5Config):
    model_type = "nash_umt5"


class NashT5ForConditionalGeneration(Narrow, transformers.T5ForConditionalGeneration):
    config_class = NashT5Config


class NashMT5ForConditionalGeneration(Narrow, transformers.MT5ForConditionalGeneration):
    config_class = NashMT5Config


class NashUMT5ForConditionalGeneration(Narrow, transformers.UMT5ForConditionalGeneration):
    config_class = NashUMT5Config


class NashBartForConditionalGeneration(Narrow, transformers.BartForConditionalGeneration): ...


class NashPLBartForConditionalGeneration(Narrow, transformers.PLBartForConditionalGeneration): ...


class NashMvpForConditionalGeneration(Narrow, transformers.MvpForConditionalGeneration): ...


class NashBlenderbotForConditionalGeneration(Narrow, transformers.BlenderbotForConditionalGeneration): ...


class NashBlenderbotSmallForConditionalGeneration(Narrow, transformers.BlenderbotSmallForConditionalGeneration): ...


class NashMBartForConditionalGeneration(Narrow, transformers.MBartForConditionalGeneration): ...


class NashPegasusForConditionalGeneration(Narrow, transformers.PegasusForConditionalGeneration): ...


class NashPegasusXForConditionalGeneration(Narrow, transformers.PegasusXForConditionalGeneration): ...


class NashBigBirdPegasusForConditionalGeneration(Narrow, transformers.BigBirdPegasusForConditionalGeneration): ...


class NashLEDForConditionalGeneration(Narrow, transformers.LEDForConditionalGeneration): ...


class NashMarianMTModel(Narrow, transformers.MarianMTModel): ...


class NashM2M100ForConditionalGeneration(Narrow, transformers.M2M100ForConditionalGeneration): ...


class NashT5GemmaForConditionalGeneration(Narrow, transformers.T5GemmaForConditionalGeneration): ...


if hasattr(transformers, "T5Gemma2ForConditionalGeneration"):  # transformers 4 has none

    class NashT5Gemma2ForConditionalGeneration(Narrow, transformers.T5Gemma2ForConditionalGeneration): ...


class NashWhisperForConditionalGeneration(Narrow, transformers.WhisperForConditionalGeneration): ...
