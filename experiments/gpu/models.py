"""Models of real sizes with random weights, their cuts, and what a call of each costs at least.

Latency depends on shapes, not on weights, so nothing has to be carried to the machine.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf

from nash_search.config import Architecture, Workload
from nash_search.families import family_of
from nash_search.pruner import load, random_cut
from nash_search.tasks.g2p import teacher_folder

T5_SMALL = {"vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8}
BART_BASE = {
    "vocab_size": 50265, "d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 12,
    "decoder_attention_heads": 12, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072,
}  # fmt: skip
SIZES: dict[str, tuple[str, dict[str, int]]] = {
    "t5-small": ("t5", T5_SMALL),
    "t5-base": ("t5", T5_SMALL | {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}),
    "bart-base": ("bart", BART_BASE),
    "bart-large": ("bart", BART_BASE | {
        "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "encoder_attention_heads": 16,
        "decoder_attention_heads": 16, "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096,
    }),
    "marian": ("marian", {
        "vocab_size": 58101, "d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 8,
        "decoder_attention_heads": 8, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048, "pad_token_id": 58100,
        "eos_token_id": 0, "decoder_start_token_id": 58100,
    }),
}  # fmt: skip
SMALL = {
    "vocab_size": 100, "d_model": 24, "d_kv": 4, "d_ff": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
    "pad_token_id": 99, "decoder_start_token_id": 99, "num_layers": 2, "encoder_layers": 2, "decoder_layers": 2,
    "num_heads": 4, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
}  # fmt: skip
"""A rehearsal's sizes, as far as a family has them."""
CLASSES = {
    "t5": (hf.T5Config, hf.T5ForConditionalGeneration),
    "bart": (hf.BartConfig, hf.BartForConditionalGeneration),
    "marian": (hf.MarianConfig, hf.MarianMTModel),
}
KERNELS = {"t5": (27.2, 60, 34), "bart": (13.5, 44, 19), "marian": (13.2, 42, 19)}
"""Dispatched operations, counted on a CPU: per encoder block, per token, per token and decoder block."""
CUTS = {"half": (0, 2), "narrow-half": (50, 2), "one": (0, 0), "narrow": (50, 1)}
"""Encoder sparsity (percent) and what the decoder's depth is divided by (0: one block)."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def dense(name: str, device: str, *, tiny: bool) -> Any:
    """A model in eval mode on the device; `g2p` is the shipped teacher."""
    if name == "g2p":
        return load(teacher_folder()).to(device).eval()
    family, sizes = SIZES[name]
    sizes = sizes | ({key: SMALL[key] for key in sizes if key in SMALL} if tiny else {})
    config, model = CLASSES[family]
    torch.manual_seed(0)
    return model(config(**sizes, **({"decoder_start_token_id": 0} if family == "t5" else {}))).to(device).eval()


def cuts(model: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Cuts of a model by name, with random choices of what goes."""
    total, found = len(family_of(model).decoder_blocks(model)), {}
    for name in names:
        sparsity_pct, by = CUTS[name]
        asked = Architecture(encoder_sparsity_pct=sparsity_pct, decoder_layers=total // by if by else 1)
        found[name] = random_cut(model, asked)
    return found


def least(model: Any, name: str, workload: Workload) -> dict[str, int]:
    """What one call costs at least: kernels launched one by one, and bytes of weights that must be read."""
    family = family_of(model)
    per_block, per_token, per_both = KERNELS["t5" if name == "g2p" else SIZES[name][0]]
    blocks, encoder = family.decoder_blocks(model), model.get_encoder()
    cross = sum(
        p.numel()
        for block in blocks
        for attention in family.decoder_attentions(block)[1:]
        for key, p in attention.named_parameters()
        if key.split(".")[0] in ("k", "v", "k_proj", "v_proj")  # the encoder's states pass them once
    )
    step = sum(p.numel() for b in blocks for p in b.parameters()) - cross + model.get_output_embeddings().weight.numel()
    once = sum(p.numel() for key, p in encoder.named_parameters() if "embed" not in key and "shared" not in key)
    layers = len(encoder.block if hasattr(encoder, "block") else encoder.layers)
    tokens = workload.output_tokens
    kernels = per_block * layers + tokens * (per_token + per_both * len(blocks)) + 4 * len(blocks) + 9
    bytes_ = BYTES[workload.dtype] * (once + cross + tokens * step)
    return {"kernels": round(kernels), "bytes": bytes_, "weights": sum(p.numel() for p in model.parameters())}
