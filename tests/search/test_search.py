"""The whole search on the analytic evaluator, in this process."""

import json
import shutil
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest

from nash_search.config import Architecture, LatencyBudget, PruningRecipe, SearchSpace, TaskConfig
from nash_search.errors import InvalidInput, NashSearchError, StorageDamaged
from nash_search.search import certify
from nash_search.search.pick import pick
from nash_search.storage.study import SCHEMA
from nash_search.trial.synthetic_evaluator import quality_of, share_of

KEYS = {
    "study", "task", "device", "workload", "dense", "budgets", "front", "trials", "hypervolume", "elapsed_s",
    "data",
    "engines",
}  # fmt: skip
BUDGET_KEYS = {
    "asked", "budget_ms", "floor_ms", "verdict", "latency_ms", "upper_ms", "speedup", "quality", "quality_split",
    "checkpoint", "architecture",
}  # fmt: skip


def study_of(result):
    return optuna.load_study(study_name="s", storage=f"sqlite:///{result.folder}/study.db")


def test_the_document_holds_what_is_promised(rehearse, notebook):
    result = rehearse(trials=10)
    document = json.loads(json.dumps(result.document, allow_nan=False))
    assert set(document) == KEYS and result.exit_code == 0
    assert set(document["workload"]) == {
        "batch_size", "input_tokens", "output_tokens", "beams", "dtype", "threads", "runtime"
    }  # fmt: skip
    assert set(document["dense"]) == {"latency_ms", "quality", "quality_split", "checkpoint"}
    assert document["dense"]["quality_split"] == "test"
    for budget in document["budgets"]:
        assert BUDGET_KEYS <= set(budget) and budget["verdict"] == "met"
        assert budget["upper_ms"] <= budget["budget_ms"] and budget["quality_split"] == "test"
        assert budget["speedup"] == pytest.approx(document["dense"]["latency_ms"] / budget["latency_ms"], rel=1e-6)
    counts = document["trials"]
    assert counts["complete"] + counts["stopped"] == 10 and counts["infeasible"] == 1  # the dense model
    files = {"trials.csv", "front.csv", "front.json", "summary.json", "study.db", "config.json", "probe.json"}
    assert files <= {p.name for p in result.folder.iterdir()}
    assert [s for s, _ in notebook.stages][:4] == ["workload", "probe", "plan", "search"]
    assert notebook.stages[-1][0] == "done"
    assert notebook.states[-1].trained == 10 and notebook.states[-1].eta_s == 0


def test_the_winner_is_the_best_certified_quality_under_each_budget(rehearse):
    result = rehearse(trials=14)
    for asked in ("70%", "50%", "35%"):
        met = [p for p in result.front if p.verdict(LatencyBudget.parse(asked)) == "met"]
        best = max(met, key=lambda p: p.validation.value)
        assert result.best_under(asked) == best
        assert pick(result.folder, LatencyBudget.parse(asked))["budgets"][0]["checkpoint"].endswith(best.checkpoint)
    assert result.best_under("20%") is None
    assert (result.folder / "best" / "50pct" / "model.json").exists()
    winner = Architecture.model_validate_json((result.folder / "best" / "50pct" / "model.json").read_bytes())
    assert winner == result.best_under("50%").architecture


def test_the_front_is_exported_and_dominated_weights_are_dropped(rehearse):
    result = rehearse(trials=12)
    exported = {p.name for p in (result.folder / "checkpoints").iterdir()}
    assert exported == {p.checkpoint.split("/")[1] for p in result.front}
    kept = {p.parent.name for p in (result.folder / "trials").glob("*/weights")}
    assert kept >= {p.key for p in result.front}
    assert len(kept) < len(list((result.folder / "trials").iterdir()))
    summary = json.loads((result.folder / "summary.json").read_text())
    assert summary["sealed_test_openings"] == 1  # for two winners and the dense model
    trials = pd.read_csv(result.folder / "trials.csv")
    assert len(trials) == 13 and trials.status.value_counts()["infeasible"] == 1


def test_what_cannot_meet_the_loosest_budget_is_never_trained(rehearse, notebook):
    rehearse(trials=14)
    for record in notebook.trials[1:]:
        assert share_of(record.architecture) <= 0.71
    assert len({r.architecture for r in notebook.trials}) == len(notebook.trials)


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


def test_budgets_below_the_floor_train_nothing_and_name_the_floor(rehearse, notebook):
    result = rehearse(budgets=(LatencyBudget.parse("10%"), LatencyBudget.parse("20ms")))
    assert result.exit_code == 3 and notebook.trials == []
    assert [b["verdict"] for b in result.document["budgets"]] == ["infeasible", "infeasible"]
    assert result.document["budgets"][0]["floor_ms"] == pytest.approx(27.6, abs=0.5)
    assert result.document["trials"] == {"complete": 0, "stopped": 0, "infeasible": 0, "failed": 0}
    assert not (result.folder / "study.db").exists()
    assert set(result.document) == KEYS


def test_one_feasible_budget_is_an_answer(rehearse):
    result = rehearse(trials=3, budgets=(LatencyBudget.parse("70%"), LatencyBudget.parse("10%")))
    assert result.exit_code == 0
    assert [b["verdict"] for b in result.document["budgets"]] == ["met", "infeasible"]


def test_the_same_command_finds_its_study_again_and_more_trials_go_on(rehearse, notebook):
    first = rehearse(trials=4)
    before = len(notebook.trials)
    again = rehearse(trials=4)
    assert len(notebook.trials) == before and again.document["front"] == first.document["front"]
    assert not [s for s, _ in notebook.stages[-6:] if s in ("probe", "test", "certify")], "nothing is measured again"
    rehearse(trials=6)
    assert len(notebook.trials) == before + 2
    tighter = rehearse(trials=6, budgets=(LatencyBudget.parse("60%"),))
    assert tighter.document["budgets"][0]["asked"] == "60%"


def test_interrupting_by_trials_equals_one_go(rehearse, tmp_path):
    whole = rehearse(trials=14, results=tmp_path / "whole")
    for trials in (10, 11, 12, 14):  # of fewer, half are anchors
        parts = rehearse(trials=trials, results=tmp_path / "parts")
    values = [[(t.params, t.values) for t in study_of(r).trials] for r in (whole, parts)]
    assert values[0] == values[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"sampler": "random"}, 'sampler: "tpe" -> "random"'),
        ({"search_space": SearchSpace(encoder_sparsity_pct=(0, 50, 10))}, r"encoder_sparsity_pct: \[0, .*50, 10\]"),
        ({"search_space": SearchSpace(decoder_layers=(2,))}, "decoder_layers: .* -> .2."),
        ({"task": TaskConfig(name="rehearsal", metric="bleu")}, 'task.metric: null -> "bleu"'),
        ({"task": TaskConfig(name="rehearsal", train_examples=9)}, "task.train_examples: null -> 9"),
        ({"recipe": PruningRecipe(tune_steps=7)}, "recipe.tune_steps: .* -> 7"),
        ({"max_drop_pct": 3.0}, "max_drop_pct: null -> 3.0"),
        ({"budgets": (LatencyBudget.parse("80%"),)}, "loosest budget must stay within the study's 70.0%"),
    ],
)
def test_another_question_is_refused_with_the_difference_unless_forked(rehearse, notebook, changes, words):
    rehearse(trials=3)
    with pytest.raises(InvalidInput, match=words.replace("%", "%")):
        rehearse(trials=3, **changes)
    before = len(notebook.trials)
    forked = rehearse(trials=3, fork=True, **changes)
    assert forked.document["study"].startswith("s-")
    dense, *trained = (r.architecture for r in notebook.trials[:before])
    assert next(r.architecture for r in notebook.trials[before:] if r.architecture != dense) in trained


@pytest.mark.parametrize("sampler", ["random", "grid", "nsga2", "tpe", "gp"])
def test_other_samplers_cover_the_feasible_space_without_repeats(rehearse, notebook, sampler):
    rehearse(trials=9, sampler=sampler)
    trained = [r.architecture for r in notebook.trials[1:]]
    assert len(set(trained)) == 9 and all(share_of(a) <= 0.71 for a in trained)


def test_a_space_can_be_exhausted(rehearse, notebook):
    result = rehearse(trials=500, sampler="grid", early_stopping=False)
    assert result.exit_code == 0
    stages = dict(notebook.stages)
    assert stages["front"]["why"] == "every feasible architecture is decided"
    records = {r.architecture: r for r in notebook.trials}
    best = max((a for a in records if share_of(a) <= 0.49), key=quality_of)
    assert quality_of(result.best_under("50%").architecture) >= quality_of(best) - 0.4


def test_failures_end_a_trial_with_a_reason_and_do_not_count(rehearse, notebook):
    result = rehearse(trials=8, orders="nan=enc0-dec2,error=enc10-dec1,oom=enc40-dec2")
    reasons = [(r.architecture.slug, r.failure) for r in notebook.trials if r.failure]
    assert reasons == [
        ("enc0-dec2", "nan"),
        ("enc10-dec1", "error"),
        ("enc40-dec2", "oom"),
        ("enc40-dec2", "oom"),  # one more try
    ]
    assert result.document["trials"]["complete"] + result.document["trials"]["stopped"] == 8
    assert result.document["trials"]["failed"] == 4


def test_a_search_in_which_everything_fails_ends(rehearse, notebook, monkeypatch):
    from nash_search.trial.synthetic_evaluator import SyntheticEvaluator

    def train(self, job, scratch, hooks):
        raise RuntimeError("broken\nfor all")

    monkeypatch.setattr(SyntheticEvaluator, "train", train)
    with pytest.raises(NashSearchError, match="all 5 failed, the first .* of RuntimeError: broken for all"):
        rehearse(trials=50)
    assert len(notebook.trials) == 6, "the dense model's row and five in a row"
    assert notebook.trials[-1].message == "RuntimeError: broken for all"


def test_a_full_disk_stops_the_search_and_it_goes_on_later(rehearse, notebook):
    with pytest.raises(StorageDamaged, match="disk must have room"):
        rehearse(trials=5, orders="disk=enc10-dec1")
    assert notebook.trials[-1].failure == "disk_full"
    result = rehearse(trials=5)
    assert result.document["trials"]["complete"] + result.document["trials"]["stopped"] == 5


def test_a_hanging_trial_is_ended_at_its_timeout(rehearse, notebook):
    result = rehearse(trials=2, orders="hang=enc0-dec2", trial_timeout_s=0.5)
    assert [r.failure for r in notebook.trials] == [None, "timeout", None, None]
    assert result.exit_code == 0


def test_a_time_budget_is_respected(rehearse, notebook):
    rehearse(trials=100, orders="trial_s=0.2", time_budget_s=2.0)
    assert len(notebook.trials) <= 7  # dense, five of 0.2 s at most (half is kept to certify in), one under way
    assert dict(notebook.stages)["front"]["why"] == "the time budget is spent"


def test_max_drop_is_a_quality_floor_for_every_answer(rehearse):
    result = rehearse(trials=10, max_drop_pct=6.0)
    limit = result.quality_floor
    assert limit == pytest.approx(92.29 * 0.94, abs=0.1)
    verdicts = {b["asked"]: (b["verdict"], b["quality"]) for b in result.document["budgets"]}
    assert verdicts["70%"][0] == "met" and verdicts["50%"][0] == "infeasible"


def test_an_export_that_writes_other_tokens_meets_nothing(rehearse, monkeypatch):
    from nash_search.trial.synthetic_evaluator import SyntheticEvaluator

    monkeypatch.setattr(SyntheticEvaluator, "same_tokens", lambda self, exports, trials: dict.fromkeys(exports, False))
    result = rehearse(trials=3)
    assert result.exit_code == 3 and all(not p.same_tokens for p in result.front)


def test_an_answer_needs_a_finished_study(tmp_path):
    with pytest.raises(InvalidInput, match="must be finished"):
        pick(tmp_path, LatencyBudget.parse("50%"))


def test_the_nearest_feasible_budget_is_one_that_is_met(rehearse):
    result = rehearse(trials=4, budgets=(LatencyBudget.parse("70%"), LatencyBudget.parse("20ms")))
    share, ms = (b["nearest_feasible"] for b in result.document["budgets"])
    assert share.endswith("%") and not ms.endswith("%")
    for asked in (share, ms):
        assert result.best_under(asked) is not None
    assert result.best_under(f"{int(share[:-1]) - 2}%") is None


def test_export_names_are_plain_and_say_the_latency_of_the_document(rehearse):
    result = rehearse(trials=3)
    rows = {row["checkpoint"]: row for row in result.document["front"]}
    for point in result.front:
        shown = next(row for path, row in rows.items() if path.endswith(point.checkpoint))
        assert f"-{shown['latency_ms']:.3g}ms-" in point.checkpoint
        assert certify.CHECKPOINTS + "/rehearsal-" == point.checkpoint[: len("checkpoints/rehearsal-")]
        assert all(c.isalnum() or c in "._-" for c in point.checkpoint.split("/")[1])
        measurement = json.loads((result.folder / point.checkpoint / "measurement.json").read_text())
        assert {"workload", "teacher", "latency_ms"} <= set(measurement)


def test_a_profile_scales_trials_and_steps_and_so_asks_another_question():
    from nash_search.config import SearchConfig

    balanced = SearchConfig(trials=8)
    thorough, quick = balanced.profiled("thorough"), balanced.profiled("quick")
    assert (quick.trials, balanced.trials, thorough.trials) == (4, 8, 24)
    assert thorough.recipe.tune_steps == 3 * balanced.recipe.tune_steps
    assert balanced.profiled("balanced") == balanced
    assert thorough.question_hash != balanced.question_hash != quick.question_hash
    assert balanced.profiled("thorough", keep_trials=True).trials == 8


def test_a_worker_with_another_device_gets_no_place_on_the_front(rehearse, notebook, monkeypatch):
    from nash_search.trial.synthetic_evaluator import SyntheticEvaluator

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


def test_a_failure_killed_before_its_tell_is_told_once(rehearse, notebook, monkeypatch):
    from nash_search.storage import failpoints
    from nash_search.storage.study import Study

    class Killed(BaseException):
        pass

    hits = []

    def hit(name):
        hits.append(name)
        if name == "tell" and hits.count("tell") == 2:
            raise Killed

    told = Study.fail
    with monkeypatch.context() as patched:
        patched.setattr(failpoints, "hit", hit)
        patched.setattr(Study, "fail", lambda *a: None)  # a kill closes nothing
        with pytest.raises(Killed):
            rehearse(trials=3, orders="nan=enc0-dec2")
    assert Study.fail is told
    result = rehearse(trials=3, orders="nan=enc0-dec2")
    assert result.document["trials"] == {"complete": 3, "stopped": 0, "infeasible": 1, "failed": 1}
    assert not list((result.folder / "trials").glob(".work-*"))


def test_recovery_takes_up_again_what_lost_its_folder_and_adopts_what_the_backup_does_not_know(rehearse, notebook):
    from nash_search.storage import recovery

    result = rehearse(trials=8)
    before = [(r.architecture, r.quality) for r in notebook.trials]
    backups = sorted((result.folder / "backups").glob("*.db"))
    for newer in backups[1:]:  # two trials newer than the backup
        newer.unlink()
    gone = next(r.architecture for r in notebook.trials[1:] if r.status == "complete")
    keys = {trial_folder: json.loads((trial_folder / "record.json").read_text())["architecture"] for trial_folder in
            (result.folder / "trials").iterdir()}  # fmt: skip
    (lost,) = [path for path, architecture in keys.items() if architecture == gone.model_dump(mode="json")]
    shutil.rmtree(lost)
    (result.folder / "study.db").write_bytes(b"")
    with pytest.raises(StorageDamaged, match="recover s"):
        rehearse(trials=8)
    assert recovery.rebuild(result.folder, "s") == len(before) - 1
    again = rehearse(trials=8)
    assert [r.architecture for r in notebook.trials[len(before) :]] == [gone]
    assert again.document["trials"] == result.document["trials"] and lost.is_dir()
    assert sorted(t.values for t in study_of(again).trials if t.values) == sorted(
        t.values for t in study_of(result).trials if t.values
    )
    assert {t.state.name for t in study_of(again).trials} <= {"COMPLETE", "PRUNED", "FAIL"}


def test_a_study_without_its_folder_is_refused_in_one_line(rehearse):
    result = rehearse(trials=2)
    (result.folder / "probe.json").unlink()
    with pytest.raises(StorageDamaged, match="study s must have its folder, but .* has no probe.json"):
        rehearse(trials=3)


def test_other_data_protocols_and_devices_are_another_question_too(rehearse, monkeypatch):
    from nash_search.trial.synthetic_evaluator import SyntheticEvaluator

    rehearse(trials=2)
    facts = SyntheticEvaluator.facts

    def changed(self):
        return facts(self) | {"model": "other", "data": {"train": "other"}, "protocol": {"trial": 9}}

    with monkeypatch.context() as patched:
        patched.setattr(SyntheticEvaluator, "facts", changed)
        with pytest.raises(InvalidInput, match="data: .*other.*; model: .*other.*; protocol: .*9"):
            rehearse(trials=2)
    call = SyntheticEvaluator.workload(None).model_copy(update={"batch_size": 3})
    with monkeypatch.context() as patched:
        patched.setattr(SyntheticEvaluator, "workload", lambda self: call)
        with pytest.raises(InvalidInput, match="workload.batch_size: 64 -> 3"):
            rehearse(trials=2)
    elsewhere = {"device": "rehearsal", "torch": "9.9", "hash": "elsewhere"}
    monkeypatch.setattr(SyntheticEvaluator, "fingerprint", lambda self: elsewhere)
    with pytest.raises(InvalidInput, match='got device.torch: null -> "9.9"'):
        rehearse(trials=2)


def test_a_study_whose_database_is_elsewhere_is_not_begun_anew(rehearse, notebook):
    result = rehearse(trials=2)
    for path in result.folder.glob("study.db*"):
        path.unlink()
    before = (result.folder / "probe.json").read_bytes()
    with pytest.raises(StorageDamaged, match="must have its database.*set NASH_SEARCH_STORAGE"):
        rehearse(trials=2)
    assert not (result.folder / "study.db").exists() and (result.folder / "probe.json").read_bytes() == before


def test_an_answer_left_open_is_looked_at_again_and_a_settled_one_is_not(rehearse, notebook, monkeypatch):
    from nash_search.records import Latency

    rehearse(trials=4)
    certified = [stage for stage, _ in notebook.stages].count("certify")
    rehearse(trials=4)
    assert [stage for stage, _ in notebook.stages].count("certify") == certified == 1
    with monkeypatch.context() as patched:
        patched.setattr(Latency, "verdict", lambda self, budget: "ambiguous")
        result = rehearse(trials=4)
    assert [stage for stage, _ in notebook.stages].count("certify") == 2 and result.exit_code == 3


def test_one_round_is_no_certificate(rehearse, monkeypatch):
    from nash_search.trial.synthetic_evaluator import SyntheticEvaluator

    timed = SyntheticEvaluator.time_fresh
    monkeypatch.setattr(
        SyntheticEvaluator, "time_fresh", lambda self, *a, **given: timed(self, *a, **given | {"rounds": 1})
    )
    result = rehearse(trials=4)
    assert result.exit_code == 3
    assert {b["verdict"] for b in result.document["budgets"]} == {"ambiguous"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"value": float("nan")}, "finite"),
        ({"value": float("inf")}, "finite"),
        ({"value": float("-inf")}, "finite"),
    ],
)
def test_no_value_that_is_no_number_reaches_the_study(rehearse, notebook, monkeypatch, change, words):
    from nash_search.trial.synthetic_evaluator import SyntheticEvaluator

    scored = SyntheticEvaluator._quality

    def poisoned(self, architecture, split, seed):
        found = scored(self, architecture, split, seed)
        return found.model_copy(update=change) if architecture.decoder_layers == 1 else found

    monkeypatch.setattr(SyntheticEvaluator, "_quality", poisoned)
    result = rehearse(trials=3)
    reasons = {(r.failure, r.architecture.decoder_layers) for r in notebook.trials}
    assert ("nan", 1) in reasons and (None, 1) not in reasons
    assert all(words in r.message for r in notebook.trials if r.failure)
    assert all(t.values is None or np.isfinite(t.values).all() for t in study_of(result).trials)


def test_training_and_device_time_are_accounted_for(rehearse):
    full = rehearse(trials=4, orders="trial_s=0.05", finalist_seeds=2).full_document
    table = pd.read_csv(Path(full["front"][0]["checkpoint"]).parents[1] / "trials.csv")
    assert full["device_s"] == pytest.approx(table["device_s"].sum()) and full["device_s"] > full["train_s"] / 2
    assert full["train_steps"] == table["train_steps"].sum() + sum(f["train_steps"] for f in full["finalists"][1::2])


def test_the_time_left_counts_the_finalists(rehearse, notebook):
    rehearse(trials=4, orders="trial_s=0.05", finalist_seeds=3)
    assert notebook.states[-1].eta_s > 0, "four finalists are still to train"
