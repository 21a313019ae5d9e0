"""Is the exported folder what was trained? The same tokens, all of them, from a fresh process.

A latency is certified for the folder a user deploys, a quality was measured on a model in memory;
this check ties the two together. It refuses to know either number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nash_search.config import Frozen, Workload
from nash_search.latency.eager import RUNTIME
from nash_search.latency.fresh import fresh_tokens

INPUTS = 64


class Identity(Frozen):
    """How many inputs were compared and how many came out differently."""

    inputs: int
    differing: int

    @property
    def identical(self) -> bool:
        """Every token of every output is the same (and something was compared)."""
        return self.inputs > 0 and self.differing == 0


def tokens_of(model: Any, rows: Sequence[Sequence[int]], workload: Workload, *, max_new_tokens: int) -> list[list[int]]:
    """What a loaded model generates, under the same settings as `fresh_tokens`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(workload.threads)
    try:
        return RUNTIME.tokens(model, rows, beams=workload.beams, max_new_tokens=max_new_tokens)
    finally:
        torch.set_num_threads(threads)


def identities(
    trained: Mapping[str, Any],
    folders: Mapping[str, str | Path],
    rows: Sequence[Sequence[int]],
    workload: Workload,
    *,
    limit_s: float = 300.0,
) -> dict[str, Identity]:
    """Compare trained models with their exported folders on (at most 64) inputs.

    Args:
        trained: models in memory, by name; their precision and device are used on both sides.
        folders: the exports, by the same names.
        rows: token ids of real inputs.
        workload: beams and threads are taken from it.
        limit_s: for the fresh process.
    """
    rows = list(rows)[:INPUTS]
    longest = 2 * workload.output_tokens
    found: dict[str, Identity] = {}
    by_place: dict[tuple[str, str], list[str]] = {}
    for name, model in trained.items():
        first = next(model.parameters())
        by_place.setdefault((str(first.device), str(first.dtype).removeprefix("torch.")), []).append(name)
    for (device, dtype), names in by_place.items():
        settings = {"device": device, "dtype": dtype, "runtime": "eager", "quantize": "none"}
        plain = Workload(**(workload.model_dump() | settings))
        exported = fresh_tokens(
            {name: folders[name] for name in names}, rows, plain, max_new_tokens=longest, limit_s=limit_s
        )
        for name in names:
            own = tokens_of(trained[name], rows, plain, max_new_tokens=longest)
            found[name] = Identity(inputs=len(rows), differing=differing(own, exported[name]))
    return found


def differing(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> int:
    """Rows whose tokens are not the same."""
    if len(first) != len(second):
        return max(len(first), len(second))
    return sum(list(a) != list(b) for a, b in zip(first, second, strict=True))
