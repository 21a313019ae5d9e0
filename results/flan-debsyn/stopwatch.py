"""A stopwatch that shares no code with nash-search: `python stopwatch.py DENSE EXPORT...`, one thread, 12 forced tokens."""

import statistics
import sys
import time

import torch
from transformers import AutoModelForSeq2SeqLM

torch.set_num_threads(1)
models = {path: AutoModelForSeq2SeqLM.from_pretrained(path).eval() for path in sys.argv[1:]}
ids = torch.randint(10, 30_000, (1, 73))
taken_ms: dict[str, list[float]] = {path: [] for path in models}
for call in range(45):
    for path in list(models) if call % 2 else list(models)[::-1]:
        began = time.perf_counter()
        with torch.no_grad():
            models[path].generate(ids, attention_mask=torch.ones_like(ids), min_new_tokens=12, max_new_tokens=12)
        if call >= 5:  # the first five warm up
            taken_ms[path].append(1e3 * (time.perf_counter() - began))
dense_ms = taken_ms[sys.argv[1]]
for path, own_ms in taken_ms.items():
    share = statistics.median(a / b for a, b in zip(own_ms, dense_ms, strict=True))
    print(f"{path}: {statistics.median(own_ms):.1f} ms, {share:.3f} of dense")
