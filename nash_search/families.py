"""Which encoder-decoder families can be pruned, and where each keeps what the pruner touches.

One row of `FAMILIES` per `config.model_type`; a model whose own type is `nash_*` (already narrowed)
is its family's row. Everything else in the pruner asks this table and refuses to know any family by
name. A model that is not in the table is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nash_search import modeling_nash
from nash_search.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one family of models is cut."""

    model_type: str
    narrow_class: type[Any]
    """The class whose encoder blocks may differ in size."""
    depth_key: str
    """Config field with the number of decoder blocks."""
    ffn_key: str | None
    """Config field that can express a uniform encoder FFN width by itself (None: it cannot)."""
    first_block_has_bias: bool = False
    """The first block computes the relative position bias of all blocks."""
    says_tied: bool = False
    """transformers 5 sets `tie_word_embeddings` True whatever the file says (4 obeys the file)."""
    answers_are_labels: bool = True
    """What `generate` returns after the start token can be fed back as labels."""

    @property
    def stock_class(self) -> type[Any]:
        """The library's class that `narrow_class` extends."""
        return self.narrow_class.__bases__[1]

    def decoder(self, model: Any) -> Any:
        return model.get_decoder()

    def decoder_blocks(self, model: Any) -> Any:
        decoder = self.decoder(model)
        return decoder.block if hasattr(decoder, "block") else decoder.layers

    def decoder_attentions(self, block: Any) -> tuple[Any, Any]:
        """Self- and cross-attention of one decoder block."""
        if hasattr(block, "self_attn"):
            return block.self_attn, block.encoder_attn
        return block.layer[0].SelfAttention, block.layer[1].EncDecAttention


def _t5(model_type: str, narrow_class: type[Any], first_block_has_bias: bool) -> Family:
    return Family(
        model_type=model_type,
        narrow_class=narrow_class,
        depth_key="num_decoder_layers",
        ffn_key=None,
        first_block_has_bias=first_block_has_bias,
        says_tied=True,
    )


def _bart(model_type: str, narrow_class: type[Any], answers_are_labels: bool = True) -> Family:
    return Family(
        model_type=model_type,
        narrow_class=narrow_class,
        depth_key="decoder_layers",
        ffn_key="encoder_ffn_dim",
        answers_are_labels=answers_are_labels,
    )


FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        _t5("t5", modeling_nash.NashT5ForConditionalGeneration, True),  # also v1.1, Flan, ByT5's T5 class
        _t5("mt5", modeling_nash.NashMT5ForConditionalGeneration, True),
        _t5("umt5", modeling_nash.NashUMT5ForConditionalGeneration, False),
        _bart("bart", modeling_nash.NashBartForConditionalGeneration),
        _bart("mbart", modeling_nash.NashMBartForConditionalGeneration, answers_are_labels=False),
        _bart("pegasus", modeling_nash.NashPegasusForConditionalGeneration),
        _bart("marian", modeling_nash.NashMarianMTModel),
        _bart("m2m_100", modeling_nash.NashM2M100ForConditionalGeneration),  # also NLLB
        # its batches hold features, not ids
        _bart("whisper", modeling_nash.NashWhisperForConditionalGeneration, answers_are_labels=False),
    )
}


def adapter_of(model_or_config: Any) -> Family:
    """The family of a model or config.

    Raises:
        InvalidInput: when its `model_type` is none of the supported ones, or it has no decoder to shorten.
    """
    config = getattr(model_or_config, "config", model_or_config)
    model_type = str(getattr(config, "model_type", "") or type(config).__name__)
    family = FAMILIES.get(model_type.removeprefix("nash_"))
    if family is None:
        raise InvalidInput(f"model must be one of {', '.join(sorted(FAMILIES))}, but got {model_type}")
    if model_or_config is not config and not isinstance(model_or_config, family.stock_class):
        raise InvalidInput(f"model must be a {family.stock_class.__name__}, but got {type(model_or_config).__name__}")
    return family
