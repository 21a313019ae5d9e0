"""What is kept and certified beside the front: neighbours that only a trial's clock puts behind it."""

import itertools
import json

import numpy as np
import pytest

from nash_search.config import Architecture, LatencyBudget, SearchSpace, Workload
from nash_search.latency_record import Latency, Round
from nash_search.records import Quality, TrialRecord
from nash_search.search.candidates import CLOCK_ERROR, NEAR, PER_BUDGET, Candidates, unbeaten
from tests.synthetic_evaluator import SyntheticEvaluator

WORKLOAD = Workload(batch_size=1, input_tokens=8, output_tokens=8)
HALF = LatencyBudget.parse("50%")


class Rows:
    """A study that is only its records."""

    class facts:
        direction = "maximize"

    def __init__(self, records):
        self._records = records

    def records(self):
        return self._records


def trial(number, share, quality, **changes):
    dense = tuple(100.0 for _ in range(4))
    made = Latency(
        rounds=(Round(runs_ms=tuple(share * d for d in dense), dense_runs_ms=dense, contended=(False,) * 4),),
        workload=WORKLOAD,
    )
    scored = Quality(metric="m", value=quality, standard_error=0.1, n=10, split="validation")
    slug = Architecture(encoder_sparsity_pct=10 * (number % 10), decoder_layers=1 + number // 10)
    return TrialRecord(number=number, architecture=slug, latency=made, quality=scored, checkpoint="c").model_copy(
        update=changes
    )


@pytest.mark.parametrize("seed", range(20))
def test_contenders_are_exactly_the_trials_that_an_erring_clock_may_have_kept_off(seed):
    rng = np.random.default_rng(seed)
    records = [trial(i, float(rng.uniform(0.3, 0.8)), float(rng.uniform(80, 90))) for i in range(40)]
    frontier = Candidates(Rows(records), [HALF])
    on_front = {r.number for r in frontier.front()}
    wanted = set()
    for r in records:
        beaten = any(
            o.latency.ratio <= r.latency.ratio * (1 - CLOCK_ERROR) and o.quality.value >= r.quality.value
            for o in records
        )
        if r.number not in on_front and not beaten and abs(r.latency.ratio / 0.5 - 1) < NEAR:
            wanted.add(r.number)
    assert {r.number for r in frontier.contenders(records)} == wanted
    certified = frontier.to_certify(records)
    assert {r.number for r in certified} >= on_front and len(certified) <= len(on_front) + PER_BUDGET
    assert [r.latency.ratio for r in certified] == sorted(r.latency.ratio for r in certified)


def test_a_trial_once_out_of_reach_stays_so_and_a_failed_one_never_contends():
    records = [trial(0, 0.40, 90.0), trial(1, 0.49, 89.0), trial(2, 0.48, 91.0), trial(3, 0.485, 90.9)]
    records.append(trial(4, 0.486, 90.8, failure="nan"))
    frontier = Candidates(Rows(records), [HALF])
    assert [r.number for r in frontier.contenders(records)] == [3]
    for share, quality in itertools.product((0.3, 0.47, 0.6), (70.0, 90.5, 95.0)):
        more = [*records, trial(9, share, quality)]
        assert 1 not in {r.number for r in Candidates(Rows(more), [HALF]).contenders(more)}


def test_the_answer_is_a_neighbour_when_the_certificate_refuses_the_front_s_point(rehearse, notebook, monkeypatch):
    """Trials say a narrower encoder is 1 % slower than the whole one; alone in fresh processes it is 8 % faster."""
    whole, narrow = (Architecture(encoder_sparsity_pct=s, decoder_layers=2) for s in (0, 10))
    shares = {(whole, False): 0.490, (narrow, False): 0.495, (whole, True): 0.53, (narrow, True): 0.47}
    made = SyntheticEvaluator._latency

    def told(self, architecture, *key, **given):
        latency = made(self, architecture, *key, **given)
        share = shares.get((architecture, key[0] == "fresh"))
        if share is None:
            return latency
        rounds = [r.model_copy(update={"runs_ms": tuple(share * d for d in r.dense_runs_ms)}) for r in latency.rounds]
        return latency.model_copy(update={"rounds": tuple(rounds)})

    monkeypatch.setattr(SyntheticEvaluator, "_latency", told)
    space = SearchSpace(encoder_sparsity_pct=(0, 10, 10), decoder_layers=(2,))
    result = rehearse(trials=4, sampler="grid", search_space=space, budgets=(HALF,))
    assert result.best_under("50%").architecture == narrow
    (said,) = [detail for stage, detail in notebook.stages if stage == "front"]
    assert (said["points"], said["beside"]) == (1, 1)
    assert {p.architecture for p in result.front} == {whole, narrow}  # the one is better, the other faster


def test_what_the_certificates_put_behind_is_not_shown_as_front(rehearse, monkeypatch):
    monkeypatch.setattr("nash_search.search.candidates.CLOCK_ERROR", 0.5)
    monkeypatch.setattr("nash_search.search.candidates.NEAR", 0.9)
    result = rehearse(trials=14)
    timed = json.loads((result.folder / "certification.json").read_text())["timed"]
    assert len(timed) > len(result.front)
    points = [(p.latency.ratio, p.validation.value) for p in result.front]
    answers = {p.key for b in ("70%", "50%") if (p := result.best_under(b))}
    for p, (share, quality) in zip(result.front, points, strict=True):
        assert p.key in answers or not any(s < share and q > quality for s, q in points)
    exported = {path.name for path in (result.folder / "checkpoints").iterdir()}
    assert exported == {p.checkpoint.split("/")[1] for p in result.front}


def test_a_finished_model_leaves_behind_what_is_slower_and_worse_except_where_a_budget_is_near():
    finished = trial(0, 0.48, 90).model_copy(update={"finish_steps": 1800})
    fast, own, clear, near, better = (trial(i, s, q) for i, s, q in [
        (1, 0.30, 70), (0, 0.48, 80), (2, 0.60, 85), (3, 0.50, 85), (4, 0.60, 91),
    ])  # fmt: skip
    found = unbeaten([fast, own, clear, near, better], [finished], [HALF])
    assert [r.number for r in found] == [1, 0, 3, 4], "the clock may err about 3, and 0 is told as searched"
    assert unbeaten([fast, own, clear], [], [HALF]) == [fast, own, clear]
