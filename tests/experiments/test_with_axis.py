"""A replayed search with one axis more gains where the axis has better places, and pays for looking where not."""

from pathlib import Path

import pytest

from experiments.shared import replay
from experiments.shared.with_axis import Place, growth

TABLE = Path("results/search-strategies/search-table.json.gz")
WHOLE = [
    Place(depth, pct, 0, 0.3 + 0.1 * depth - pct / 1000, 85 + depth - pct / 70, 10)
    for depth in (1, 2, 3)
    for pct in (0, 70)
]


@pytest.mark.parametrize(("share", "quality", "gains"), [(0.25, 88.0, True), (0.9, 60.0, False)])
def test_the_axis_is_worth_what_its_places_are(share, quality, gains):
    narrow = [Place(depth, 0, 1, share, quality, 10) for depth in (2, 3)]
    (percent,) = growth([*WHOLE, *narrow], WHOLE, replay.read(TABLE), trials=(6,), dense=90.0)
    assert (percent > 1) if gains else (percent <= 0)
