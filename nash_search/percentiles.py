"""A percentile of a model's latency over the requests that it serves, and what a set of timings allows one to say.

Every round (one process) times its own requests, a stratified sample of the traffic; candidate and dense model answer
the same ones. The percentile is one of all requests of all rounds; a share is the candidate's over the dense model's.
Two things move it, on the log scale:

    requests    which ones were drawn. In milliseconds: the order statistics between which the percentile lies, by the
                binomial distribution, whatever the distribution of latencies. In shares: requests are drawn again
                within each round, dense model and candidate together, `DRAWS` times (the seed is fixed)
    rounds      how fast this process and this occasion were: `intervals.level_half_width` of the rounds' mean logs

    bound = log Q -/+ sqrt( requests^2 + rounds^2 )     each side by itself (MOVER: Zou and Donner 2008)

Requests count as drawn by chance, not by strata, and their own jitter goes with them: the interval is never too
narrow for either. A t-interval over rounds alone, by leaving one out, covers 60 % where a
percentile lies at a gap between short and long requests (experiments/percentiles.py). Fewer requests than
`requests_needed` bound nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from nash_search import intervals
from nash_search.errors import InvalidInput
from nash_search.intervals import CONFIDENCE, UNKNOWN, Bounds, OccasionEffect
from nash_search.traffic import Traffic

PAIRS, REQUESTS, TIMES = 40, 70, 2.0
"""Defaults of one round: timed pairs of one call; most requests of a traffic; and the most decoding that requests may
take, as a multiple of the pairs'. A percentile that needs more requests gets them."""
DRAWS = 1000
LOOK_SHARES = 0.8, 0.2
"""Parts of the allowed error by requests that the first and the second look may use; a certificate looks twice at most.
In equal halves p99 would need 437 requests, which are 2.2 times the calls of a median's certificate."""

SHOWN_PERCENTILES = (50, 95, 99)
"""Of a traffic's requests, what documents and pages show beside the percentile that was asked for."""
P95_CALLS = 130
"""Fewest calls of one kind for which their own 95th percentile is reported."""

Rounds = tuple[tuple[float, ...], ...]
"""Milliseconds of each round's requests; a round's n-th request is the same for candidate and dense model."""


def requests_needed(percentile: float, tail: float = LOOK_SHARES[0] * (1 - CONFIDENCE) / 2) -> int:
    """Fewest requests whose slowest lies above the percentile with a chance of 98 %: 6, 38, 77, 390 for p50 to p99.

    With fewer of them nothing bounds it from above, whatever its distribution (Wilks 1941).

    Args:
        percentile: e.g. 95.
        tail: chance that it lies above all of them.
    """
    return math.ceil(math.log(tail) / math.log(percentile / 100))


def pairs_of(percentile: float | None, rounds: int, longer: float = 1.0) -> int:
    """Timed pairs of each of so many rounds, where nothing else is asked.

    Args:
        percentile: of requests, the highest that is asked; None: one call is timed.
        rounds: fresh processes.
        longer: how many times the call of median lengths a request, or a batch of them, decodes on average.
    """
    if percentile is None:
        return PAIRS
    return max(min(REQUESTS, int(TIMES * PAIRS / longer)), -(-requests_needed(percentile) // rounds))


def check_enough(
    percentile: float, traffic: Traffic, *, rounds: int, pairs: int, flag: str = "--", units: str = "requests"
) -> None:
    """Refuse a percentile of which so many rounds of requests say nothing.

    Args:
        percentile: the highest that is asked.
        traffic: where requests come from.
        rounds: fresh processes.
        pairs: requests of each, or batches of them: all of a batch take as long as it does, so it counts once.
        flag: what the flags of these two begin with.
        units: what is counted in words.

    Raises:
        InvalidInput: with the number that is needed.
    """
    needed = requests_needed(percentile)
    what = f"p{percentile:g} needs at least {needed}"
    if traffic.of < needed:
        fix = "give more, or a lower --percentile"
        raise InvalidInput(f"{what} requests, but got {traffic.of}", where=traffic.source, fix=fix)
    if rounds * pairs < needed:
        fix = f"give {flag}pairs {-(-needed // rounds)}, or more {flag}rounds"
        raise InvalidInput(f"{what} {units}, but got {rounds} rounds of {pairs}", where=f"{flag}pairs", fix=fix)


def of_requests(rounds: Rounds, percentile: float) -> float:
    """The percentile over all requests of all rounds, milliseconds (NaN without any)."""
    runs = _flat(rounds)
    return float(np.percentile(runs, percentile)) if runs.size else math.nan


def p95_of_calls(runs: Sequence[float]) -> float | None:
    """95th percentile of calls that are all the same, or None below 130: too few to say."""
    return float(np.percentile(np.asarray(runs, dtype=float), 95)) if len(runs) >= P95_CALLS else None


def level(rounds: Rounds) -> float:
    """Geometric mean of all requests, milliseconds: what moves with the device, and hardly with which were drawn."""
    return math.exp(float(np.mean(np.log(_flat(rounds)))))


def ratio(rounds: Rounds, dense: Rounds, percentile: float) -> float:
    """The candidate's percentile over the dense model's same one (NaN without requests)."""
    return of_requests(rounds, percentile) / of_requests(dense, percentile)


@lru_cache(maxsize=256)
def bounds(
    rounds: Rounds,
    percentile: float,
    *,
    dense: Rounds | None = None,
    scale: float = 1.0,
    second_look: bool = False,
    effect: OccasionEffect | None = None,
    occasions: tuple[int, ...] = (),
    confidence: float = CONFIDENCE,
) -> Bounds:
    """Two-sided bounds of a percentile, milliseconds, or of the share that it is of the dense model's.

    Args:
        rounds: the candidate's requests; empty rounds are left out.
        percentile: e.g. 95.
        dense: the dense model's, request by request: then it is the share that is bounded.
        scale: widening of the half-width (`PEEKING_SCALE` under a stopping rule).
        second_look: a first one, at fewer rounds, left it open.
        effect: how far a device's speed moves between occasions (None: it does not, as shares).
        occasions: the occasion of each round, in time order (empty: one for all).
        confidence: of the bounds.
    """
    beside = rounds if dense is None else dense
    where = occasions or (0,) * len(rounds)
    kept = [(own, ref, at) for own, ref, at in zip(rounds, beside, where, strict=True) if own]
    runs, references = _flat([own for own, _, _ in kept]), _flat([ref for _, ref, _ in kept])
    usable = np.isfinite(runs).all() and np.isfinite(references).all() and (runs > 0).all() and (references > 0).all()
    tail = LOOK_SHARES[second_look] * (1 - confidence) / 2
    if runs.size < requests_needed(percentile, tail) or not usable:
        return UNKNOWN
    sizes = tuple(len(own) for own, _, _ in kept)
    own_N, dense_N = np.log(runs), np.log(references)
    if dense is None:
        levels_N, centre, (low, high) = (
            own_N,
            float(np.percentile(own_N, percentile)),
            intervals.order_bounds(own_N, percentile, tail),
        )
    else:
        levels_N, at = own_N - dense_N, _drawn(sizes)
        centre = float(_share(own_N[None], dense_N[None], percentile)[0])
        low, high = np.quantile(_share(own_N[at], dense_N[at], percentile), [tail, 1 - tail])
    levels = [float(part.mean()) for part in np.split(levels_N, np.cumsum(sizes)[:-1])]
    when = [occasion for *_, occasion in kept]
    half = intervals.level_half_width(levels, when, scale=scale, effect=effect, confidence=confidence)
    lower, upper = math.hypot(max(0.0, centre - low), half), math.hypot(max(0.0, high - centre), half)
    return math.exp(centre - lower), math.exp(centre + upper)


def _share(
    own_SN: npt.NDArray[np.float64], dense_SN: npt.NDArray[np.float64], percentile: float
) -> npt.NDArray[np.float64]:
    """log of the share that a percentile is of the dense model's, one per row of logs."""
    return np.asarray(np.percentile(own_SN, percentile, axis=1) - np.percentile(dense_SN, percentile, axis=1))


@lru_cache(maxsize=8)
def _drawn(sizes: tuple[int, ...]) -> npt.NDArray[np.int_]:
    """Which requests are drawn, `DRAWS` times: as many of each round as it has."""
    rng, starts = np.random.default_rng(0), np.cumsum([0, *sizes])
    return np.concatenate([at + rng.integers(0, n, (DRAWS, n)) for at, n in zip(starts, sizes, strict=False)], axis=1)


def _flat(rounds: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    return np.asarray([x for taken in rounds for x in taken], dtype=float)
