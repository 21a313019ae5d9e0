"""Confidence intervals and verdicts: what a set of timings allows one to say.

The unit of independent evidence is the *round* (one process, one warm-up), not the single call:
calls within a process share its memory layout, its neighbours and its clock, so an interval over
200 calls of one process covers the truth in 58-80 % of the cases instead of 95 %. Hence

    log m_r = log of round r's median,  r = 1..R        (ratios: median of the per-pair ratios)
    bounds  = exp( mean(log m) -/+ scale * t_{R-1} * sd(log m) / sqrt(R) )

The logarithm keeps bounds positive and makes "twice as fast" and "twice as slow" symmetric.

Rounds taken one after the other share more: the *occasion*. The same model's wall times move from one
occasion to the next (clocks, neighbours, heat) by more than the rounds of one occasion show; a paired ratio
hardly moves, for its two models move together. Bounds in milliseconds therefore carry an `OccasionEffect`:

    variance = occasion.sd^2 * c + scale^2 * s^2 / R        s: between the rounds of one occasion
    bounds   = exp( mean(log m) -/+ t_nu * sqrt(variance) )  nu: Satterthwaite's, of both parts

where c is 1 for one occasion and less for the mean of several. With a single round there is no spread between
rounds to look at: blocks of consecutive calls stand in for rounds and a round effect of 2 % is assumed on top. That
is enough for a search to steer by, never for a certificate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import special  # `scipy.stats` says the same and takes a second to import

from nash_search.recipes import Frozen

CONFIDENCE = 0.95
LEVEL_PCT = round(100 * CONFIDENCE)
"""As it is said beside every interval, percent."""
PEEKING_SCALE = 1.15
"""Widening of an interval that is looked at more than once before stopping."""
ROUND_EFFECT = 0.02
"""Assumed standard deviation between processes, as a fraction, where only one was timed."""
BLOCKS = 5
"""Blocks of consecutive calls that stand in for rounds when there is one round."""

AUTOCORRELATION = 0.4
"""Of one occasion's effect with the next one's (results/clock/clock.json.gz: 0.41 to 0.44)."""
LEAST_DEGREES = 5.0
"""With fewer degrees of freedom a device's own effect counts only if it exceeds the default; 9 occasions have these."""
POWER = 0.9
"""Chance with which a model at the printed margin is found to meet its budget, where scatter and autocorrelation are
as assumed; at least 0.8 are promised."""
ROUND_SD, RATIO_ROUND_SD = 0.03, 0.0075
"""Standard deviations between the rounds of one occasion, of log medians and of log ratios, before any was taken
(results/clock/clock.json.gz: 0.031 and 0.0074)."""

NORMAL_QUANTILE, POWER_QUANTILE = 1.96, 1.28
"""Half-width of a normal 95 % interval, and what the chance of `POWER` takes beyond it; standard errors."""

Bounds = tuple[float, float]
UNKNOWN: Bounds = (0.0, math.inf)
"""The bounds of something nothing is known about."""


class OccasionEffect(Frozen):
    """How far a device's medians move from one occasion to the next."""

    sd: float = Field(ge=0)
    """Standard deviation of the log median between occasions (0.04: 4 %)."""
    degrees: float = Field(gt=0)
    """Degrees of freedom with which `sd` is known."""
    occasions: int = Field(default=0, ge=0)
    """Measurements of the dense model on this device that were looked at."""
    assumed: bool = False
    """True: there were too few of them, and `DEFAULT_OCCASION` stands in."""


DEFAULT_OCCASION = OccasionEffect(sd=0.04, degrees=14.0, assumed=True)
"""What results/clock/clock.json.gz shows: 20 occasions on two idle cores, sd 3.5 to 3.9 %, which is 4.0 % when
their autocorrelation is allowed for."""


def occasion_effect(groups: Sequence[Sequence[float]]) -> OccasionEffect:
    """What the medians of one device, taken at several occasions, say about the occasion effect.

    The variance is unbiased, and its degrees of freedom are right (Satterthwaite), for a first-order
    autocorrelation of `AUTOCORRELATION`. Below `LEAST_DEGREES` the larger of it and the default counts.

    Args:
        groups: medians (milliseconds) in time order; those of one group are of the same model, timed the same way.
    """
    squares = expected = spread = 0.0
    for medians in groups:
        logs = np.log(np.asarray(medians, dtype=float))
        centred = (np.eye(logs.size) - 1 / max(1, logs.size)) @ _correlations(logs.size)
        squares += float(((logs - logs.mean()) ** 2).sum()) if logs.size else 0.0
        expected += float(np.trace(centred))
        spread += float(np.trace(centred @ centred))
    count = sum(map(len, groups))
    if expected <= 0:
        return DEFAULT_OCCASION.model_copy(update={"occasions": count})
    sd, degrees = math.sqrt(squares / expected), expected**2 / spread
    if degrees < LEAST_DEGREES and sd <= DEFAULT_OCCASION.sd:
        return DEFAULT_OCCASION.model_copy(update={"occasions": count})
    return OccasionEffect(sd=sd, degrees=degrees, occasions=count)


def confidence_at(looks: int) -> float:
    """Two-sided confidence at look number `looks`; the allowed error halves with every look.

    The errors of all looks sum to less than twice 5 %, so that a wrong `met`, which is one side of it, stays below 5 %.
    """
    return 1 - (1 - CONFIDENCE) / 2 ** (looks - 1)


def median_bounds(
    rounds: Sequence[Sequence[float]],
    *,
    scale: float = 1.0,
    effect: OccasionEffect | None = None,
    occasions: Sequence[int] = (),
    confidence: float = CONFIDENCE,
) -> Bounds:
    """Two-sided bounds of the median of positive samples, in their own unit.

    Args:
        rounds: samples of each round; empty rounds are left out.
        scale: widening of the half-width (`PEEKING_SCALE` under a stopping rule).
        effect: how far medians move between occasions (None: they do not, as paired ratios).
        occasions: the occasion of each round, in time order (empty: one for all).
        confidence: of the bounds.
    """
    kept = [(np.asarray(r, dtype=float), o) for r, o in _with_occasions(rounds, occasions) if len(r)]
    if not kept or any((r <= 0).any() or not np.isfinite(r).all() for r, _ in kept):
        return UNKNOWN
    if len(kept) == 1:
        return _one_round(kept[0][0], scale, effect, confidence)
    logs = np.log([np.median(r) for r, _ in kept])
    half = level_half_width(logs, [o for _, o in kept], scale=scale, effect=effect, confidence=confidence)
    centre = float(logs.mean())
    return _exp(centre - half), _exp(centre + half)


def level_half_width(
    levels: Sequence[float] | npt.NDArray[np.float64],
    occasions: Sequence[int],
    *,
    scale: float = 1.0,
    effect: OccasionEffect | None = None,
    confidence: float = CONFIDENCE,
) -> float:
    """Half-width of the interval of the mean of the rounds' levels (log milliseconds or log ratios).

    A single round shows no spread between rounds: `ROUND_EFFECT` is assumed.

    Args:
        levels: one per round.
        occasions: the occasion of each round, in time order.
        scale: widening of what rounds show.
        effect: how far levels move between occasions (None: they do not, as paired ratios).
        confidence: of the interval.
    """
    logs, where = np.asarray(levels, dtype=float), np.asarray(occasions)
    within, degrees = _between_rounds(logs, where if effect is not None else np.zeros(logs.size))
    moved, known = (_moved(where, effect), effect.degrees) if effect is not None else (0.0, math.inf)
    variance = moved + scale**2 * within
    total = _satterthwaite((moved, known), (scale**2 * within, degrees))
    return _t_quantile(total, confidence) * math.sqrt(variance)


def margin(effect: OccasionEffect | None, round_sd: float, rounds: int, *, looks: int = 1) -> float:
    """How far below its budget a model must truly lie to be found to meet it (`POWER`), as a log ratio.

    Args:
        effect: of the occasion (None: a paired ratio).
        round_sd: standard deviation of log medians between the rounds of one occasion.
        rounds: fresh rounds, all of one occasion.
        looks: how often the question is asked.
    """
    moved, known = (effect.sd**2, effect.degrees) if effect is not None else (0.0, math.inf)
    within, degrees = round_sd**2 / rounds, float(max(1, rounds - 1))
    if moved + within == 0:
        return 0.0
    total = _satterthwaite((moved, known), (PEEKING_SCALE**2 * within, degrees))
    half = _t_quantile(total, confidence_at(looks)) * math.sqrt(moved + PEEKING_SCALE**2 * within)
    return half + float(special.ndtri(POWER)) * math.sqrt(moved + within)


def round_sd(rounds: Sequence[Sequence[float]], occasions: Sequence[int] = ()) -> float:
    """Standard deviation of log medians between the rounds of one occasion (0 where no occasion has two)."""
    kept = [(math.log(float(np.median(r))), o) for r, o in _with_occasions(rounds, occasions) if len(r)]
    if len(kept) < 2:
        return 0.0
    logs, where = np.asarray([x for x, _ in kept]), np.asarray([o for _, o in kept])
    within, _ = _between_rounds(logs, where)
    return math.sqrt(within * logs.size)


def pair_ratios(runs: Sequence[float], dense_runs: Sequence[float]) -> np.ndarray:
    """Candidate over dense, pair by pair.

    Raises:
        ValueError: when there are not as many of one as of the other.
    """
    if len(runs) != len(dense_runs):
        raise ValueError(f"every run must have a dense partner, but got {len(runs)} and {len(dense_runs)}")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(runs, dtype=float) / np.asarray(dense_runs, dtype=float)


def ratio_bounds(
    rounds: Sequence[tuple[Sequence[float], Sequence[float]]], *, scale: float = 1.0, confidence: float = CONFIDENCE
) -> Bounds:
    """Two-sided bounds of the paired ratio; each round is (runs, dense runs)."""
    ratios = [pair_ratios(runs, dense).tolist() for runs, dense in rounds]
    return median_bounds(ratios, scale=scale, confidence=confidence)


def order_bounds(values_N: npt.NDArray[np.float64], percentile: float, tail: float) -> Bounds:
    """The two of these values that bound a percentile most closely, whatever the distribution that they are drawn from.

    Args:
        values_N: independent, and so many that the largest bounds it (`percentiles.requests_needed`).
        percentile: e.g. 95.
        tail: chance at most with which each of them fails to.
    """
    below_N = special.bdtr(np.arange(values_N.size), values_N.size, percentile / 100)  # at most so many lie below it
    ordered_N = np.sort(values_N)
    return float(ordered_N[max(0, np.sum(below_N <= tail) - 1)]), float(ordered_N[np.argmax(1 - below_N <= tail)])


def mean_bounds(values: Sequence[float]) -> Bounds:
    """Two-sided 95 % t-bounds of the mean of independent values (seeds), in their own unit."""
    found = np.asarray(values, dtype=float)
    if found.size < 2:
        return -math.inf, math.inf
    half = _t_quantile(found.size - 1) * float(found.std(ddof=1)) / math.sqrt(found.size)
    return float(found.mean()) - half, float(found.mean()) + half


def half_width(standard_error: float) -> float:
    """Half-width of the normal 95 % interval of a value, in the unit of its standard error."""
    return NORMAL_QUANTILE * standard_error


def propagated(*parts: tuple[float, float]) -> float:
    """Standard error of a function of independent values, each (its derivative, its standard error): delta method."""
    return math.hypot(*(derivative * standard_error for derivative, standard_error in parts))


def normal_bounds(value: float, standard_error: float) -> Bounds:
    """Normal two-sided 95 % bounds of a value whose standard error is known (a bootstrap's), in its own unit."""
    return value - half_width(standard_error), value + half_width(standard_error)


def chance_difference(*standard_errors: float) -> float:
    """Largest difference between two independent values that chance alone explains: two of its standard errors."""
    return 2 * math.hypot(*standard_errors)


def verdict(bounds: Bounds, budget: float) -> Literal["met", "missed", "ambiguous"]:
    """`met` when the upper bound is within the budget, `missed` when the lower one is beyond it."""
    lower, upper = bounds
    if upper <= budget:
        return "met"
    return "missed" if lower > budget else "ambiguous"


def _with_occasions(rounds: Sequence[Sequence[float]], occasions: Sequence[int]) -> list[tuple[Sequence[float], int]]:
    return list(zip(rounds, occasions or [0] * len(rounds), strict=True))


def _correlations(count: int) -> npt.NDArray[np.float64]:
    """Correlation matrix of `count` consecutive occasions, (count, count): `AUTOCORRELATION ** distance`."""
    order = np.arange(count)
    return np.asarray(AUTOCORRELATION ** np.abs(order[:, None] - order[None, :]))


def _moved(where: npt.NDArray[np.int_], effect: OccasionEffect) -> float:
    """Variance that the occasion effect leaves in the mean over rounds of these occasions."""
    _, counts = np.unique(where, return_counts=True)
    weights = counts / counts.sum()
    return float(effect.sd**2 * (weights @ _correlations(counts.size) @ weights))


def _between_rounds(logs: npt.NDArray[np.float64], where: npt.NDArray[np.generic]) -> tuple[float, float]:
    """Variance of the mean of independent rounds, and its degrees of freedom; only rounds of one occasion compare."""
    groups = [logs[where == occasion] for occasion in np.unique(where)]
    degrees = logs.size - len(groups)
    if not degrees:  # one round at each occasion: nothing shows how far rounds move
        return ROUND_EFFECT**2 / logs.size, math.inf
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return squares / degrees / logs.size, float(degrees)


def _satterthwaite(*parts: tuple[float, float]) -> float:
    """Degrees of freedom of a sum of variances, each known with its own (Satterthwaite 1946)."""
    total = sum(variance for variance, _ in parts)
    spread = sum(variance**2 / degrees for variance, degrees in parts)
    return total**2 / spread if spread > 0 else parts[-1][1]


def _one_round(runs: np.ndarray, scale: float, effect: OccasionEffect | None, confidence: float) -> Bounds:
    """Blocks as rounds (calls next to each other are alike), plus the round effect one cannot see."""
    if runs.size < 2:
        return UNKNOWN
    blocks = np.array_split(runs, min(BLOCKS, runs.size))
    logs = np.log([np.median(b) for b in blocks])
    within = _t_quantile(logs.size - 1, confidence) * float(logs.std(ddof=1)) / math.sqrt(logs.size)
    half = scale * math.hypot(within, _t_quantile(math.inf, confidence) * ROUND_EFFECT)
    if effect is not None:
        half = math.hypot(half, _t_quantile(effect.degrees, confidence) * effect.sd)
    centre = float(np.log(np.median(runs)))
    return _exp(centre - half), _exp(centre + half)


def _t_quantile(degrees: float, confidence: float = CONFIDENCE) -> float:
    upper = 0.5 + confidence / 2
    return float(special.stdtrit(degrees, upper) if math.isfinite(degrees) else special.ndtri(upper))


def _exp(value: float) -> float:
    """exp without overflow: beyond float range a bound is infinite."""
    return math.exp(value) if value < 700 else math.inf
