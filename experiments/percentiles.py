"""How often does a percentile's interval hold its truth, and how often is `met` said of a model exactly on the budget?

By simulation, with the very functions that judge. Each run is a device whose occasions are autocorrelated, of which 20
were seen before; five fresh rounds and, where they leave it ambiguous, five more; each round draws its own requests.

    traffic     one hump, a long tail, two with a gap just beyond p95 and p99 (short requests, then long ones), one
                where all requests are alike, so that jitter alone decides, and batches of 8 of the hump's
    a call      its lengths' time x the jitter of a call (3 %; one in a hundred is 10 to 70 % late)
                x the round (3.1 % in ms, 0.74 % in shares) x the occasion (4 %, ms alone)
    requests    as many as the percentile needs at least, and 78 a round, which p99 needs

The goals: the interval holds the truth in at least 93 % of the runs, and at most 5 % of them say `met`. Prints one
table, ends with exit code 1 where a goal is missed. `--jackknife` judges by leaving one round out instead; `--margin`
asks whether a model that lies as far below its budget as the plan says is found to meet it (goal: 80 %).

Lines go to results/percentiles/percentiles.jsonl; what stands there is not simulated again. Delete it to begin anew.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments import coverage
from nash_search import intervals, percentiles
from nash_search.config import Architecture, LatencyBudget, SearchConfig, Workload
from nash_search.latency_record import Latency, Round
from nash_search.latency_table import table_of
from nash_search.search import margins
from nash_search.traffic import Request, Traffic
from nash_search.trial.cost import certified_pairs

BILL = "20 minutes of one core, needs no clock"

OUT = Path(__file__).parents[1] / "results" / "percentiles" / "percentiles.jsonl"

COVERAGE, FALSE_MET, POWER = 0.93, 0.05, 0.8
ROUNDS, USUAL, KNOWN, BATCH = 5, 78, 20, 8
TRAFFIC = ("hump", "tail", "gap95", "gap99", "alike", "batches")
CASES = tuple((percentile, share) for percentile in (50.0, 95.0, 99.0) for share in (True, False))

Array = npt.NDArray[np.float64]


@lru_cache
def traffic(kind: str) -> Traffic:
    """A thousand requests."""
    rng, size = np.random.default_rng(7), 1000
    short, long = rng.integers(5, 30, size), rng.integers(100, 140, size)
    gap = {"gap95": 0.955, "gap99": 0.992}.get(kind, 1.0) * size
    tokens = np.where(np.arange(size) < gap, short, long)
    if kind in ("hump", "tail", "batches"):
        tokens = np.exp(rng.normal(math.log(14), 0.9 if kind == "tail" else 0.4, size)).astype(int).clip(2)
    if kind == "alike":
        tokens = np.full(size, 14)
    read = (tokens * np.exp(rng.normal(0, 0.3, size))).astype(int).clip(2)
    pairs = zip(read.tolist(), tokens.tolist(), strict=True)
    return Traffic.counted(Counter(Request(*pair) for pair in pairs), kind)


def drawn(kind: str, count: int, turn: int) -> list[Request]:
    """The requests of a round; a batch as one that is as long as its longest."""
    batches = traffic(kind).batches(count, turn, BATCH if kind == "batches" else 1)
    return [Request(*map(max, zip(*batch, strict=True))) for batch in batches]


def logs(requests: Sequence[Request]) -> tuple[Array, Array]:
    """log milliseconds of each request, undisturbed: a pruned model and its dense one."""
    read, written = np.asarray(requests, dtype=float).T
    return np.log(3 + 0.05 * read + written), np.log(5 + 0.1 * read + 2 * written)


def jitter(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Of single calls, on the log scale."""
    late = margins.late(rng, shape)
    return np.asarray(coverage.ROUND_SD * rng.standard_normal(shape) + late)


@lru_cache
def truth(kind: str, percentile: float, share: bool) -> float:
    """What the percentile over requests and rounds is, or the share that it is of the dense model's."""
    rng, rounds = np.random.default_rng(3), 400
    sides = zip(*(logs(drawn(kind, 1000, turn)) for turn in range(rounds)), strict=True)
    level, apart = coverage.ROUND_SD * rng.standard_normal(rounds), coverage.RATIO_SD * rng.standard_normal(rounds)
    moved = (level + apart - np.mean(level + apart), level - np.mean(level))
    own, dense = (
        float(
            np.percentile(
                np.concatenate([x + by + jitter(rng, x.shape) for x, by in zip(side, up, strict=True)]), percentile
            )
        )
        for side, up in zip(sides, moved, strict=True)
    )
    return math.exp(own - dense) if share else math.exp(own)


def rounds_of(
    kind: str, rng: np.random.Generator, count: int, occasion: float
) -> tuple[percentiles.Rounds, percentiles.Rounds]:
    """As many rounds as two looks need: candidate and dense model."""
    own, dense = [], []
    for _ in range(2 * ROUNDS):
        sides = logs(drawn(kind, count, int(rng.integers(2**31))))
        level, apart = coverage.ROUND_SD * rng.standard_normal(), coverage.RATIO_SD * rng.standard_normal()
        a, b = (x + jitter(rng, x.shape) + occasion + level for x in sides)
        own.append(tuple(np.exp(a + apart).tolist()))
        dense.append(tuple(np.exp(b).tolist()))
    return tuple(own), tuple(dense)


def left_one_out(
    rounds: percentiles.Rounds,
    percentile: float,
    dense: percentiles.Rounds | None,
    effect: intervals.OccasionEffect | None,
) -> intervals.Bounds:
    """The mutant: a t-interval over the rounds' jackknife values, without drawing requests again."""

    def value(kept: Sequence[int]) -> float:
        own, *other = (
            percentiles.of_requests(tuple(x[i] for i in kept), percentile) for x in (rounds, dense) if x is not None
        )
        return math.log(own / other[0] if other else own)

    every = range(len(rounds))
    whole, without = value(every), [value([i for i in every if i != out]) for out in every]
    values = [len(rounds) * whole - (len(rounds) - 1) * x for x in without]
    half = intervals.level_half_width(values, [0] * len(values), scale=intervals.PEEKING_SCALE, effect=effect)
    return math.exp(whole - half), math.exp(whole + half)


def simulated(
    kind: str,
    percentile: float,
    share: bool,
    *,
    count: int = USUAL,
    runs: int = 400,
    jackknife: bool = False,
    below: float = 0.0,
) -> tuple[float, float]:
    """Shares of runs whose first look holds the truth, and that end in `met`.

    Args:
        kind: of traffic.
        percentile: that is asked for.
        share: of the dense model's, else in milliseconds.
        count: requests of a round.
        runs: simulated.
        jackknife: by the mutant.
        below: how far (fraction) below the budget the model truly lies.
    """
    rng, target = np.random.default_rng(0), truth(kind, percentile, share)
    held = met = 0
    for _ in range(runs):
        moved = coverage.occasions(rng, 0.0 if share else coverage.OCCASION_SD)
        before = [next(moved) + coverage.ROUND_SD / math.sqrt(ROUNDS) * rng.standard_normal() for _ in range(KNOWN)]
        effect = None if share else intervals.occasion_effect([[math.exp(x) for x in before]])
        own, dense = rounds_of(kind, rng, count, next(moved))
        verdicts = []
        for look in (ROUNDS, 2 * ROUNDS):
            beside = dense[:look] if share else None
            if jackknife:
                found = left_one_out(own[:look], percentile, beside, effect)
            else:
                settings = {"dense": beside, "scale": intervals.PEEKING_SCALE, "effect": effect}
                found = percentiles.bounds(own[:look], percentile, second_look=look > ROUNDS, **settings)
            held += not verdicts and found[0] <= target <= found[1]
            verdicts.append(intervals.verdict(found, target / (1 - below)))
            if verdicts[-1] != "ambiguous":
                break
        met += verdicts[-1] == "met"
    percentiles.bounds.cache_clear()
    return held / runs, met / runs


def planned(kind: str, percentile: float, share: bool) -> tuple[int, float]:
    """Requests of a round, and the margin that a plan prints after a probe of 32 requests and 20 occasions."""
    rng, served = np.random.default_rng(5), traffic(kind)
    size = BATCH if kind == "batches" else 1
    call = Workload(**served.median._asdict(), batch_size=size, traffic=served)
    own, dense = (np.exp(x + jitter(rng, x.shape)).tolist() for x in logs(drawn(kind, 32, 0)))
    probed = Latency(rounds=(Round(runs_ms=tuple(own), dense_runs_ms=tuple(dense)),), workload=call)
    table = table_of({Architecture(encoder_sparsity_pct=0, decoder_layers=1): probed}, percentile)
    budget = LatencyBudget.parse(f"{'50%' if share else '20'}@p{percentile:g}")
    config = SearchConfig(budgets=(budget,))
    effect = intervals.OccasionEffect(sd=coverage.OCCASION_SD, degrees=14.0)
    found = margins.simulated_certificates(config, table, effect)
    assert found is not None
    return certified_pairs(config, call.longer), found.margin(budget)


def least(percentile: float) -> int:
    """Requests of a round where five have as many as the percentile needs."""
    return math.ceil(percentiles.requests_needed(percentile) / ROUNDS)


Row = dict[str, Any]
"""What was asked, and what came out: shares of the runs."""


def kept(path: Path, asked: Row, simulate: Callable[[], Row]) -> Row:
    """The line of what was asked; simulated and written down where the file has none."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    for row in map(json.loads, lines):
        if row.items() >= asked.items():
            return row
    found = asked | simulate()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(found) + "\n")
    return found


def at_margin(kind: str, percentile: float, share: bool, runs: int) -> Row:
    """How often a model at the plan's margin is found to meet its budget."""
    count, below = planned(kind, percentile, share)
    _, met = simulated(kind, percentile, share, count=count, runs=runs, below=below)
    return {"requests": count, "margin": round(below, 4), "met": met, "reached": met >= POWER}


def on_the_budget(kind: str, percentile: float, share: bool, runs: int, **asked: Any) -> Row:
    """How often the interval holds the truth, and how often a model exactly on its budget is called met."""
    held, met = simulated(kind, percentile, share, runs=runs, **asked)
    return {"held": held, "met": met, "reached": held >= COVERAGE and met <= FALSE_MET}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400, help="simulated per row")
    parser.add_argument("--margin", action="store_true", help="models at the margin that the plan prints")
    parser.add_argument("--jackknife", action="store_true", help="judge by leaving one round out")
    parser.add_argument("--traffic", nargs="+", choices=TRAFFIC, default=TRAFFIC, help="all, by default")
    parser.add_argument("--out", type=Path, default=OUT, help="lines of what was simulated")
    asked = parser.parse_args(arguments)
    question = "margin" if asked.margin else "jackknife" if asked.jackknife else "coverage"
    columns = ("margin", "met") if asked.margin else ("held", "met")
    print(f"| traffic | percentile | judged in | requests a round | {' | '.join(columns)} | goal |\n|{'---|' * 7}")
    missed = 0
    for kind in asked.traffic:
        for percentile, share in CASES:
            of = kind, percentile, share, asked.runs
            row = {"question": question, "traffic": kind, "percentile": percentile, "runs": asked.runs}
            row["judged_in"] = "shares" if share else "ms"
            if asked.margin:
                rows = [kept(asked.out, row, partial(at_margin, *of))]
            else:
                rows = []
                for count in sorted({least(percentile), USUAL}):
                    simulate = partial(on_the_budget, *of, count=count, jackknife=asked.jackknife)
                    rows.append(kept(asked.out, row | {"requests": count}, simulate))
            for found in rows:
                missed += not found["reached"]
                told = " | ".join(f"{found[name]:.1%}" for name in columns)
                cells = f"| {kind} | p{percentile:g} | {found['judged_in']} | {found['requests']} | {told} |"
                print(f"{cells} {'holds' if found['reached'] else 'MISSED'} |", flush=True)
    return 1 if missed else 0
