"""Is the exported folder what was trained? The same tokens, all of them, from a fresh process.

A latency is certified for the folder a user deploys, a quality was measured on a model in memory;
this check ties the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nash_search.config import Workload
from nash_search.encoder_rows import Given
from nash_search.latency.runtimes.eager import RUNTIME

INPUTS = 64
"""Real inputs on which two models are compared."""


def tokens_of(model: Any, rows: Given, workload: Workload, *, max_new_tokens: int) -> list[list[int]]:
    """What a loaded model generates, under the same settings as `fresh_tokens`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(workload.threads)
    try:
        return RUNTIME.tokens(model, rows, beams=workload.beams, max_new_tokens=max_new_tokens)
    finally:
        torch.set_num_threads(threads)


def differing(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> int:
    """Rows whose tokens are not the same."""
    if len(first) != len(second):
        return max(len(first), len(second))
    return sum(list(a) != list(b) for a, b in zip(first, second, strict=True))
