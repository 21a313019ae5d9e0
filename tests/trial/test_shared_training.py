"""Shared training in a search: made once, told apart, distrusted where it misleads."""

from __future__ import annotations

import json

import pytest

from nash_search import pruner
from nash_search.config import Architecture, LatencyBudget, SearchSpace, Workload
from nash_search.config_loader import load_config
from nash_search.records import Quality, TrialRecord
from nash_search.search import search
from nash_search.search.scheduler import Scheduler
from nash_search.trial import shared_training
from nash_search.trial.job import Job
from tests.pruner import tiny

model_of, batch_of = tiny.model_of, tiny.batch_of


def shared_config(**changes):
    config = load_config("smoke")
    recipe = config.recipe.model_copy(update={"narrowing": "shared"})
    return config.model_copy(update={"recipe": recipe, **changes})


def record(number, before, after, **more):
    quality = Quality(metric="m", value=after, standard_error=0.1, n=10, split="validation")
    where = Architecture(encoder_sparsity_pct=10 * number, decoder_layers=1)
    return TrialRecord(
        number=number, architecture=where, quality=quality, pruning={shared_training.QUALITY: before}, **more
    )


def test_the_order_is_judged_by_rank_once_enough_trials_are_trained():
    good = [record(i, 2.0**i, 10 + i) for i in range(5)]
    assert shared_training.rank_correlation(good) == (pytest.approx(1.0), 5)
    assert shared_training.rank_correlation(good[:4]) == (None, 4) and shared_training.trusted(good[:4])
    bad = [record(i, -i, 10 + i) for i in range(5)]
    assert shared_training.rank_correlation(bad)[0] == pytest.approx(-1.0) and not shared_training.trusted(bad)
    stopped = [r.model_copy(update={"stopped": "dominated"}) for r in bad]
    assert shared_training.rank_correlation(stopped) == (None, 0)


def test_where_it_misleads_later_trials_train_alone(monkeypatch):
    config = shared_config(storage="sqlite:///secret.db")

    class Rows:
        def records(self):
            return self.rows

    scheduler = Scheduler.__new__(Scheduler)
    scheduler.config, scheduler.study = config, Rows()
    scheduler.study.rows = [record(i, i, 10 + i) for i in range(6)]
    assert scheduler._trial_config() == config.model_copy(update={"storage": None})
    scheduler.study.rows = [record(i, -i, 10 + i) for i in range(6)]
    alone = config.recipe.model_copy(update={"narrowing": "gates"})
    assert scheduler._trial_config().recipe == alone
    scheduler.table = type("Table", (), {"share": lambda self, architecture: 0.5})()
    scheduler._job = lambda number, architecture, share: Job.model_construct(config=scheduler._trial_config())
    winner = scheduler.study.rows[0]
    assert scheduler.finalist_job(winner, seed=1).config.recipe == config.recipe, (
        "by the recipe of the trial it repeats"
    )
    assert scheduler.finalist_job(winner.model_copy(update={"pruning": {}}), seed=1).config.recipe == alone


def test_the_trial_that_made_it_pays_for_it_even_after_a_kill(tmp_path, monkeypatch):
    teacher = model_of("t5")
    config = shared_config(search_space=SearchSpace(encoder_sparsity_pct=(0, 60, 30), decoder_layers=(1, 2)))
    workload = Workload(input_tokens=1, output_tokens=1)

    quality = Quality(metric="m", value=1.0, standard_error=0.1, n=10, split="validation")

    def started(number):
        where = Architecture(encoder_sparsity_pct=30, decoder_layers=number)
        job = Job(
            number=number, architecture=where, seed=0, question="q", config=config, workload=workload, share=0.5,
            folder=str(tmp_path),
        )  # fmt: skip
        return shared_training.start(job, teacher, 4, batch_of, pruner.TrainingContext(), lambda model: quality)

    first = started(1)
    assert first.stages[shared_training.STAGE]["steps"] == config.recipe.narrow_steps
    monkeypatch.setattr(pruner, "train_supernet", None)  # nobody trains it again
    assert started(2).stages == {}
    assert started(1).stages == first.stages  # killed while it tuned, begun again


@pytest.mark.slow
def test_a_search_trains_the_shared_model_once(tmp_path):
    config = shared_config(trials=3, workers=2, study="s", budgets=(LatencyBudget.parse("90%"),), finish_steps=0)
    said = []

    class Heard:
        def on_stage(self, stage, detail):
            said.append((stage, detail))

        def on_trial(self, record, state):
            pass

        def on_progress(self, number, stage, step, steps, loss):
            said.append((stage, step))

    found = search(config, results=tmp_path, listeners=[Heard()]).full_document
    records = [json.loads(p.read_text()) for p in (tmp_path / "s" / "trials").glob("*/record.json")]
    trained = [r for r in records if r["curve"]]
    assert len(trained) == 3 and all(shared_training.QUALITY in r["pruning"] for r in trained)
    assert sum(shared_training.STAGE in r["stages"] for r in trained) == 1
    assert {tuple(sorted(set(r["stages"]) - {shared_training.STAGE})) for r in trained} == {("tune",)}
    assert found["shared"]["trials"] == 3 and found["shared"]["rank_correlation"] is None
    assert ("shared", found["shared"]) in said
    assert (tmp_path / "s" / shared_training.FOLDER / "config.json").is_file()


@pytest.mark.parametrize("frozen", [True, False])
def test_where_the_encoder_is_frozen_recordings_are_heard_once_a_study(frozen, monkeypatch):
    teacher, looks = model_of("whisper"), []
    teacher.get_encoder().requires_grad_(not frozen)
    data = type("Batches", (), {"steps_per_epoch": 25, "__call__": lambda self, step: batch_of(step, kind="whisper")})()
    task = type("Task", (), {"train_batches": lambda self, size, seed: data})()

    def run(teacher, architecture, recipe, batches, context):
        looks.append(context.teacher_cache)
        step_s = 9.0 if len(looks) == 1 else 2.0
        return type(
            "Pruned", (), {"stages": {"tune": {"steps": recipe.tune_steps, "seconds": recipe.tune_steps * step_s}}}
        )

    monkeypatch.setattr(pruner, "run", run)
    config = load_config("smoke")
    recipe = config.recipe.model_copy(update={"narrow_steps": 0, "tune_steps": 100})
    config = config.model_copy(update={"recipe": recipe, "trials": 5})
    whole = Architecture(encoder_sparsity_pct=0, decoder_layers=1)
    seconds, _ = shared_training.training_s(teacher, task, whole, config, pruner.TrainingContext(), 1_000.0)
    if frozen:  # 25 of one trial's 100 steps hear, and each of the 5 trials bears its part
        assert seconds == pytest.approx(100 * 2 + 25 * (9 - 2) / 5, abs=0.5) and looks[0] is looks[1] is not None
    else:
        assert seconds == pytest.approx(100 * 2, abs=0.5) and looks == [None, None]
