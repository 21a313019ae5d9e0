"""Two ONNX graphs of an encoder-decoder: the encoder with every key and value that decoding asks it for, one step.

    encoder.onnx  input_ids (B, S), attention_mask (B, S)             -> cross_i (B, H, S, D)
    decoder.onnx  ids (B, 1), attention_mask, past_i (B, H, P, D), cross_i -> logits (B, V), now_i (B, H, P + 1, D)

The family's own modules run under the trace, so that cut shapes need nothing here; i counts keys and values of
the decoder blocks in turn, and P may be 0. Traced and written by PyTorch's older exporter: half a second per
model, where torch.export (which `transformers.exporters` wraps) takes 16 to 20 s for the same tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx  # noqa: F401  what PyTorch writes graphs with
import torch
from torch import nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from nash_search.families import layout_of

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
OPSET = 17


class _Encoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Keys and values of every decoder block's cross-attention, from one pass of the encoder."""
        mask_B1SS = _added(attention_mask).expand(-1, 1, input_ids.shape[1], -1)  # MVP takes no mask for all queries
        hidden_BSD = self.model.get_encoder()(input_ids=input_ids, attention_mask=mask_B1SS)[0]
        found = []
        layout = layout_of(self.model)
        for block in getattr(self.model.get_decoder(), layout.blocks):
            attention = block.get_submodule(layout.cross_attention)
            width = getattr(attention, layout.head_width)
            for name in (layout.key, layout.value):
                projected = getattr(attention, name)(hidden_BSD)
                found.append(projected.view(*projected.shape[:2], -1, width).transpose(1, 2))
        return tuple(found)


class _Step(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, ids: torch.Tensor, attention_mask: torch.Tensor, past: list[torch.Tensor], cross: list[torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        """One token per row: its logits, and the keys and values with it."""
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        for block in range(len(past) // 2):
            cache.self_attention_cache.update(past[2 * block], past[2 * block + 1], block)
            cache.cross_attention_cache.update(cross[2 * block], cross[2 * block + 1], block)
            cache.is_updated[block] = True  # the encoder's states are not looked at again
        batch, source = attention_mask.shape
        logits_B1V = self.model(
            decoder_input_ids=ids,
            attention_mask=_added(attention_mask),
            decoder_attention_mask=torch.zeros(batch, 1, 1, past[0].shape[2] + 1),
            encoder_outputs=(torch.zeros(batch, source, self.model.config.d_model),),
            past_key_values=cache,
            use_cache=True,
        ).logits
        layers: list[Any] = cache.self_attention_cache.layers
        now = [tensor for layer in layers for tensor in (layer.keys, layer.values)]
        return (logits_B1V[:, -1], *now)


def export(model: Any, folder: Path) -> None:
    """Write both graphs of a float32 model on the CPU, which is left as it was."""
    ids_BS, mask_BS = torch.full((2, 3), model.config.vocab_size - 1), torch.tensor([[1, 1, 1], [1, 1, 0]])
    encoder, step = _Encoder(model).eval(), _Step(model).eval()
    with torch.no_grad(), _plain_attention(model), _quiet():
        cross = list(encoder(ids_BS, mask_BS))
        past = [torch.zeros(2, tensor.shape[1], 2, tensor.shape[3]) for tensor in cross]  # decoder heads are never cut
        names = {kind: [f"{kind}_{i}" for i in range(len(cross))] for kind in ("past", "cross", "now")}
        mask = {"attention_mask": {0: "rows", 1: "source"}}
        torch.onnx.export(
            encoder,
            (ids_BS, mask_BS),
            str(folder / ENCODER),
            input_names=["input_ids", "attention_mask"],
            output_names=names["cross"],
            dynamic_axes={"input_ids": {0: "rows", 1: "source"}, **mask, **_axes(names["cross"], "source")},
            opset_version=OPSET,
            dynamo=False,
        )
        torch.onnx.export(
            step,
            (ids_BS[:, :1], mask_BS, past, cross),
            str(folder / DECODER),
            input_names=["ids", "attention_mask", *names["past"], *names["cross"]],
            output_names=["logits", *names["now"]],
            dynamic_axes={
                "ids": {0: "rows"}, **mask, "logits": {0: "rows"}, **_axes(names["past"], "past"),
                **_axes(names["cross"], "source"), **_axes(names["now"], "now"),
            },
            opset_version=OPSET,
            dynamo=False,
        )  # fmt: skip


def _added(mask_BS: torch.Tensor) -> torch.Tensor:
    """A mask as families add it to their scores, so that none builds its own under the trace."""
    lowest = torch.finfo(torch.float32).min
    return (1.0 - mask_BS[:, None, None, :].to(torch.float32)) * lowest


def _axes(names: list[str], length: str) -> dict[str, dict[int, str]]:
    return {name: {0: "rows", 2: length} for name in names}


@contextmanager
def _plain_attention(model: Any) -> Iterator[None]:
    """Matrix products and a softmax, which every opset can say."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """The trace warns of every shape it takes for a constant; what it got wrong, the comparison finds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
