"""The staircase and its anchors, against a brute-force reading of the same table."""

from pathlib import Path

import pytest

from nash_search.config import Architecture, LatencyBudget, SearchConfig, SearchSpace, TaskConfig
from nash_search.errors import InvalidInput
from nash_search.latency_table import LatencyTable, ProbeEntry
from nash_search.report import plan_text
from nash_search.search import feasibility, probe
from nash_search.summaries import Plan
from tests import synthetic_evaluator
from tests.synthetic_evaluator import LAYERS, SyntheticEvaluator, share_of

SPACE = SearchSpace(encoder_sparsity_pct=(0, 80, 10), decoder_layers=tuple(range(1, LAYERS + 1)))
BUDGETS = tuple(LatencyBudget.parse(b) for b in ("70%", "50%", "30ms"))


@pytest.fixture(scope="module")
def table():
    evaluator = SyntheticEvaluator(SearchConfig(task=TaskConfig(name="rehearsal")))
    taken = evaluator.probe(probe.shapes_to_probe(SPACE), 1.0, Path("nowhere"))
    entries = tuple(ProbeEntry(architecture=a, latency=latency) for a, latency in taken.items())
    return LatencyTable(entries=entries)


def test_a_few_widths_of_every_depth_are_probed():
    shapes = probe.shapes_to_probe(SPACE)
    assert len(shapes) == 4 * LAYERS
    assert {a.encoder_sparsity_pct for a in shapes} == {0, 10, 40, 80}
    assert len(probe.shapes_to_probe(SearchSpace(encoder_sparsity_pct=(0, 0, 10), decoder_layers=(2,)))) == 1


def test_shares_between_probed_widths_are_interpolated_and_monotone(table):
    for layers in SPACE.decoder_layers:
        shares = [table.share(Architecture(encoder_sparsity_pct=s, decoder_layers=layers)) for s in range(0, 81, 10)]
        assert shares == sorted(shares, reverse=True)
        for s, share in zip(range(0, 81, 10), shares, strict=True):
            assert share == pytest.approx(
                share_of(Architecture(encoder_sparsity_pct=s, decoder_layers=layers)), abs=0.01
            )
    with pytest.raises(KeyError):
        table.share(Architecture(encoder_sparsity_pct=0, decoder_layers=9))


def test_anchors_are_the_densest_encoder_per_depth_and_budget_and_the_fastest(table, monkeypatch):
    first = feasibility.anchors(SPACE, table, BUDGETS, 1000)
    monkeypatch.setattr(feasibility, "MOST", 100)
    expected = set()
    for budget in BUDGETS:
        limit = budget.share_of(table.dense_ms)
        for layers in SPACE.decoder_layers:
            fits = [
                a
                for a in SPACE.architectures()
                if a.decoder_layers == layers and table.share(a) * (1 + feasibility.MARGIN) <= limit
            ]
            if fits:
                expected.add(min(fits, key=lambda a: a.encoder_sparsity_pct))
    fastest = Architecture(encoder_sparsity_pct=80, decoder_layers=1)
    found = feasibility.anchors(SPACE, table, BUDGETS, 1000)
    assert set(found) == expected | {fastest} and len(found) == len(set(found))
    assert first == found[:5], "a few come before the sampler"
    assert found[0].encoder_sparsity_pct == 0, "low encoder sparsity first"


def test_half_of_few_trials_is_left_to_the_sampler(table):
    counts = {trials: len(feasibility.anchors(SPACE, table, BUDGETS, trials)) for trials in range(1, 41)}
    assert all(counts[n] <= n // 2 for n in range(4, 41))
    assert [counts[n] for n in (1, 2, 4, 5, 6, 8, 9, 10, 16, 40)] == [2, 2, 2, 2, 3, 4, 4, 5, 5, 5]


def test_a_budget_below_the_floor_admits_nothing_and_names_the_nearest(table):
    fastest, share = probe.floor(table, SPACE.architectures())
    assert (fastest.encoder_sparsity_pct, fastest.decoder_layers) == (80, 1)
    low = LatencyBudget.parse("10%")
    assert feasibility.fitting_sparsities(SPACE, table, low)["fits"] == {}
    for asked in ("10%", "10ms"):
        nearest = probe.nearest_feasible(table, SPACE.architectures(), LatencyBudget.parse(asked))
        assert share <= nearest.share_of(table.dense_ms) < share * 1.15
        assert feasibility.fitting_sparsities(SPACE, table, nearest)["fits"]


def test_depths_come_from_the_model_and_may_not_exceed_it():
    assert SearchSpace().filled(3).decoder_layers == (1, 2, 3)
    with pytest.raises(InvalidInput, match="between 1 and 3"):
        SearchSpace(decoder_layers=(2, 4)).filled(3)


def test_a_whole_encoder_may_be_faster_than_a_slightly_narrowed_one(table):
    def slower(entry):
        """10 % of the encoder removed, 5 % slower."""
        if entry.architecture != Architecture(encoder_sparsity_pct=10, decoder_layers=2):
            return entry
        (one,) = entry.latency.rounds
        runs = tuple(1.05 * 0.6 * x for x in one.dense_runs_ms)
        latency = entry.latency.model_copy(update={"rounds": (one.model_copy(update={"runs_ms": runs}),)})
        return entry.model_copy(update={"latency": latency})

    bumpy = LatencyTable(entries=tuple(slower(e) for e in table.entries))
    whole, narrowed = (Architecture(encoder_sparsity_pct=s, decoder_layers=2) for s in (0, 10))
    assert bumpy.share(whole) == pytest.approx(0.6, abs=0.01) and bumpy.share(narrowed) == pytest.approx(0.63, abs=0.01)
    corners = feasibility.densest_that_fit(SPACE, bumpy, 0.62)
    assert whole in corners and narrowed not in corners
    said = feasibility.fitting_sparsities(SPACE, bumpy, LatencyBudget.parse("62%"))
    assert said["fits"]["2"] == [[0, 0], [20, 80]] and said["admits"]["2"] == 0, "any encoder would be a lie"


def test_what_a_budget_admits_is_what_the_search_may_propose(table):
    some = SPACE.model_copy(update={"decoder_layers": (2, 4, 6)})
    for budget in BUDGETS:
        said = feasibility.fitting_sparsities(some, table, budget)
        told = {
            (int(n), s)
            for n, runs in said["fits"].items()
            for low, high in runs
            for s in some.sparsities_pct
            if low <= s <= high
        }
        share = budget.share_of(table.dense_ms)
        fits = {(a.decoder_layers, a.encoder_sparsity_pct) for a in some.architectures() if table.share(a) <= share}
        assert told == fits and {n for n, _ in told} <= {2, 4, 6}


def flat(monkeypatch, worth):
    """Synthetic latencies in which the whole encoder is worth so much of a call."""

    def part_of(architecture, call):
        return 0.12 + worth * (1 - architecture.encoder_sparsity_pct / 100) + 0.8 * architecture.decoder_layers / LAYERS

    monkeypatch.setattr(synthetic_evaluator, "part_of", part_of)


@pytest.mark.parametrize(("worth", "whole"), [(0.002, True), (0.2, False)])
def test_where_width_is_worth_nothing_whole_encoders_alone_are_trained_and_the_plan_says_so(
    worth, whole, rehearse, notebook, monkeypatch
):
    flat(monkeypatch, worth)
    result = rehearse(trials=6)
    trained = [t.architecture for t in notebook.trials if t.status in ("complete", "stopped")]
    assert ({a.encoder_sparsity_pct for a in trained} == {0}) is whole
    plan = Plan(**dict(notebook.stages)["plan"])
    (said,) = [words for label, words in plan_text.plan_rows(plan) if label == "encoder"]
    assert plan.whole_encoders is whole and said.endswith(": whole encoders alone are trained") is whole
    assert said.startswith("on this device and workload encoder width is worth at most")
    most = 1 - (0.12 + 0.2 * worth + 0.8 / LAYERS) / (0.12 + worth + 0.8 / LAYERS)  # of one block: the largest part
    assert plan.width_worth_pct == pytest.approx(100 * most, abs=1.0)
    assert result.front


def test_a_budget_that_only_narrowed_encoders_meet_keeps_them(monkeypatch):
    flat(monkeypatch, 0.004)
    taken = SyntheticEvaluator(SearchConfig(task=TaskConfig(name="rehearsal"))).probe(
        probe.shapes_to_probe(SPACE), 1.0, Path("nowhere")
    )
    table = LatencyTable(entries=tuple(ProbeEntry(architecture=a, latency=latency) for a, latency in taken.items()))
    loose, none = LatencyBudget.parse("70%"), LatencyBudget.parse("1%")
    one = [Architecture(encoder_sparsity_pct=s, decoder_layers=1) for s in (0, 80)]
    between = LatencyBudget.parse(f"{50 * sum(map(table.share, one)):.3f}%")

    def searched(*budgets, sampler="gp"):
        config = SearchConfig(task=TaskConfig(name="rehearsal"), budgets=budgets, sampler=sampler)
        return feasibility.worth_training(SPACE, table, config)

    assert searched(loose, none).sparsities_pct == (0,) and searched(loose, between) == SPACE
    assert searched(loose, sampler="grid") == searched(loose, sampler="random") == SPACE, "they leave nothing out"
