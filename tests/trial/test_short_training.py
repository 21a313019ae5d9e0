"""A calibration's training on a real tiny model: scored and with a loss, neither timed nor exported."""

import math
from contextlib import nullcontext

import pytest
import torch

from nash_search import pruner
from nash_search.calibration_record import ShortTraining
from nash_search.config import Architecture
from nash_search.config_loader import load_config
from nash_search.pruner.distillation import cross_entropy, forward
from nash_search.tasks.task import Batches
from nash_search.trial import short_training
from nash_search.trial.evaluator import _open, open_evaluator
from nash_search.trial.job import Job
from nash_search.trial.run import run_trial
from nash_search.trial.short_training import EXAMPLES, validation_loss


@pytest.fixture(scope="module")
def asked():
    overrides = {"budgets": ["50%"], "recipe.narrow_steps": 2, "recipe.tune_steps": 2, "recipe.batch_size": 8}
    _open.clear()
    yield load_config("g2p", overrides | {"task.validation_examples": 8, "task.train_examples": 64})
    _open.clear()


def job_of(config, folder, **recipe):
    config = config.model_copy(update={"recipe": config.recipe.model_copy(update=recipe | {"rungs": 1})})
    where = Architecture(encoder_sparsity_pct=30, decoder_layers=2, decoder_selection="scored")
    workload = open_evaluator(config).workload()
    return Job(
        number=0, architecture=where, seed=0, question="q", config=config, workload=workload, share=0.5,
        folder=str(folder), short=True,
    )  # fmt: skip


@pytest.mark.slow
def test_it_is_scored_and_committed_without_latency_and_weights(asked, tmp_path):
    job = job_of(asked, tmp_path, labels="mixed")
    record = run_trial(job)
    found = ShortTraining.of(record)
    assert record.status == "complete" and record.latency is None and record.checkpoint is None
    assert found.steps == 4 and record.quality.n == 8 and found.setting.labels == "mixed"
    assert math.isfinite(found.loss) and 0 < found.scoring_s < found.seconds
    assert sorted(p.name for p in job.final.iterdir()) == ["manifest.json", "record.json"]
    assert run_trial(job) == record, "a whole one is not trained again"
    assert job_of(asked, tmp_path, labels="data").key != job.key, "each setting has a folder of its own"


@pytest.mark.slow
def test_an_absurd_rate_is_a_failure_with_a_name(asked, tmp_path):
    record = run_trial(job_of(asked, tmp_path, learning_rate=1e30, tune_learning_rate=1e30))
    assert record.failure == "nan" and record.recipe.learning_rate == 1e30


def test_the_loss_is_the_mean_over_all_tokens(asked, monkeypatch):
    monkeypatch.setattr(short_training, "LOSS_BATCH", 3)  # the last batch is smaller
    evaluator = open_evaluator(asked)
    model = pruner.random_cut(evaluator.teacher, Architecture(encoder_sparsity_pct=0, decoder_layers=2))
    examples = evaluator.task.validation.first(EXAMPLES)
    whole = Batches(examples, batch_size=len(examples), seed=0, pad_token_id=0)(0)
    with torch.no_grad():
        expected = float(cross_entropy(forward(model.eval(), whole), whole["labels"]))
    assert validation_loss(model, examples, evaluator.task, nullcontext) == pytest.approx(expected, rel=1e-4)
