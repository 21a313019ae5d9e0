"""What training longer would bring, foretold from two lengths of the same training.

What a student still misses to its teacher falls with the length of training about as a power of it:

    missing(steps) = quality(dense) - quality(steps) = a * steps^-b

Two trainings that differ by their length alone, each with its whole schedule, give b. A single training's own curve
does not: it flattens because its rate decays, whatever more steps would bring (results/LOG.md, 2026-11-27).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nash_search.config import Frozen

if TYPE_CHECKING:
    from nash_search.pareto import Direction

MODEL_ERROR = 0.3
"""Standard error of a forecast as a share of it, beside the qualities' own: of seven, what came was 0.65 to 1.5 times
what was foretold (results/LOG.md, 2026-11-28)."""


class Reached(Frozen):
    """Quality that one training of a given length reached."""

    steps: float
    quality: float
    standard_error: float
    """Of the quality."""


class Forecast(Frozen):
    """How much better a training of `end` steps would be than one of `begin`, in the metric's own units."""

    begin: float
    end: float
    gain: float
    low: float
    high: float
    """Ends of its 95 % interval."""
    dense: float
    """The teacher's quality on the same examples."""


def forecast_gain(
    short: Reached,
    long: Reached,
    dense: float,
    direction: Direction,
    *,
    begin: float | None = None,
    times: float = 2.0,
) -> Forecast | None:
    """Forecast the quality gained by training over `times` as many steps, from two trainings of different length.

    Args:
        short: the same training as `long`, in fewer steps.
        long: the longer of the two.
        dense: the teacher's quality on the same examples.
        direction: of the metric.
        begin: the steps that would be multiplied (None: those of `long`).
        times: by how much.

    Returns:
        None where nothing is missing to the teacher, or the longer training is no better: there is no power to learn.
    """
    from nash_search import intervals, pareto  # SciPy takes half a second, which `--help` need not wait

    missing = [pareto.loss(r.quality, direction) - pareto.loss(dense, direction) for r in (short, long)]
    if missing[1] <= 0 or missing[0] <= missing[1] or long.steps <= short.steps:
        return None
    begin = long.steps if begin is None else begin
    apart = math.log(long.steps / short.steps)
    power = math.log(missing[0] / missing[1]) / apart
    ahead = [math.log(steps / long.steps) for steps in (begin, times * begin)]
    left = [missing[1] * math.exp(-power * nats) for nats in ahead]
    gain = left[0] - left[1]
    # derivatives by the two qualities; the power's by what is missing is ±1 / (missing * apart)
    by_power = left[1] * ahead[1] - left[0] * ahead[0]
    by_short = by_power / (missing[0] * apart)
    by_long = gain / missing[1] - by_power / (missing[1] * apart)
    parts = (by_short, short.standard_error), (by_long, long.standard_error), (gain, MODEL_ERROR)
    half = intervals.half_width(intervals.propagated(*parts))
    ends = {"low": max(0.0, gain - half), "high": gain + half}
    return Forecast(begin=begin, end=times * begin, gain=gain, dense=dense, **ends)
