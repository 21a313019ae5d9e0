"""Percentiles over real requests by a stopwatch that shares no code with nash-search.

    python stopwatch.py TRAIN.jsonl.gz DENSE EXPORT                 # PyTorch, as transformers loads both
    python stopwatch.py TRAIN.jsonl.gz DENSE EXPORT ctranslate2     # DENSE converted by CTranslate2's own converter

One thread, one request at a time: 600 pairs of lengths drawn by chance from the data, each with its forced number of
output tokens, dense and export one after the other, turns changing. At the end the call of the median lengths alone.
"""

import gzip
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

REQUESTS, FIXED, LONGEST = 600, 60, 64
PRE_NORM = {"normalize_before": True, "normalize_embedding": False}  # what the converter asks of a Pegasus
data, *folders = sys.argv[1:4]
torch.set_num_threads(1)
tokenizer = AutoTokenizer.from_pretrained(folders[0])
with gzip.open(data, "rt", encoding="utf-8") as lines:
    rows = [json.loads(line) for line in lines]
read = [min(LONGEST, len(ids)) for ids in tokenizer([r["source"] for r in rows]).input_ids]
written = [len(ids) for ids in tokenizer(text_target=[r["target"] for r in rows]).input_ids]
chance = random.Random(1)


def eager(folder: str) -> Callable[[int, int], object]:
    """One forced call of a model in PyTorch."""
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True).eval()

    def call(tokens_in: int, tokens_out: int) -> object:
        ids = torch.randint(10, 3_900, (1, tokens_in))
        asked = {"min_new_tokens": tokens_out, "max_new_tokens": tokens_out, "num_beams": 1}
        with torch.no_grad():
            return model.generate(ids, attention_mask=torch.ones_like(ids), **asked)

    return call


def engine(folder: str) -> Callable[[int, int], object]:
    """The same on CTranslate2."""
    import ctranslate2

    translator = ctranslate2.Translator(folder, device="cpu", intra_threads=1, inter_threads=1)
    words = tokenizer.convert_ids_to_tokens(list(range(10, 3_900)))

    def call(tokens_in: int, tokens_out: int) -> object:
        asked = {"min_decoding_length": tokens_out, "max_decoding_length": tokens_out, "beam_size": 1}
        return translator.translate_batch([chance.choices(words, k=tokens_in)], **asked)

    return call


if sys.argv[4:] == ["ctranslate2"]:
    from ctranslate2.converters import TransformersConverter

    scratch = tempfile.TemporaryDirectory()
    given = Path(shutil.copytree(folders[0], f"{scratch.name}/given"))
    told = json.loads((given / "config.json").read_text())
    (given / "config.json").write_text(json.dumps(told | PRE_NORM))
    TransformersConverter(str(given)).convert(f"{scratch.name}/dense")
    calls = [engine(f"{scratch.name}/dense"), engine(f"{folders[1]}/ctranslate2")]
else:
    calls = [eager(folder) for folder in folders]


def timed(lengths: list[tuple[int, int]]) -> list[list[float]]:
    """Milliseconds of each model's calls."""
    found: list[list[float]] = [[], []]
    for turn, (tokens_in, tokens_out) in enumerate(lengths):
        for which in (0, 1) if turn % 2 else (1, 0):
            began = time.perf_counter()
            calls[which](tokens_in, tokens_out)
            found[which].append(1e3 * (time.perf_counter() - began))
    return found


drawn = chance.choices(list(zip(read, written, strict=True)), k=REQUESTS)
timed(drawn[:20] + sorted(set(drawn))[-5:])  # warm-up
dense_ms, own_ms = timed(drawn)
middle = int(statistics.median(read)), int(statistics.median(written))
fixed = timed([middle] * FIXED)
print(f"one call of {middle[0]} and {middle[1]} tokens: {statistics.median(fixed[1]):.1f} ms, dense ", end="")
ratio = statistics.median(a / b for a, b in zip(fixed[1], fixed[0], strict=True))
print(f"{statistics.median(fixed[0]):.1f} ms, {ratio:.3f} of it")
for percentile in (50, 95, 99):
    own, dense = (statistics.quantiles(x, n=100, method="inclusive")[percentile - 1] for x in (own_ms, dense_ms))
    print(f"p{percentile} of {REQUESTS} requests: {own:.1f} ms, dense {dense:.1f} ms, {own / dense:.3f} of it")
