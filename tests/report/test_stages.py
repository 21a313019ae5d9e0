"""No stage of a run reaches the user as its bare name."""

from __future__ import annotations

import re
from pathlib import Path

import nash_search
from nash_search.report.stages import STAGES


def test_every_stage_that_is_said_has_words() -> None:
    source = "".join(path.read_text() for path in Path(nash_search.__file__).parent.rglob("*.py"))
    said = set(re.findall(r'\bsay\(\s*"(\w+)"', source))
    assert {"workload", "probe", "plan", "certify", "done"} <= said
    assert said - {"plan"} <= set(STAGES), "the plan has a panel of its own"


def test_details_are_in_the_words() -> None:
    assert STAGES["probe"]({"shapes": 24, "again": False}) == "timing 24 shapes before training any"
    assert STAGES["search"]({"trained": 3}) == "searching on, 3 trials are there already"
    assert STAGES["certify"]({"points": 1, "rounds": 5, "looks": 2}).endswith("asked 2 times: earlier rounds count too")
    assert STAGES["finalist"]({"number": 4, "seed": 2, "failure": "oom"}) == "trial 4, seed 2: failed (oom)"
