"""A probe's table in which depth costs nothing is timed again there, and refused when it stays impossible."""

import pytest

from nash_search.config import Architecture, Workload
from nash_search.errors import Unfinished
from nash_search.latency_record import Latency, Round
from nash_search.latency_table import table_of
from nash_search.search import probe
from tests.synthetic_evaluator import SyntheticEvaluator

CALL = Workload(input_tokens=4, output_tokens=4)
BUSY = {8: 1.06, 7: 1.04, 6: 0.38, 5: 0.83}
"""Shares of the dense latency that a probe took on a busy machine."""
ALONE = {8: 1.0, 7: 0.9, 6: 0.8, 5: 0.7}


def shape(depth, sparsity=0):
    return Architecture(encoder_sparsity_pct=sparsity, decoder_layers=depth)


def took(share):
    return Latency(rounds=(Round(runs_ms=(share,) * 3, dense_runs_ms=(1.0,) * 3),), workload=CALL)


def table(shares, sparsity=0):
    return table_of({shape(depth, sparsity): took(share) for depth, share in shares.items()})


def test_a_table_that_bends_is_timed_again_where_it_bends():
    asked = []

    def again(shapes):
        asked.append([a.decoder_layers for a in shapes])
        return {a: took(ALONE[a.decoder_layers]) for a in shapes}

    found = probe.straightened(table(BUSY), again)
    assert asked == [[6, 5]]
    assert [found.share(shape(depth)) for depth in BUSY] == [1.06, 1.04, 0.8, 0.7]


def test_a_table_that_stays_impossible_is_refused_with_what_to_do():
    timed = []
    with pytest.raises(
        Unfinished, match="grow with the decoder's depth, but 6 blocks took 38% .* 5 blocks took 83%"
    ) as e:
        probe.straightened(
            table(BUSY), lambda shapes: timed.append(shapes) or {a: took(BUSY[a.decoder_layers]) for a in shapes}
        )
    assert len(timed) == probe.TIMED_AT_MOST - 1
    assert "stop it, or wait until it is done, and run the same command again" in str(e.value)


def test_noise_is_no_bend_and_widths_are_not_compared():
    calm = table({4: 0.95, 3: 1.0, 2: 0.7})
    other = table_of({shape(4, 60): took(0.5), shape(3, 0): took(0.9)})
    assert not probe.bends(calm) and not probe.bends(other)


def test_a_search_and_a_probe_on_a_busy_machine_time_again_and_end_without_a_trial_when_it_stays_busy(
    rehearse, notebook, monkeypatch, tmp_path, capsys
):
    calm, calls = SyntheticEvaluator.probe, []

    def busy(self, shapes, limit_s, known, *, again=False):
        calls.append(again)
        found = calm(self, shapes, limit_s, known)
        if len(calls) > quiet_from:
            return found
        slow = {a: x for a, x in found.items() if a.decoder_layers == 2 and a.encoder_sparsity_pct == 0}
        return found | {a: took(1.2) for a in slow}

    monkeypatch.setattr(SyntheticEvaluator, "probe", busy)
    quiet_from = 1
    assert rehearse(trials=2, results=tmp_path / "a").front
    assert calls == [False, True]
    assert [detail["again"] for stage, detail in notebook.stages if stage == "probe"] == [False, True]
    calls.clear()
    quiet_from = 9
    with pytest.raises(Unfinished, match="run the same command again"):
        rehearse(trials=2, results=tmp_path / "b")
    assert calls == [False, True, True] and not list((tmp_path / "b").glob("s/trials/*"))
