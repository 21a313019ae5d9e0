"""What longer training would bring: exact on a power law, and held against all trainings of three lengths here."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from nash_search.intervals import half_width
from nash_search.length_forecast import Forecast, Reached, forecast_gain

RESULTS = Path(__file__).parents[1] / "results"
DENSE_G2P = 92.604
ERROR = 0.31
"""Standard error of 100 - PER on g2p's 2,000 validation words."""


def reached(steps: float, quality: float, error: float = 0.0) -> Reached:
    return Reached(steps=steps, quality=quality, standard_error=error)


def law(steps: float) -> float:
    """Quality of a student that misses 40 / sqrt(steps) to a teacher of 90."""
    return 90 - 40 / steps**0.5


@pytest.mark.parametrize("begin", [None, 300.0, 1000.0])
@pytest.mark.parametrize("times", [2.0, 3.0])
def test_a_power_law_is_foretold_exactly(begin: float | None, times: float) -> None:
    found = forecast_gain(reached(100, law(100)), reached(300, law(300)), 90, "maximize", begin=begin, times=times)
    assert found is not None
    begin = begin or 300
    assert (found.begin, found.end) == (begin, times * begin)
    assert found.gain == pytest.approx(law(times * begin) - law(begin), abs=1e-9)
    assert 0 <= found.low < found.gain < found.high


def test_a_metric_that_falls_is_foretold_as_one_that_rises() -> None:
    up = forecast_gain(reached(100, law(100), 0.3), reached(300, law(300), 0.2), 90, "maximize")
    down = forecast_gain(reached(100, -law(100), 0.3), reached(300, -law(300), 0.2), -90, "minimize")
    assert down == (up and up.model_copy(update={"dense": -90}))


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ((100, 85), (300, 90.5)),  # nothing is missing any more
        ((100, 85), (300, 84.9)),  # longer is no better
        ((100, 85), (300, 85)),
        ((300, 85), (300, 86)),  # the same length
    ],
)
def test_what_teaches_no_power_foretells_nothing(short: tuple[float, float], long: tuple[float, float]) -> None:
    assert forecast_gain(reached(*short), reached(*long), 90, "maximize") is None


def test_the_errors_of_both_qualities_widen_it_as_drawn() -> None:
    """The delta method against draws."""

    def forecast(a: float, b: float, errors: tuple[float, float] = (0, 0)) -> Forecast:
        found = forecast_gain(reached(100, a, errors[0]), reached(300, b, errors[1]), 90, "maximize", begin=600)
        assert found is not None
        return found

    exact, found = forecast(law(100), law(300)), forecast(law(100), law(300), (0.1, 0.08))
    drawn = np.random.default_rng(0).normal([law(100), law(300)], [0.1, 0.08], (4000, 2))
    spread = float(np.std([forecast(a, b).gain for a, b in drawn]))
    wider = (found.high - found.gain) ** 2 - (exact.high - exact.gain) ** 2
    assert half_width(spread) == pytest.approx(wider**0.5, rel=0.05)


def forecasts() -> list[tuple[str, Forecast, float, float]]:
    """Every training here of three lengths, the third foretold: name, forecast, gain seen, its standard error."""
    found = []
    by_rate = defaultdict(dict)
    for line in map(json.loads, (RESULTS / "rates" / "g2p.jsonl").read_text("utf-8").splitlines()):
        changes = line["arm"]["changes"]
        by_rate[changes["learning_rate"]][changes["narrow_steps"] + changes["tune_steps"]] = line["quality"]
    for rate, lengths in by_rate.items():
        found.append((f"rate {rate:g}", *held(lengths, (120, 600, 1800))))
    anew = {
        round(600 * line["arm"]["length"]): line["quality"]
        for line in map(json.loads, (RESULTS / "finish" / "g2p.jsonl").read_text("utf-8").splitlines())
        if line["arm"]["architecture"]["decoder_layers"] == 1 and not line["arm"]["on"] and not line["arm"]["seed"]
    }
    return [*found, ("one block", *held(anew, (600, 1200, 1800)))]


def held(lengths: dict[int, float], steps: tuple[int, int, int]) -> tuple[Forecast, float, float]:
    """The third length foretold from the first two, what it brought, and the standard error of that."""
    short, long, last = steps
    two = reached(short, lengths[short], ERROR), reached(long, lengths[long], ERROR)
    found = forecast_gain(*two, DENSE_G2P, "maximize", times=last / long)
    assert found is not None
    return found, lengths[last] - lengths[long], ERROR * 2**0.5


def test_what_was_foretold_came_true() -> None:
    found = forecasts()
    assert len(found) == 7
    assert all(f.low - 2 * error <= seen <= f.high + 2 * error for _, f, seen, error in found), found
    assert all(0.6 < seen / f.gain < 1.6 for _, f, seen, _ in found), found
