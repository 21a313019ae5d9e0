"""What a checkpoint outside a search is timed on, and a front timed again on another machine."""

from __future__ import annotations

import json
import shutil
from itertools import product
from pathlib import Path

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from nash_search import cli, latency
from nash_search.config import LatencyBudget, TaskConfig, Workload
from nash_search.config_loader import load_config
from nash_search.errors import InvalidInput
from nash_search.latency.fresh_process import MeasurementFailed
from nash_search.latency.runtimes import parity
from nash_search.latency_record import Latency, Round
from nash_search.latency_table import LatencyTable, ProbeEntry
from nash_search.search import probe, remeasure
from nash_search.search.pick import pick
from nash_search.tasks import models
from nash_search.tasks.g2p import teacher_folder
from nash_search.tasks.load import load_task
from nash_search.traffic import Request, Traffic


def asked(path, **overrides):
    found, source = remeasure.workload_of(path, load_config(None, overrides))
    return (found.batch_size, found.input_tokens, found.output_tokens, found.beams), source


def test_a_folder_nothing_is_known_of_is_timed_on_assumed_lengths_and_says_so(tmp_path):
    (tmp_path / "generation_config.json").write_text(json.dumps({"num_beams": 4}))
    shape, source = asked(tmp_path)
    assert shape == (1, remeasure.ASSUMED_INPUT_TOKENS, remeasure.ASSUMED_OUTPUT_TOKENS, 4)
    assert source.startswith("assumed; --data")
    assert asked(tmp_path, **{"workload.input_tokens": 7, "workload.beams": 1})[0] == (1, 7, 32, 1)
    assert asked(tmp_path, **{"workload.input_tokens": 7})[1].startswith("one as given, the other assumed")
    assert asked(tmp_path, **{"workload.input_tokens": 7, "workload.output_tokens": 3})[1] == "as given"


def test_named_data_give_their_median_lengths(tmp_path):
    words = ["".join(letters) for letters in product("abcd", repeat=4)]
    rows = [{"source": word * (1 + i % 3), "target": "K AE T"} for i, word in enumerate(words)]
    data = tmp_path / "words.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows))
    task = load_task(TaskConfig(data=str(data), name="words"), models.load_tokenizer(models.vet(teacher_folder())))
    shape, source = asked(teacher_folder(), **{"task.data": str(data)})
    assert shape == (1, task.input_tokens, task.output_tokens, 1) and source == f"medians of {data}"
    assert 8 <= task.input_tokens <= 10 and shape[1:3] != (
        remeasure.ASSUMED_INPUT_TOKENS,
        remeasure.ASSUMED_OUTPUT_TOKENS,
    )
    with pytest.raises(InvalidInput, match="none.jsonl"):
        asked(teacher_folder(), **{"task.data": str(tmp_path / "none.jsonl")})


def test_an_export_is_timed_as_it_was_certified_unless_a_flag_says_otherwise(tmp_path):
    recorded = Workload(batch_size=9, input_tokens=5, output_tokens=4, beams=3)
    record = {"workload": recorded.model_dump(mode="json"), "teacher": "t"}
    (tmp_path / remeasure.MEASUREMENT).write_text(json.dumps(record))
    assert asked(tmp_path) == ((9, 5, 4, 3), "as it was certified")
    assert asked(tmp_path, **{"workload.batch_size": 2}) == ((2, 5, 4, 3), "as it was certified")


def test_a_folder_that_is_only_timed_needs_no_tokenizer_but_whole_weights(tmp_path):
    shutil.copytree(teacher_folder(), tmp_path / "a")
    for name in models.TOKENIZER_FILES:
        (tmp_path / "a" / name).unlink(missing_ok=True)
    models.vet_timed(tmp_path / "a")
    with pytest.raises(InvalidInput, match="must hold a tokenizer"):
        models.vet(tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    for model_type, is_encoder_decoder, refused in (("fsmt", True, False), ("gpt2", False, True)):
        changed = config | {"model_type": model_type, "is_encoder_decoder": is_encoder_decoder}
        (tmp_path / "a" / "config.json").write_text(json.dumps(changed))
        if refused:
            with pytest.raises(InvalidInput, match="which is no encoder-decoder"):
                models.vet_timed(tmp_path / "a")
        else:
            models.vet_timed(tmp_path / "a")


@pytest.mark.parametrize("same", [True, False])
def test_a_front_timed_on_another_machine_is_never_shown_as_if_on_one(rehearse, monkeypatch, capsys, same):
    """The fingerprint is forged; picture, document and terminal must say that there are two."""
    folder = rehearse(trials=4).folder
    now = {"device": "rehearsal", "hash": "rehearsal"} if same else {"device": "another CPU", "hash": "0f0f0f0f0f"}
    drawn = []

    def measure_fresh(folders, dense, workload, **settings):
        rounds = tuple(Round(runs_ms=(5.0, x), dense_runs_ms=(10.0, 10.0)) for x in (5.0, 5.1))
        return dict.fromkeys(folders, Latency(rounds=rounds, workload=workload, fingerprint=now, fresh=True))

    monkeypatch.setattr(remeasure.latency, "measure_fresh", measure_fresh)
    (folder / "rehearsal").mkdir()  # where its dense model would lie
    from nash_search.report import remeasured

    draw = remeasured.draw
    monkeypatch.setattr(remeasured, "draw", lambda found: drawn.append(draw(found)) or drawn[0])
    assert cli.main(["remeasure", str(folder), "--json"]) == 0
    told = capsys.readouterr()
    document = json.loads(told.out.splitlines()[-1])
    assert document["same_fingerprint"] is same
    words = "same device and software" if same else "two different fingerprints"
    assert words in told.err
    assert any(words in text.get_text() for text in drawn[0].texts)
    stored = json.loads((folder / f"remeasured-{now['hash'][:8]}.json").read_text())
    assert stored["before"]["fingerprint"]["device"] == "rehearsal" and stored["fingerprint"] == now
    if not same:
        assert "what changed: device rehearsal -> another CPU" in told.err


def test_the_dense_interval_of_a_probe_counts_a_shared_call_once():
    shapes = probe.shapes_to_probe(load_config("smoke", {}).search_space.model_copy(update={"decoder_layers": (1, 2)}))
    groups = [tuple(10.0 + g + 0.01 * i for i in range(10)) for g in (0, 1)]

    def table(copies):
        made = [
            Latency(
                rounds=(Round(runs_ms=dense, dense_runs_ms=dense),), workload=Workload(input_tokens=1, output_tokens=1)
            )
            for dense in groups
            for _ in range(copies)
        ]
        return LatencyTable(entries=tuple(ProbeEntry(architecture=shapes[0], latency=latency) for latency in made))

    lower, upper = table(4).dense_bounds_ms()
    assert (lower, upper) == table(1).dense_bounds_ms()
    assert lower < table(4).dense_ms < upper and upper / lower > 1.07  # a round effect of 2 % at least


def test_the_dense_model_is_found_though_the_study_has_moved(tmp_path):
    study, named = tmp_path / "moved", tmp_path / "named"
    (study / "teacher").mkdir(parents=True)
    named.mkdir()
    assert remeasure.dense_of(str(named), study) == named
    assert remeasure.dense_of("/gone/teacher", study) == study / "teacher"
    assert remeasure.dense_of(f"/gone/{teacher_folder().name}", study) == teacher_folder()
    with pytest.raises(InvalidInput, match="got nothing at '/gone/model' .*give --against DENSE"):
        remeasure.dense_of("/gone/model", study)


def test_an_export_may_lie_at_the_root_of_a_file_system(monkeypatch):
    monkeypatch.setattr(remeasure, "measurement_of", lambda path: {"teacher": "/gone/model", "workload": {}})
    with pytest.raises(InvalidInput, match="give --against DENSE"):
        remeasure.measure_folder(Path("/"), None, Workload(input_tokens=1, output_tokens=1), rounds=2, pairs=3)


def test_a_share_needs_something_to_be_a_share_of(tmp_path):
    workload = Workload(input_tokens=1, output_tokens=1)
    with pytest.raises(InvalidInput, match="milliseconds where there is no dense reference, but got 50%"):
        remeasure.measure_folder(tmp_path, None, workload, budgets=[LatencyBudget.parse("50%")], rounds=2, pairs=3)


def test_a_front_is_certified_again_only_where_the_study_was_timed(rehearse, monkeypatch):
    from tests.synthetic_evaluator import SyntheticEvaluator

    folder = rehearse(trials=4).folder
    half = LatencyBudget.parse("50%")
    before = (folder / "certification.json").read_bytes()
    timed = SyntheticEvaluator.time_fresh
    with monkeypatch.context() as patched:
        patched.setattr(
            SyntheticEvaluator, "time_fresh", lambda self, *a, **given: timed(self, *a, **given | {"rounds": 1})
        )
        with pytest.raises(MeasurementFailed, match="timed twice within"):
            pick(folder, half, certify=True)
    with monkeypatch.context() as patched:
        patched.setattr(SyntheticEvaluator, "fingerprint", lambda self: {"hash": "elsewhere"})
        with pytest.raises(InvalidInput, match="nash-search remeasure .*s times it here"):
            pick(folder, half, certify=True)
    assert (folder / "certification.json").read_bytes() == before
    assert pick(folder, half, certify=True).budgets[0].verdict == "met"


@pytest.mark.slow
@pytest.mark.usefixtures("warm_python")
@pytest.mark.parametrize("runtime", ["ctranslate2", "onnxruntime"])
def test_an_engine_s_checkpoint_is_converted_once_and_not_in_every_process(tmp_path, monkeypatch, runtime):
    pytest.importorskip(runtime)
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": 2, "vocab_size": 40}
    T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0)).save_pretrained(tmp_path)
    compared, agreed, timed = [], parity.agreed, latency.measure_fresh

    def counted(*args, **named):
        compared.append(args)
        return agreed(*args, **named)

    def fresh(folders, dense, workload, **named):
        assert dense is None and all(
            (Path(folder) / runtime / "artefact.json").is_file() for folder in folders.values()
        )
        return timed(folders, dense, workload, **named)

    monkeypatch.setattr(parity, "agreed", counted)
    monkeypatch.setattr(latency, "measure_fresh", fresh)
    workload = Workload(input_tokens=5, output_tokens=4, runtime=runtime, quantize="int8")
    found = remeasure.measure_folder(tmp_path, None, workload, rounds=2, pairs=3)
    assert len(found.rounds) == 2 and found.fresh and len(compared) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "generation_config.json", "model.safetensors"]


def test_an_export_certified_on_requests_is_timed_on_its_own_unless_another_call_is_named(tmp_path):
    own = Traffic.counted({Request(3, 4): 90, Request(9, 8): 10}, "train split of mine")
    call = Workload(input_tokens=3, output_tokens=4, traffic=own)
    record = {"workload": call.model_dump(mode="json"), "teacher": "x", "percentile": 95.0}
    (tmp_path / "measurement.json").write_text(json.dumps(record))
    found = remeasure.as_certified(tmp_path, load_config(None))
    assert found.of_requests and found.percentile == 95 and remeasure.traffic_of_data(tmp_path, found) == own
    named = load_config(None, {"workload.percentile": "99"})
    assert remeasure.as_certified(tmp_path, named) == named and remeasure.traffic_of_data(tmp_path, named) == own
    for name, value in (("traffic", "fixed"), ("output_tokens", "7")):
        kept = load_config(None, {f"workload.{name}": value})
        assert remeasure.as_certified(tmp_path, kept) == kept
        assert remeasure.workload_of(tmp_path, kept)[0].traffic is None
