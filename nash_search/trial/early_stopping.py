"""Ending trials early with two objectives: successive halving among trials of similar latency.

Optuna offers none for several objectives. Ours uses that latency is known before training: at each rung
a trial is compared only with *rivals*, finished trials that are no slower (within a tolerance), at the
same rung. It is stopped when it is clearly dominated:

    at least one rival is better at this rung by more than `margin`, and
    the trial ranks below the best 1/eta of its rivals there

so a trial that opens new ground (nothing as fast has finished) always runs to its end.
This module refuses to know trials, studies and files; it gets curves and says stop or go on.
"""

from __future__ import annotations

from collections.abc import Sequence

from nash_search.config import Frozen
from nash_search.records import CurvePoint


class Peer(Frozen):
    """A finished trial as seen by a running one."""

    number: int
    share: float
    """Latency as a fraction of the dense model's."""
    curve: tuple[CurvePoint, ...]


TOLERANCE = 0.02
"""Latency (fraction of the dense model's) within which a rival counts as no slower."""
ETA = 2.0
"""Successive halving's reduction factor: the better 1/ETA of the rivals is safe."""


def reason_to_stop(
    share: float,
    curve: Sequence[CurvePoint],
    peers: Sequence[Peer],
    *,
    margin: float,
    last_rung: bool,
    maximize: bool = True,
) -> str | None:
    """Why to stop at the latest point of the curve, or None.

    Args:
        share: the trial's probed latency, fraction of the dense model's.
        curve: its quality at each rung so far.
        peers: finished or stopped trials with their curves.
        margin: quality by which a rival must be better (two standard errors of a difference).
        last_rung: the last rung is the result; stopping there saves nothing.
        maximize: is higher better?
    """
    if last_rung or not curve:
        return None
    sign = 1.0 if maximize else -1.0
    rung, value = len(curve) - 1, sign * curve[-1].value
    rivals = [
        (sign * p.curve[rung].value, p.number)
        for p in peers
        if p.share <= share + TOLERANCE and len(p.curve) > rung and p.curve[rung].step == curve[rung].step
    ]
    better = sorted((r for r in rivals if r[0] > value + margin), reverse=True)
    if not better or len(better) < (len(rivals) + 1) / ETA:
        return None
    best, number = better[0]
    return (
        f"dominated at step {curve[-1].step}: {curve[-1].value:.4g} against {sign * best:.4g} "
        f"of trial {number}, which is no slower"
    )
