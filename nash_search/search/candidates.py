"""Which trials are worth their weights and a certificate.

    records -> front        no other trial is both faster and better
            -> contenders   off the front but near a budget, and within a trial's timing error of being on it

A trial is timed once, in the process that trained it. Certified in fresh processes its latency moved by -12 to
+7 %, neighbours by up to 7 % against each other (results/LOG.md, 2026-11-25). A front drawn from such numbers may
name the one point of a cluster that the certificate then refuses, so its neighbours are certified too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nash_search import pareto
from nash_search.config import LatencyBudget
from nash_search.records import TrialRecord
from nash_search.storage.study import Study

NEAR = 0.12
"""A trial's latency this near to a budget (fraction) leaves open whether its certificate meets it."""
CLOCK_ERROR = 0.07
"""How far (fraction) two trials' latencies may move against each other until they are certified."""
PER_BUDGET = 2
"""Most contenders beside the front that are certified for one budget, the best first."""


def near(record: TrialRecord, budget: LatencyBudget) -> bool:
    """True if the trial's latency is within `NEAR` of the budget, so that a certificate may fall on either side."""
    latency = record.latency
    return latency is not None and abs(latency.part_of(budget) - 1) < NEAR


def unbeaten(
    records: Sequence[TrialRecord], finished: Sequence[TrialRecord], budgets: Sequence[LatencyBudget]
) -> list[TrialRecord]:
    """The trials that are still worth a certificate once winners were trained at length.

    A trial is left out where a finished winner of another architecture is at least as good and faster. Near a budget
    that winner must be faster by more than `CLOCK_ERROR`, for a certificate may turn the two round. A winner's own
    short training stays: reports give its quality beside the long one's.

    Args:
        records: trials that would be certified.
        finished: trainings at length of some of them, under the same numbers.
        budgets: as asked.
    """
    clocks = {r.number: r.latency.ratio for r in records if r.latency is not None}

    def beaten(record: TrialRecord, by: TrialRecord) -> bool:
        if record.number not in clocks or by.number not in clocks or record.quality is None or by.quality is None:
            return False
        slack = CLOCK_ERROR if any(near(record, b) for b in budgets) else 0.0
        better = pareto.loss(by.quality.value, by.quality.direction)
        return clocks[by.number] <= clocks[record.number] * (1 - slack) and better <= pareto.loss(
            record.quality.value, record.quality.direction
        )

    own = {f.number for f in finished}
    return [r for r in records if r.number in own or not any(beaten(r, f) for f in finished)]


class Candidates:
    """The front of a study's complete trials, kept up as they come."""

    def __init__(self, study: Study, budgets: Sequence[LatencyBudget]) -> None:
        self._study, self._budgets = study, budgets
        self._judged: set[int] = set()
        self._front: list[TrialRecord] = []
        self._values: dict[int, tuple[float, float]] = {}
        self._open: dict[int, bool] = {}  # near any budget? Kept, for a latency computes its ratio at each access

    def front(self) -> list[TrialRecord]:
        """Non-dominated complete trials, fastest first."""
        new = [r for r in self._study.records() if r.number not in self._judged]
        if new:  # what was dominated once stays dominated
            self._judged |= {r.number for r in new}
            found = sorted(self._front + [r for r in new if r.status == "complete"], key=lambda r: r.number)
            self._front = [found[i] for i in pareto.front_order(self._losses(found))]
        return self._front

    def contenders(self, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        """Those of these complete trials that only the clock's error may have kept off the front, best first."""
        on_front = self.front()
        numbers = {r.number for r in on_front}
        beaten_by = self._losses(on_front)
        found = []
        for record in records:
            rival = record.status == "complete" and record.number not in numbers
            if not rival or not self._near_any(record):
                continue
            latency, loss = self._losses([record])[0]
            faster = beaten_by[:, 0] <= latency * (1 - CLOCK_ERROR)
            if not (faster & (beaten_by[:, 1] <= loss)).any():
                found.append((loss, latency, record))
        return [r for _, _, r in sorted(found, key=lambda f: f[:2])]

    def _near_any(self, record: TrialRecord) -> bool:
        if record.number not in self._open:
            self._open[record.number] = any(near(record, b) for b in self._budgets)
        return self._open[record.number]

    def to_certify(self, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        """Of these the front and, for each budget, its best few contenders, fastest first."""
        numbers, able = {r.number for r in self.front()}, self.contenders(records)
        chosen = {r.number: r for b in self._budgets for r in [r for r in able if near(r, b)][:PER_BUDGET]}
        chosen |= {r.number: r for r in records if r.number in numbers}
        return sorted(chosen.values(), key=lambda r: self._losses([r])[0][0])

    def hypervolume(self) -> float:
        """Of all measured trials, the dense model included: share of dense latency x quality."""
        facts = self._study.facts
        beside = [r for r in self._study.records() if r.infeasible is not None and r.quality is not None]
        reference = (facts.reference_share, pareto.loss(facts.reference_quality, facts.direction))
        return pareto.hypervolume(self._losses([*self.front(), *beside]), reference)

    def _losses(self, records: Sequence[TrialRecord]) -> npt.NDArray[np.float64]:
        for r in records:
            if r.number not in self._values and r.latency is not None and r.quality is not None:
                self._values[r.number] = r.latency.ratio, r.quality.value
        pairs = [self._values[r.number] for r in records]
        return pareto.losses([p[0] for p in pairs], [p[1] for p in pairs], self._study.facts.direction)
