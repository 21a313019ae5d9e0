"""Tiny data and tiny models, made here: text reversed word by word, and a T5, a BART and a Marian from config."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

WORDS = "red green blue small large cat dog bird runs sleeps eats here there now then".split()


def pairs(count: int, start: int = 0) -> list[dict[str, str]]:
    """Distinct three-word sources with the same words backwards as targets."""
    rows = []
    for i in range(start, start + count):
        words = [WORDS[i % 15], WORDS[i // 15 % 15], WORDS[i // 225 % 15]]
        rows.append({"source": " ".join(words), "target": " ".join(reversed(words))})
    return rows


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(autouse=True)
def one_thread():
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)
    yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train, validation and test as JSONL."""
    path = tmp_path / "data"
    path.mkdir()
    write_jsonl(path / "train.jsonl", pairs(120))
    write_jsonl(path / "validation.jsonl", pairs(20, 200))
    write_jsonl(path / "test.jsonl", pairs(20, 300))
    return path


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from nash_search.tasks.scratch_tokenizer import train_tokenizer

    texts = [text for row in pairs(300) for text in row.values()]
    return train_tokenizer({"kind": "bpe", "vocabulary": 100}, texts)


def tiny_model(kind: str, vocabulary: int) -> Any:
    """A random model of the kind, from config, evaluation mode."""
    import torch
    import transformers

    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    common = {"vocab_size": vocabulary, "d_model": 16, **ids}
    if kind == "t5":
        config: Any = transformers.T5Config(
            **common, d_kv=4, d_ff=24, num_heads=4, num_layers=3, num_decoder_layers=2, dropout_rate=0.0
        )
    else:
        sizes = {"encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "dropout": 0.0}
        heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 64}
        maker = {"bart": transformers.BartConfig, "marian": transformers.MarianConfig}[kind]
        config = maker(**common, **sizes, **heads, bos_token_id=None, forced_eos_token_id=None)
    return transformers.AutoModelForSeq2SeqLM.from_config(config).eval()


@pytest.fixture(params=["t5", "bart", "marian"])
def model_folder(request: Any, tmp_path: Path, tokenizer: Any) -> Path:
    """A model folder as save_pretrained writes it."""
    path = tmp_path / request.param
    tiny_model(request.param, len(tokenizer)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
