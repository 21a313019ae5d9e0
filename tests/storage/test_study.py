"""What a study's rows say, to the search and to the dashboard."""

import numpy as np
import pytest

from nash_search.storage.facts import SCHEMA
from tests.opened import study_of


def test_the_dashboard_reads_the_constraint_in_its_legacy_form(rehearse):
    result = rehearse(trials=4)
    for row in study_of(result).trials:
        (value,) = row.system_attrs["constraints"]
        assert not [key for key in row.system_attrs if key.startswith("constraints:")], "never both forms"
        share = row.user_attrs["share_of_dense"]
        assert value == pytest.approx(share / 0.7 - 1)
    best = study_of(result).best_trials
    assert best and all(t.system_attrs["constraints"][0] <= 0 for t in best)
    assert study_of(result).metric_names == ["latency_ms", "rehearsal"]
    assert study_of(result).user_attrs["nash_search"]["schema_version"] == SCHEMA


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"value": float("nan")}, "finite"),
        pytest.param({"value": float("inf")}, "finite", marks=pytest.mark.slow),
    ],
)
def test_no_value_that_is_no_number_reaches_the_study(rehearse, notebook, monkeypatch, change, words):
    from tests.synthetic_evaluator import SyntheticEvaluator

    scored = SyntheticEvaluator._quality

    def poisoned(self, architecture, *of):
        found = scored(self, architecture, *of)
        return found.model_copy(update=change) if architecture.decoder_layers == 1 else found

    monkeypatch.setattr(SyntheticEvaluator, "_quality", poisoned)
    result = rehearse(trials=3)
    reasons = {(r.failure, r.architecture.decoder_layers) for r in notebook.trials}
    assert ("nan", 1) in reasons and (None, 1) not in reasons
    assert all(words in r.message for r in notebook.trials if r.failure)
    assert all(t.values is None or np.isfinite(t.values).all() for t in study_of(result).trials)
