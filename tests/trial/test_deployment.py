"""A quantised engine passes for its float twin only while it keeps the quality; "kept" is of the float model."""

from __future__ import annotations

import json

import pytest
import torch

from nash_search import cli, pruner
from nash_search.config import LatencyBudget, Workload
from nash_search.config_loader import load_config
from nash_search.errors import InvalidInput, NashSearchWarning
from nash_search.fidelity import Fidelity
from nash_search.latency_record import Latency, Round
from nash_search.records import Quality
from nash_search.report import words
from nash_search.results import CertifiedPoint
from nash_search.search import summary
from nash_search.tasks import models
from nash_search.tasks.g2p import teacher_folder
from nash_search.trial.deployment import FEWEST
from nash_search.trial.nash_evaluator import NashEvaluator
from tests.synthetic_evaluator import SyntheticEvaluator

INT8 = {"workload.runtime": "ctranslate2", "workload.quantize": "int8"}


def quality(value, direction="maximize"):
    return Quality(metric="m", value=value, standard_error=1.0, n=200, split="validation", direction=direction)


def fidelity(served, twin, direction="maximize"):
    return Fidelity(served=quality(served, direction), twin=quality(twin, direction))


@pytest.mark.parametrize(
    ("served", "twin", "direction", "share", "holds"),
    [
        (34.0, 34.0, "maximize", 1.0, True),
        (97.0, 100.0, "maximize", 0.97, True),
        (96.9, 100.0, "maximize", 0.969, False),
        (3.15, 34.95, "maximize", 3.15 / 34.95, False),
        (35.17, 34.95, "maximize", 35.17 / 34.95, True),
        (10.2, 10.0, "minimize", 0.98, True),  # an error rate grown by a fiftieth
        (10.4, 10.0, "minimize", 0.96, False),
        (0.0, 0.0, "maximize", 1.0, True),
        (0.1, 0.0, "minimize", -float("inf"), False),
    ],
)
def test_the_share_kept_is_relative_to_the_float_twin_in_either_direction(served, twin, direction, share, holds):
    found = fidelity(served, twin, direction)
    assert found.share == pytest.approx(share) and found.holds is holds
    json.dumps(summary.fidelity_row(found).to_json(), allow_nan=False)


def test_a_point_that_lost_its_quality_meets_no_budget_and_the_next_best_does(rehearse, notebook, monkeypatch):
    refused = []

    def of(self, folders):
        ruined = max(folders, key=lambda name: self._quality(self._loaded(folders[name]), "validation", 0).value)
        refused.append(ruined)
        return {name: fidelity(10.0 if name == ruined else 99.0, 100.0) for name in folders}

    monkeypatch.setattr(SyntheticEvaluator, "fidelity", of)
    result = rehearse()
    [said] = [detail for stage, detail in notebook.stages if stage == "fidelity"]
    told = words.fidelity_words(said)
    assert "10 of float32's 100 (10.0%) on 200 examples; 1 refused: an answer must keep 97%" in told
    ruined = [p for p in result.front if p.key == refused[0]]
    assert [p.verdict(LatencyBudget.parse("100%")) for p in ruined] == ["missed"] and not ruined[0].sound
    assert result.best_under("100%") is not None and result.best_under("100%").key != refused[0]
    told = {row["number"]: row["fidelity"] for row in result.full_document["front"]}
    assert told[ruined[0].number] == {
        "quality": 10.0, "float_quality": 100.0, "metric": "m", "share": pytest.approx(0.1), "examples": 200,
        "holds": False,
    }  # fmt: skip


def test_certifications_of_before_still_load():
    latency = Latency(
        rounds=(Round(runs_ms=(1.0,), dense_runs_ms=(2.0,)),), workload=Workload(input_tokens=1, output_tokens=1)
    )
    point = {
        "number": 1, "key": "k", "architecture": {"encoder_sparsity_pct": 0, "decoder_layers": 1}, "checkpoint": "c",
        "latency": latency.model_dump(), "same_tokens": True, "validation": quality(3.0).model_dump(),
    }  # fmt: skip
    assert CertifiedPoint.model_validate(point).sound


@pytest.fixture(scope="module")
def ruined(tmp_path_factory):
    """The shipped teacher, the same function in float32, with activations that 8 bits cannot hold."""
    folder = tmp_path_factory.mktemp("ruined") / "teacher"
    model = pruner.load(teacher_folder())
    with torch.no_grad():
        for block in [*model.encoder.block, *model.decoder.block]:
            own, ffn = block.layer[0], block.layer[-1]
            wide = [own.SelfAttention.q, own.SelfAttention.k, own.SelfAttention.v]
            dense = ffn.DenseReluDense
            fed = [dense.wi_0, dense.wi_1] if hasattr(dense, "wi_0") else [dense.wi]
            for norm, linears in ((own.layer_norm, wide), (ffn.layer_norm, fed)):
                norm.weight[0] *= 2.0**14  # powers of two: not one bit of float32 changes
                for linear in linears:
                    linear.weight[:, 0] /= 2.0**14
    pruner.save(model, folder, tokenizer=models.load_tokenizer(models.vet(teacher_folder())))
    return folder


def bench_of(**changes):
    return NashEvaluator(load_config("smoke", changes | INT8))


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime"])
def test_a_dense_model_that_int8_ruins_is_refused_before_anything_is_spent(ruined, runtime, tmp_path):
    pytest.importorskip(runtime)
    asked = {"model": str(ruined)}
    evaluator = NashEvaluator(load_config("smoke", asked | INT8 | {"workload.runtime": runtime}))
    rule = rf"{runtime} float32 quantize=int8, 1 beams, must keep 97% of the quality of float32, but got .* on 200 ex"
    with pytest.raises(InvalidInput, match=rule):
        evaluator.dense_quality()
    float32 = NashEvaluator(load_config("smoke", asked | {"workload.runtime": runtime})).dense_quality()
    given = NashEvaluator(load_config("smoke", {"workload.runtime": runtime})).dense_quality()
    assert float32.value == given.value > 80, "without int8 it is the very same model"


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory):
    """The shipped teacher, the same function in float32, whose feed-forward activations float16 cannot hold."""
    folder = tmp_path_factory.mktemp("overflowing") / "teacher"
    model = pruner.load(teacher_folder())
    with torch.no_grad():
        for block in model.encoder.block:
            norm, dense = block.layer[-1].layer_norm, block.layer[-1].DenseReluDense
            norm.weight *= 2.0**12  # powers of two: not one bit of float32 changes
            if hasattr(dense, "wi_0"):
                dense.wi_0.weight /= 2.0**12
            linear = dense.wi_1 if hasattr(dense, "wi_1") else dense.wi
            linear.weight *= 2.0**10
            dense.wo.weight /= 2.0**22
    pruner.save(model, folder, tokenizer=models.load_tokenizer(models.vet(teacher_folder())))
    return folder


@pytest.mark.slow
def test_a_dense_model_that_float16_ruins_is_refused_before_anything_is_spent(overflowing):
    evaluators = {
        dtype: NashEvaluator(load_config("smoke", {"model": str(overflowing), "workload.dtype": dtype}))
        for dtype in ("float32", "bfloat16", "float16")
    }
    rule = r"eager float16 quantize=none, 1 beams, must keep 97% .* but got 100-PER .*--dtype\): use bfloat16"
    with pytest.raises(InvalidInput, match=rule):
        evaluators["float16"].dense_quality()
    given = NashEvaluator(load_config("smoke", {})).dense_quality()
    assert evaluators["float32"].dense_quality().value == given.value > 80
    assert evaluators["bfloat16"].dense_quality().value == pytest.approx(given.value, abs=3)


@pytest.mark.slow
def test_half_precision_that_may_have_lost_by_chance_is_said_and_a_clear_loss_is_refused():
    deployment = NashEvaluator(load_config("smoke", {"workload.dtype": "bfloat16"}))._deployment
    with pytest.warns(NashSearchWarning, match="but got m 19 of float32's 20 .* that may be chance"):
        deployment.check(fidelity(19.0, 20.0))
    with pytest.raises(InvalidInput, match="eager bfloat16 .* must keep 97% .* use float32"):
        deployment.check(fidelity(10.0, 20.0))
    deployment.check(fidelity(19.9, 20.0))


@pytest.mark.slow
def test_the_dense_quality_is_the_float_models_and_int8_is_a_point_of_its_own():
    pytest.importorskip("ctranslate2")
    evaluator = bench_of()
    found = evaluator._deployment.fidelity(evaluator.teacher, evaluator._dense_served)
    assert found.n == FEWEST == 200 and found.holds, "48 validation examples are filled up from train"
    assert "quantize=int8" in found.served.signature and "quantize" not in found.twin.signature
    plain = NashEvaluator(load_config("smoke", {}))
    assert evaluator.dense_quality() == plain.dense_quality()
    assert "quantize" not in evaluator.test_quality({"dense": evaluator.dense_folder()})["dense"].signature


MEASURED = ["--runtime", "ctranslate2", "--quantize", "int8", "--input-tokens", "5", "--output-tokens", "4"]


@pytest.mark.slow
def test_measure_refuses_a_model_that_int8_ruins(ruined, capsys):
    pytest.importorskip("ctranslate2")
    assert cli.main(["measure", str(ruined), *MEASURED, "--task", "g2p"]) == 2
    assert "must keep 97% of the quality of float32" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("warm_python")
def test_measure_speaks_of_the_quality_where_data_are_known(capsys):
    pytest.importorskip("ctranslate2")
    asked = [str(teacher_folder()), *MEASURED, "--rounds", "2", "--pairs", "3", "--json"]
    assert cli.main(["measure", *asked, "--task", "g2p"]) == 0
    told = capsys.readouterr()
    kept = json.loads(told.out.splitlines()[-1])["fidelity"]
    assert kept["holds"] and kept["examples"] >= 200 and "of float32's" in told.err
    assert cli.main(["measure", *asked]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out.splitlines()[-1])["fidelity"] is None and "name the data with --data" in told.err
