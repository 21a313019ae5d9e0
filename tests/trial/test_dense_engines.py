"""Does an engine alone meet the budget? Which answer is given, when, and that the search goes on as before."""

from __future__ import annotations

import json
import math
import re
from contextlib import nullcontext
from pathlib import Path

import pytest

from nash_search import intervals
from nash_search.cli.latency import MEASURE
from nash_search.cli.search import nothing_met
from nash_search.config import MEASURED_FIELDS, LatencyBudget, SearchConfig, TaskConfig, Workload
from nash_search.config_loader import flag_of
from nash_search.latency import alone, fresh_process
from nash_search.latency_record import Latency, Round
from nash_search.records import Quality
from nash_search.report import engines as words
from nash_search.search import margins
from nash_search.search import plan as planning
from nash_search.summary_rows import EnginesRow
from nash_search.trial import dense_engines
from nash_search.trial.engines import DenseOnEngine, Engines
from nash_search.trial.nash_evaluator import NashEvaluator

MEASURED = {flag_of(f"task.{name}") for name in MEASURED_FIELDS}
CALL = Workload(input_tokens=8, output_tokens=8, batch_size=4)


def quality(value: float, direction: str = "maximize", n: int = 256) -> Quality:
    return Quality(metric="m", value=value, standard_error=1.0, n=n, split="validation", direction=direction)


def engine(share: float, kept: float | None, *, runtime: str = "ctranslate2", quantize: str = "int8") -> DenseOnEngine:
    runs = Round(runs_ms=(share * 100,) * 8, dense_runs_ms=(100.0,) * 8)
    workload = Workload.model_validate(CALL.model_dump() | {"runtime": runtime, "quantize": quantize})
    return DenseOnEngine(workload=workload, latency=Latency(rounds=(runs,), workload=workload), kept=kept)


def test_the_answer_keeps_most_quality_and_is_then_the_fastest() -> None:
    exact = engine(0.4, 1.0, quantize="none")
    found = Engines(tried=(exact, engine(0.2, 0.98), engine(0.3, 1.004), engine(0.35, 1.0)))
    assert found.answer(0.5) is found.tried[2], "of those that keep all of it, the fastest"
    assert found.answer(0.25) is found.tried[1]
    assert found.answer(0.1) is None


@pytest.mark.parametrize(
    ("asked", "share", "verdict"),
    [
        ("40 ms", 0.30, "met"),
        ("40 ms", 0.37, "ambiguous"),  # 37 of 40 ms, where a certificate needs 34.6
        ("40 ms", 0.41, None),
        ("40%", 0.37, "met"),  # a share is judged to 1.5 %
        ("40%", 0.395, "ambiguous"),
        ("40%", 0.41, None),
    ],
)
def test_an_engine_alone_is_judged_by_what_a_certificate_needs_here(asked, share, verdict) -> None:
    budget = LatencyBudget.parse(asked)
    config = SearchConfig(budgets=(budget,))
    certifies = margins.certifies(config.budgets, intervals.DEFAULT_OCCASION, config.certify_rounds)
    told = dense_engines.document(Engines(tried=(engine(share, 1.0),)), config, 100.0, None, certifies)
    (answer,) = told.answers
    assert (answer and answer.verdict) == verdict
    said = " ".join(line for _, line in words.rows(told))
    assert ("alone meets" in said and "nothing needs pruning" in said) == (verdict == "met")
    assert ("alone may meet" in said) == (verdict == "ambiguous")
    assert ("alone may meet" in words.instead(told)) == (verdict == "ambiguous")
    if verdict == "ambiguous":
        assert f"a certificate needs {34.6 if 'ms' in asked else 39.4} ms here" in said


@pytest.mark.parametrize(
    ("share", "kept", "max_drop_pct", "answers"),
    [
        (0.30, 0.998, None, True),
        (0.30, 0.969, None, False),  # an engine that breaks the model is no answer
        (0.30, 0.98, 1.0, False),  # the user allowed less
        (0.30, 0.98, 3.0, True),
        (0.30, 0.90, 20.0, False),  # a broken engine stays one, however much may be lost to pruning
        (0.30, None, None, False),  # unknown quality is no quality
        (0.41, 1.0, None, False),
    ],
)
def test_an_answer_meets_the_budget_with_its_interval_and_keeps_the_quality(share, kept, max_drop_pct, answers) -> None:
    found = Engines(tried=(engine(share, kept),)).answer(0.4, max_drop_pct=max_drop_pct)
    assert (found is not None) == answers


def test_the_plan_says_so_before_anything_is_spent_and_the_search_goes_on(rehearse, notebook) -> None:
    result = rehearse(trials=3, orders="engine=0.2")
    stages = [stage for stage, _ in notebook.stages]
    assert stages.index("engines") < stages.index("plan") < stages.index("search")
    plan = dict(notebook.stages)["plan"]
    assert [a["asked"] for a in plan["engines"]["answers"]] == ["70%", "50%"]
    assert len(notebook.trials) >= 3 and result.exit_code == 0
    assert result.document["engines"]["answers"][0]["kept"] == 0.998
    summary = json.loads((result.folder / "summary.json").read_text())
    assert summary["engines"] == json.loads(json.dumps(result.document["engines"], allow_nan=False))
    rows = dict(words.rows(result.summary.engines, "eager"))
    assert rows["nothing pruned"] == "the search goes on all the same, for PyTorch"
    told = words.rows(result.summary.engines, "eager")[1][1]
    assert told.startswith(
        "CTranslate2 int8 alone meets 70% of dense and 50% of dense at 99.8% of the quality; nothing"
    )
    assert "not certified" in told
    tighter_ms = float(rows["certify it"].split("--budget-ms ")[1].split()[0])
    assert tighter_ms == pytest.approx(50, rel=0.01), "half of 100 ms, the tighter of the two"
    (reminder,) = words.reminders(result.summary.engines)
    assert "CTranslate2 int8 alone meets 70% of dense and 50% of dense" in reminder


def test_it_is_tried_once_per_study(rehearse, notebook) -> None:
    first = rehearse(trials=2, orders="engine=0.2")
    again = rehearse(trials=3, orders="engine=0.9")
    assert [stage for stage, _ in notebook.stages].count("engines") == 1
    assert again.document["engines"] == first.document["engines"]
    (first.folder / planning.ENGINES).unlink()  # a study of before
    assert rehearse(trials=3).document["engines"]["tried"] == []


def test_no_engines_means_none(rehearse, notebook) -> None:
    result = rehearse(trials=2, orders="engine=0.2", engines=False)
    assert "engines" not in [stage for stage, _ in notebook.stages]
    assert result.document["engines"]["answers"] == [None, None]
    assert words.rows(result.summary.engines) == []


def test_where_no_architecture_meets_the_budget_the_engine_is_named_and_the_exit_code_stays(rehearse) -> None:
    result = rehearse(budgets=(LatencyBudget.parse("20"),), orders="engine=0.15")
    assert result.exit_code == 3
    assert "; CTranslate2 int8 alone meets 20 ms, nothing pruned: try --budget-ms" in nothing_met(result.summary)


def test_the_sentences_name_what_failed_what_broke_and_what_is_unknown() -> None:
    refused = DenseOnEngine(workload=CALL.model_copy(update={"runtime": "onnxruntime"}), reason="cannot\x1bsay it")
    tried = (engine(0.3, 0.1), engine(0.2, None, quantize="none"), refused)
    found = Engines(tried=tried, reference=quality(35.0), seconds=24.0, absent=("onnxruntime",))
    config = SearchConfig(budgets=(LatencyBudget.parse("40"),))
    certifies = margins.certifies(config.budgets, intervals.DEFAULT_OCCASION, config.certify_rounds)
    told = dense_engines.document(found, config, 100.0, Path("teacher"), certifies)
    assert told.answers == (None,)
    lines = [line for _, line in words.rows(EnginesRow.model_validate_json(told.model_dump_json()))]
    assert lines == [
        "the dense model on CTranslate2 int8 30.0 ms (3.33× faster, 10.0% of the quality); CTranslate2 20.0 ms (5.00× "
        "faster, quality not known in time) on 256 examples; took 24 s",
        "not on ONNX Runtime: cannot say it",
        "CTranslate2 int8: under 97% of the quality, so never an answer",
    ]
    assert words.absent(told) == [
        ("not installed", "ONNX Runtime: pip install 'nash-search[onnxruntime]' tries them too")
    ]


def test_the_command_names_the_whole_call_and_a_quantised_one_s_data() -> None:
    task = TaskConfig(name="mine", data="my data", prefix="summarize: ", validation_examples=50)
    said = dense_engines.command(Path("teacher"), task, engine(0.3, 1.0), LatencyBudget.parse("40%"), 100.0)
    call = "--device cpu --threads 1 --batch-size 4 --input-tokens 8 --output-tokens 8 --beams 1 --budget-ms 40"
    data = "--task mine --data 'my data' --prefix 'summarize: '"
    assert said == f"nash-search measure teacher --runtime ctranslate2 --quantize int8 {call} {data}"
    known = {flag_of(flag.field) for flag in MEASURE}
    assert set(re.findall(r"--[a-z-]+", said)) <= known and MEASURED <= known
    plain = engine(0.3, 1.0, quantize="none")
    assert "--data" not in dense_engines.command(Path("teacher"), task, plain, LatencyBudget.parse("40"), 100.0)


def test_what_is_not_installed_costs_nothing_and_a_process_that_dies_costs_one_line(monkeypatch) -> None:
    def run_job(job, limit_s):
        raise fresh_process.MeasurementFailed(
            "a fresh timing process must end with a result, but got signal 4: it said nothing"
        )

    monkeypatch.setattr(fresh_process, "run_job", run_job)
    monkeypatch.setattr(dense_engines, "absent", lambda: ("ctranslate2", "onnxruntime"))
    assert dense_engines.runtimes_here(CALL) == ()
    assert dense_engines.dense_on_engines(Path(), None, None, CALL, guard=nullcontext) == Engines(
        absent=dense_engines.absent()
    )
    job = alone.Job(
        folder="x", asked=CALL, runtime="ctranslate2", rows=(), beams=1, max_new_tokens=8, limit_s=1.0
    )  # fmt: skip
    (line,) = dense_engines._taken(job, 1.0)
    assert line.latency is None and "signal 4" in line.reason and not line.refused
    monkeypatch.setattr(fresh_process, "run_job", lambda job, limit_s: None)
    assert dense_engines._taken(job, 1.0)[0].reason == "not done within 1 s"


def test_what_is_known_from_before_is_used_until_the_dense_model_drifts(tmp_path: Path) -> None:
    known = tmp_path / "known.json"
    assert dense_engines.remembered(known, 100.0) is None
    known.write_text(Engines(tried=(engine(0.2, 1.0),)).model_dump_json())
    found = dense_engines.remembered(known, 101.0)
    assert found is not None and found.remembered and math.isclose(found.tried[0].latency.ratio, 0.2)
    assert dense_engines.remembered(known, 130.0) is None
    known.write_text("{")
    assert dense_engines.remembered(known, 100.0) is None


@pytest.mark.slow
def test_the_shipped_teacher_on_every_engine_installed(tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    pytest.importorskip("onnxruntime")
    stages = []
    evaluator = NashEvaluator(SearchConfig())
    asked = (100.0, tmp_path, lambda *stage: stages.append(stage))
    found = evaluator.dense_on_engines(*asked)
    by_name = {(e.workload.runtime, e.workload.quantize): e for e in found.tried if e.workload.dtype == "float32"}
    assert set(by_name) == {(name, q) for name in ("ctranslate2", "onnxruntime") for q in ("none", "int8")}
    assert found.reference.n == 256 and found.whole, [e.reason for e in found.tried]
    for (_, quantize), one in by_name.items():
        assert one.latency.runs_ms and one.latency.dense_ms > 0
        assert one.quality.n == 256 and one.kept > (0.97 if quantize == "int8" else 0.9999)
    dense_ms = by_name["ctranslate2", "none"].latency.dense_ms
    again = evaluator.dense_on_engines(dense_ms, *asked[1:])
    assert len(stages) == 1 or not again.remembered, "known from the time before, unless the machine drifted"
