"""Tiny random models of every family, built from a config, and inputs with padding."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from nash_search.pruner.surgery import cut, keep_decoder_blocks

TEXT_FAMILIES = (
    "t5", "flan", "mt5", "umt5", "bart", "plbart", "mvp", "blenderbot", "blenderbot-small", "mbart", "pegasus",
    "pegasus_x", "bigbird_pegasus", "led", "marian", "m2m_100", "t5gemma", "t5gemma2",
)  # fmt: skip
PYTORCH_ONLY = ("pegasus_x", "bigbird_pegasus", "led", "t5gemma", "t5gemma2")
"""No engine has their attention."""
KINDS = (*TEXT_FAMILIES, "whisper")
VOCABULARY = 40
FRAMES = 18


def config_of(kind: str, encoder_layers: int = 3, decoder_layers: int = 4, vocabulary: int = VOCABULARY) -> Any:
    t5 = dict(
        vocab_size=vocabulary,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_heads=3,  # H*d_k = 24, not d_model
        num_layers=max(encoder_layers, decoder_layers),
        num_decoder_layers=decoder_layers,
        dropout_rate=0.1,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    bart = dict(
        vocab_size=vocabulary,
        d_model=32,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=40,
        max_position_embeddings=64,
        dropout=0.1,
        init_std=0.2,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=1,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
    )
    gemma = dict(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=6,  # all heads are wider than the model
        query_pre_attn_scalar=6,
        sliding_window=4,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=1,
    )
    match kind:
        case "t5":
            return transformers.T5Config(**t5)
        case "flan":
            return transformers.T5Config(**t5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
        case "mt5":
            return transformers.MT5Config(**t5, feed_forward_proj="gated-gelu")
        case "umt5":
            return transformers.UMT5Config(**t5, feed_forward_proj="gated-gelu")
        case "bart":
            return transformers.BartConfig(**bart)
        case "plbart":
            return transformers.PLBartConfig(**bart)
        case "mvp":
            return transformers.MvpConfig(**bart)
        case "blenderbot":
            return transformers.BlenderbotConfig(**bart, encoder_no_repeat_ngram_size=0)  # no engine has it
        case "blenderbot-small":
            return transformers.BlenderbotSmallConfig(**bart, scale_embedding=True)
        case "mbart":
            return transformers.MBartConfig(**bart)
        case "pegasus":
            return transformers.PegasusConfig(**bart)
        case "pegasus_x":
            return transformers.PegasusXConfig(**bart, num_global_tokens=2, block_size=4)
        case "bigbird_pegasus":
            del bart["forced_eos_token_id"]
            return transformers.BigBirdPegasusConfig(**bart, attention_type="original_full")
        case "led":
            del bart["max_position_embeddings"], bart["forced_eos_token_id"]
            ends = dict(max_encoder_position_embeddings=64, max_decoder_position_embeddings=48)
            return transformers.LEDConfig(**bart, **ends, attention_window=4)
        case "marian":
            return transformers.MarianConfig(**bart)
        case "m2m_100":
            return transformers.M2M100Config(**bart, encoder_layerdrop=0.3, decoder_layerdrop=0.3)
        case "t5gemma" | "t5gemma2":
            kinds = ("sliding_attention", "full_attention")
            encoder, decoder = (
                {**gemma, "num_hidden_layers": layers, "layer_types": [kinds[i % 2] for i in range(layers)]}
                for layers in (encoder_layers, decoder_layers)
            )
            if kind == "t5gemma":
                sides = {"encoder": encoder, "decoder": decoder}
                return transformers.T5GemmaConfig(**sides, vocab_size=vocabulary, dropout_rate=0.1)
            eye = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=4)
            eye |= dict(patch_size=2, model_type="siglip_vision_model")
            encoder = {"text_config": encoder, "vision_config": eye, "mm_tokens_per_image": 1}
            return transformers.T5Gemma2Config(encoder=encoder, decoder=decoder, dropout_rate=0.1)
        case "whisper":
            del bart["max_position_embeddings"], bart["forced_eos_token_id"]
            sizes = dict(num_mel_bins=6, max_source_positions=FRAMES // 2, max_target_positions=32)
            return transformers.WhisperConfig(**bart, **sizes, begin_suppress_tokens=None)
    raise ValueError(kind)


def model_of(kind: str, seed: int = 0, attention: str = "sdpa", untied: bool | None = None, **sizes: int) -> Any:
    """A tiny model in eval mode whose every parameter is random (zero biases would hide mistakes)."""
    config = config_of(kind, **sizes)
    untied = kind in ("flan", "mt5", "umt5") if untied is None else untied
    if untied and not hasattr(config, "d_kv"):
        config.tie_word_embeddings = False
    torch.manual_seed(seed)
    auto = transformers.AutoModelForSpeechSeq2Seq if kind == "whisper" else transformers.AutoModelForSeq2SeqLM
    known = auto._model_mapping[type(config)]._supports_sdpa
    model = auto.from_config(config, attn_implementation=attention if known else "eager")
    if untied:
        head = model.get_output_embeddings()
        head.weight = torch.nn.Parameter(torch.randn_like(head.weight))
        for name in ("lm_head.weight", "lm_head.out_proj.weight", "proj_out.weight"):
            model.all_tied_weights_keys.pop(name, None)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") and parameter.dim() == 1 or "norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
            if "relative_attention_bias" in name:
                parameter.copy_(torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("final_logits_bias"):
                buffer.copy_(torch.randn_like(buffer))
    return model.eval()


def batch_of(
    seed: int = 0, batch: int = 3, source: int = 9, target: int = 6, kind: str = "t5"
) -> dict[str, torch.Tensor]:
    """Random tokens with right padding: attention mask and -100 in the labels; for Whisper, random features."""
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(3, VOCABULARY, (batch, source), generator=generator)
    labels = torch.randint(3, VOCABULARY, (batch, target), generator=generator)
    mask = torch.ones_like(input_ids)
    for row in range(1, batch):
        pads = row % 4
        mask[row, source - 2 * pads :] = 0
        labels[row, target - pads :] = -100
    if kind == "whisper":
        return {"input_features": torch.randn(batch, 6, FRAMES, generator=generator), "labels": labels}
    input_ids = input_ids.masked_fill(mask == 0, 0)
    return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}


def logits_of(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch).logits


def some_kept(model: Any, seed: int = 0) -> tuple[list[list[int]], list[list[int]]]:
    """Different subsets per encoder block; block 0 loses heads too."""
    from nash_search.families import family_of
    from nash_search.modeling_nash import block_parts, encoder_blocks

    generator = torch.Generator().manual_seed(seed)
    heads, neurons = [], []
    for index, block in enumerate(encoder_blocks(model)):
        parts = block_parts(block)
        keep = 1 + index % (parts.heads - 1) if index else parts.heads - 1
        keep = parts.heads if family_of(model).heads_stay else keep
        heads.append(sorted(torch.randperm(parts.heads, generator=generator)[:keep].tolist()))
        keep = 5 + 7 * index
        neurons.append(sorted(torch.randperm(parts.neurons, generator=generator)[:keep].tolist()))
    return heads, neurons


def cut_of(kind, untied=None):
    """Two of four decoder blocks, every encoder block with heads and neurons of its own."""
    model = model_of(kind, untied=untied)
    return cut(keep_decoder_blocks(model, [1, 3]), *some_kept(model)).eval()
