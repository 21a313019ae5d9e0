"""Early stopping with two objectives: clearly dominated trials end, new ground is never cut off."""

import pytest

from nash_search.records import CurvePoint
from nash_search.trial.early_stopping import Peer, reason_to_stop


def curve(*values):
    return tuple(CurvePoint(step=10 * (i + 1), value=v, train_s=i) for i, v in enumerate(values))


def peer(number, share, *values):
    return Peer(number=number, share=share, curve=curve(*values))


def stop(share, values, peers, **changes):
    options = {"margin": 1.0, "last_rung": False, "maximize": True} | changes
    return reason_to_stop(share, curve(*values), peers, **options)


def test_a_clearly_dominated_trial_is_stopped_with_its_reason():
    reason = stop(0.6, [50], [peer(3, 0.5, 60, 70)])
    assert reason == "dominated at step 10: 50 against 60 of trial 3, which is no slower"


@pytest.mark.parametrize(
    ("why", "share", "values", "peers", "changes"),
    [
        ("nobody as fast has finished", 0.4, [50], [peer(1, 0.5, 60)], {}),
        ("within the noise", 0.6, [59.5], [peer(1, 0.5, 60)], {}),
        ("the last rung is the result", 0.6, [50], [peer(1, 0.5, 60)], {"last_rung": True}),
        ("no rung yet", 0.6, [], [peer(1, 0.5, 60)], {}),
        ("rivals did not get this far", 0.6, [50, 51], [peer(1, 0.5, 60)], {}),
        ("in the better half", 0.6, [50], [peer(1, 0.5, 60), peer(2, 0.5, 40), peer(3, 0.5, 30)], {}),
        ("lower is better", 0.6, [50], [peer(1, 0.5, 60)], {"maximize": False}),
    ],
)
def test_others_go_on(why, share, values, peers, changes):
    assert stop(share, values, peers, **changes) is None, why


def test_lower_may_be_better():
    assert stop(0.6, [60], [peer(1, 0.5, 50)], maximize=False) is not None


def test_only_the_same_rung_is_compared():
    other = Peer(number=1, share=0.5, curve=(CurvePoint(step=99, value=90, train_s=1),))
    assert stop(0.6, [50], [other]) is None
