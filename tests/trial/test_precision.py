"""The dense model: trained in float32, and timed, scored and exported as one model in the asked precision."""

from __future__ import annotations

import json

import pytest

from nash_search import loading, pruner
from nash_search.config_loader import load_config
from nash_search.latency.runtimes.eager import RUNTIME
from nash_search.storage.artifacts import WEIGHTS
from nash_search.tasks import models
from nash_search.tasks.g2p import teacher_folder
from nash_search.trial.nash_evaluator import NashEvaluator

pytestmark = pytest.mark.slow


def dtypes(model):
    return {name: t.dtype for name, t in [*model.named_parameters(), *model.named_buffers()]}


@pytest.mark.parametrize(("stored", "asked"), [("bfloat16", "float32"), ("float32", "float16")])
def test_an_export_writes_what_was_scored_whatever_the_model_was_stored_in(stored, asked, tmp_path):
    tokenizer = models.load_tokenizer(models.vet(teacher_folder()))
    given = loading.in_precision(pruner.load(teacher_folder()), stored)
    pruner.save(given, tmp_path / "model", tokenizer=tokenizer)
    evaluator = NashEvaluator(load_config("smoke", {"model": str(tmp_path / "model"), "workload.dtype": asked}))
    (tmp_path / "trial").mkdir()
    served = evaluator._save(evaluator.teacher, tmp_path / "trial")
    export = tmp_path / "trial" / WEIGHTS
    assert json.loads((export / "config.json").read_text())["dtype"] == asked
    certified = RUNTIME.load(str(evaluator.dense_folder()), evaluator.workload())
    assert dtypes(served) == dtypes(evaluator._dense_served) == dtypes(certified)
    assert evaluator._deployment.score(served, "validation") == evaluator.dense_quality()
    assert evaluator.same_tokens({"m": export}, {"m": tmp_path / "trial"}) == {"m": True}
