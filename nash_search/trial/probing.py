"""Random-weight models of the asked shapes, timed next to the dense one, a few at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from nash_search import pruner
from nash_search.config import Architecture, Workload
from nash_search.latency.cache import LatencyCache, shapes_of
from nash_search.latency_record import Latency

TOGETHER_BYTES = 2**30
"""Weights held side by side."""


def probed(
    teacher: Any,
    served: Any,
    workload: Workload,
    shapes: Sequence[Architecture],
    cache: LatencyCache,
    limit_s: float,
    width_multiple: int,
    timing: Mapping[str, Any],
) -> dict[Architecture, Latency]:
    """Latency of each shape, as many side by side as memory allows.

    Args:
        teacher: whose shapes are cut.
        served: the dense model as the runtime serves it, the reference of each.
        workload: what one call is.
        shapes: architectures.
        cache: what was timed before.
        limit_s: for all of them.
        width_multiple: what FFN widths are rounded to.
        timing: `pairs` of each, and whether those known are timed `again`.
    """
    dense_shapes = shapes_of(teacher)
    weights_bytes = sum(p.numel() * p.element_size() for p in teacher.parameters())
    together = max(1, min(len(shapes), TOGETHER_BYTES // max(1, weights_bytes)))
    began = time.monotonic()
    found: dict[Architecture, Latency] = {}
    for start in range(0, len(shapes), together):
        group = shapes[start : start + together]
        left_s = limit_s - (time.monotonic() - began)
        groups_left = -(-(len(shapes) - start) // together)
        models = {a.slug: pruner.random_cut(teacher, a, width_multiple=width_multiple) for a in group}
        taken = cache.measure_many(models, served, dense_shapes, workload, limit_s=left_s / groups_left, **timing)
        found |= {a: taken[a.slug] for a in group}
    return found
