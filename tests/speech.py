"""A language of three words, each a second of two tones and their echo; and a model that hears, of tiny shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

RATE = 16_000
WORDS = {"alpha": (300, 500), "beta": (900, 1300), "gamma": (2300, 3100)}
"""Word to its tones, Hz."""
LANGUAGES = ("en", "de")


def spoken(word: str, seed: int, seconds: float = 0.8, rate: int = RATE) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The word at a loudness and with a noise of its own, float32."""
    random = np.random.default_rng(seed)
    at = np.arange(int(seconds * rate)) / rate
    low, high = WORDS[word]
    swelling = np.sin(np.pi * at / seconds)
    tones = np.sin(2 * np.pi * low * at) + np.sin(2 * np.pi * high * at + random.uniform(0, 6))
    return (swelling * tones * random.uniform(0.1, 0.4) + 0.01 * random.standard_normal(len(at))).astype(np.float32)


def write_clips(folder: Path, train: int = 30, held_out: int = 9) -> Path:
    """train, validation and test as JSONL of file and text, beside the recordings."""
    import soundfile

    (folder / "clips").mkdir(parents=True)
    seed = 0
    for split, count in (("train", train), ("validation", held_out), ("test", held_out)):
        rows = []
        for i in range(count):
            word, seed = list(WORDS)[i % 3], seed + 1
            name = f"clips/{split}-{i}.wav"
            soundfile.write(folder / name, spoken(word, seed), RATE, subtype="PCM_16")
            rows.append({"file": name, "text": word.title()})
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def tokenizer_of(stamps: int = 0) -> Any:
    """Bytes, and the special tokens of a model of two languages, so many time stamps behind them."""
    from transformers import WhisperTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = {letter: i for i, letter in enumerate(bytes_to_unicode().values())}
    tokenizer = WhisperTokenizer(vocab=letters, merges=[], pad_token="<|endoftext|>")
    special = ["<|startoftranscript|>", *(f"<|{one}|>" for one in LANGUAGES), "<|translate|>", "<|transcribe|>"]
    times = [f"<|{0.02 * i:.2f}|>" for i in range(stamps)]
    tokenizer.add_special_tokens({"additional_special_tokens": [*special, "<|notimestamps|>", *times]})
    return tokenizer


def write_model(
    folder: Path, seconds: int = 2, *, several: bool = True, seed: int = 0, blocks: int = 2, stamps: int = 0
) -> Path:
    """A random model that hears a window of so many seconds, with tokenizer and feature extractor."""
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    tokenizer = tokenizer_of(stamps)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens}
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    sizes = {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    sizes |= {"encoder_layers": blocks, "decoder_layers": blocks}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_mel_bins": 8}
    config = WhisperConfig(
        vocab_size=len(tokenizer), max_source_positions=50 * seconds, max_target_positions=32, init_std=0.1,
        pad_token_id=end, bos_token_id=end, eos_token_id=end, decoder_start_token_id=start, **sizes, **heads,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(config).eval()
    settings = model.generation_config
    settings._from_model_config = False  # else transformers forgets languages and tasks when it loads them
    settings.begin_suppress_tokens = settings.suppress_tokens = None
    settings.no_timestamps_token_id, settings.is_multilingual = ids["<|notimestamps|>"], several
    settings.alignment_heads = [[0, 1], [1, 0]]
    if several:
        settings.lang_to_id = {f"<|{one}|>": ids[f"<|{one}|>"] for one in LANGUAGES}
        settings.task_to_id = {one: ids[f"<|{one}|>"] for one in ("translate", "transcribe")}
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=8, chunk_length=seconds).save_pretrained(folder)
    return folder


def told(model: Any, **settings: Any) -> None:
    """Settings of its own; transformers' `update` passes over those that it does not know."""
    for name, value in settings.items():
        setattr(model.generation_config, name, value)


def listening(model: Any, language: str = "de") -> Any:
    """It follows what it hears, in a language: a random one writes the same for every input."""
    import torch

    told(model, language=language)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for block in model.get_decoder().layers:
            for linear in (block.encoder_attn.v_proj, block.encoder_attn.out_proj):
                linear.weight.copy_(torch.randn(linear.weight.shape, generator=generator))
    return model
