"""What certification takes for an answer, and what it does not."""


def test_an_export_that_writes_other_tokens_meets_nothing(rehearse, monkeypatch):
    from tests.synthetic_evaluator import SyntheticEvaluator

    monkeypatch.setattr(SyntheticEvaluator, "same_tokens", lambda self, exports, trials: dict.fromkeys(exports, False))
    result = rehearse(trials=3)
    assert result.exit_code == 3 and all(not p.same_tokens for p in result.front)


def test_a_worker_with_another_device_gets_no_place_on_the_front(rehearse, notebook, monkeypatch):
    from tests.synthetic_evaluator import SyntheticEvaluator

    measured = SyntheticEvaluator._latency

    def elsewhere(self, architecture, *key, **options):
        found = measured(self, architecture, *key, **options)
        if key == ("trial",) and architecture.decoder_layers == 1:
            return found.model_copy(update={"fingerprint": {**found.fingerprint, "device": "another"}})
        return found

    monkeypatch.setattr(SyntheticEvaluator, "_latency", elsewhere)
    rehearse(trials=3)
    failed = [r for r in notebook.trials if r.architecture.decoder_layers == 1]
    assert failed and all(r.failure == "error" and "study's device" in r.message for r in failed)


def test_an_answer_left_open_is_looked_at_again_and_a_settled_one_is_not(rehearse, notebook, monkeypatch):
    from nash_search.latency_record import Latency

    rehearse(trials=4)
    certified = [stage for stage, _ in notebook.stages].count("certify")
    rehearse(trials=4)
    assert [stage for stage, _ in notebook.stages].count("certify") == certified == 1
    with monkeypatch.context() as patched:
        patched.setattr(Latency, "verdict", lambda self, budget: "ambiguous")
        result = rehearse(trials=4)
    assert [stage for stage, _ in notebook.stages].count("certify") == 2 and result.exit_code == 3


def test_one_round_is_no_certificate(rehearse, monkeypatch):
    from tests.synthetic_evaluator import SyntheticEvaluator

    timed = SyntheticEvaluator.time_fresh
    monkeypatch.setattr(
        SyntheticEvaluator, "time_fresh", lambda self, *a, **given: timed(self, *a, **given | {"rounds": 1})
    )
    result = rehearse(trials=4)
    assert result.exit_code == 3
    assert {b["verdict"] for b in result.document["budgets"]} == {"ambiguous"}


def test_the_training_that_answers_is_not_lost_to_one_that_a_limit_shuts_out(rehearse):
    from nash_search.config import AnswerLimits, LatencyBudget
    from nash_search.results import Terms
    from nash_search.search.certify import best_training_each, read

    point = read(rehearse(trials=3).folder).points[0]
    better = point.validation.model_copy(update={"value": point.validation.value + 2})
    short, long = (point.model_copy(update=u) for u in ({"key": "s"}, {"key": "l", "validation": better}))
    meets = {"s": ("50%", "70%"), "l": ("70%",)}
    terms = Terms(budgets=(LatencyBudget.parse("70%"),), dense_ms=10, floor_share=0.2)
    assert [p.key for p in best_training_each([short, long], meets, terms)] == ["s"], "it answers both"
    floor = {"dense_quality": better.value, "limits": AnswerLimits(max_drop_pct=0.5)}
    assert [p.key for p in best_training_each([short, long], meets, terms.model_copy(update=floor))] == ["l"]
