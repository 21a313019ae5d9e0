"""A stopwatch that shares no code with nash-search: `python stopwatch.py eager|int8 DENSE EXPORT...`, one thread, 8 tokens.

Each model hears as long a window as its encoder has, noise instead of speech, batch 1. int8 is CTranslate2's, by its own
converter.
"""

import statistics
import sys
import tempfile
import time

import ctranslate2
import torch
from ctranslate2.converters import TransformersConverter
from transformers import WhisperForConditionalGeneration

torch.set_num_threads(1)
TOKENS = 8
engine, *paths = sys.argv[1:]


def eager(path):
    """A call that writes 8 tokens."""
    model = WhisperForConditionalGeneration.from_pretrained(path).eval()
    heard = torch.randn(1, model.config.num_mel_bins, 2 * model.config.max_source_positions)
    return lambda: model.generate(heard, min_new_tokens=TOKENS, max_new_tokens=TOKENS)


def int8(path):
    """The same by CTranslate2, whose limit counts the prompt's four tokens and stops half way (4.8.5: 16 gives 8)."""
    model = WhisperForConditionalGeneration.from_pretrained(path)
    heard = torch.randn(1, model.config.num_mel_bins, 2 * model.config.max_source_positions).numpy()
    ends, limit = [model.config.eos_token_id], 2 * TOKENS
    with tempfile.TemporaryDirectory() as folder:
        TransformersConverter(path).convert(f"{folder}/w", quantization="int8")
        served = ctranslate2.models.Whisper(f"{folder}/w", intra_threads=1, compute_type="int8_float32")
    prompt = [50258, 50259, 50359, 50363]  # start, English, transcribe, no time stamps

    def call():
        sound = ctranslate2.StorageView.from_array(heard)
        found = served.generate(sound, [prompt], beam_size=1, max_length=limit, suppress_tokens=ends)
        assert len(found[0].sequences_ids[0]) == TOKENS, found

    return call


calls = {path: {"eager": eager, "int8": int8}[engine](path) for path in paths}
taken_ms: dict[str, list[float]] = {path: [] for path in paths}
for turn in range(25):
    for path in paths if turn % 2 else paths[::-1]:
        began = time.perf_counter()
        with torch.no_grad():
            calls[path]()
        if turn >= 5:  # the first five warm up
            taken_ms[path].append(1e3 * (time.perf_counter() - began))
dense_ms = taken_ms[paths[0]]
for path, own_ms in taken_ms.items():
    share = statistics.median(a / b for a, b in zip(own_ms, dense_ms, strict=True))
    print(f"{path}: {statistics.median(own_ms):.1f} ms, {share:.3f} of dense")
