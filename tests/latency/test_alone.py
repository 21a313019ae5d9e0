"""The dense model on another runtime in a process of its own: what it hands back, whatever goes wrong in it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from nash_search.config import Workload
from nash_search.latency import alone, fresh_process
from nash_search.latency.runtimes import parity
from nash_search.latency.runtimes.eager import RUNTIME as EAGER
from tests.patience import NEVER_S, stretched

pytest.importorskip("ctranslate2")
CALL = Workload(input_tokens=5, output_tokens=4, batch_size=2)
ROWS = ((5, 6, 1), (7, 8, 9, 1), (4, 1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": 2, "vocab_size": 40}
    T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0)).save_pretrained(tmp_path / "dense")
    return tmp_path / "dense"


def job(folder: Path, **changes) -> alone.Job:
    asked = {"folder": str(folder), "asked": CALL, "runtime": "ctranslate2", "rows": ROWS, "beams": 1}
    return alone.Job.model_validate(asked | {"max_new_tokens": 6, "limit_s": NEVER_S} | changes)


@pytest.mark.slow
def test_every_precision_is_timed_beside_the_asked_runtime_and_writes(folder: Path) -> None:
    result = fresh_process.run_job(job(folder).model_dump(mode="json"), 120)
    taken = {t.workload.quantize: t for t in map(alone.Taken.model_validate, result["taken"])}
    assert {"none", "int8"} <= set(taken)
    for one in taken.values():
        assert one.reason == "" and len(one.latency.runs_ms) and len(one.tokens) == len(ROWS)
        assert one.latency.workload == one.workload and not one.latency.fresh
    plain = EAGER.load(str(folder), CALL)
    own = EAGER.tokens(plain, ROWS, beams=1, max_new_tokens=6)

    def ended(row):
        return list(row[: row.index(1) + 1] if 1 in row else row)

    assert [ended(list(row)) for row in taken["none"].tokens] == [ended(row) for row in own]


@pytest.mark.parametrize(
    ("runtime", "asked"),
    [
        ("ctranslate2", "eager"),
        *(
            pytest.param(*both, marks=pytest.mark.slow)
            for both in (("ctranslate2", "ctranslate2"), ("onnxruntime", "eager"))
        ),
    ],
)
def test_an_engine_is_compared_once_whatever_precisions_follow(folder: Path, monkeypatch, runtime, asked) -> None:
    pytest.importorskip(runtime)
    compared, agreed = [], parity.agreed

    def counted(*args, **named):
        compared.append(agreed(*args, **named))
        return compared[-1]

    monkeypatch.setattr(parity, "agreed", counted)
    call = CALL.model_copy(update={"runtime": asked})
    found = alone.take(job(folder, runtime=runtime, asked=call), time.monotonic(), lambda lines: None)
    assert len(found) >= (2 if asked == "eager" else 1)
    assert all(one.latency is not None and one.tokens is not None for one in found), [one.reason for one in found]
    assert len(compared) == 1 and compared[0]["inputs"] == 64


def test_a_model_the_engine_cannot_say_is_refused_with_its_reason(folder: Path) -> None:
    told = []
    asked = job(folder, generation={"encoder_no_repeat_ngram_size": 2})
    found = alone.take(asked, time.monotonic(), lambda lines: told.append([line.reason for line in lines]))
    assert found and all(one.refused and "encoder_no_repeat_ngram_size" in one.reason for one in found)
    assert set(told[0]) == {alone.UNFINISHED}, "said of each before it is tried, should the process die in it"
    assert told[-1][:-1] == [one.reason for one in found[:-1]]


def test_time_that_is_over_is_said(folder: Path) -> None:
    found = alone.take(job(folder, limit_s=0.0), time.monotonic(), lambda lines: None)
    assert {(one.reason, one.refused) for one in found} == {("not reached in time", False)}


def test_a_runtime_without_the_device_says_so(folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    gpu = CALL.model_copy(update={"device": "cuda:0"})
    (one,) = alone.take(job(folder, runtime="onnxruntime", asked=gpu), time.monotonic(), lambda lines: None)
    assert one.reason == "it has nothing for cuda:0" and one.refused


def test_what_was_kept_before_the_limit_is_not_lost(tmp_path: Path) -> None:
    program = "import pathlib, sys, time; pathlib.Path(sys.argv[2]).write_text('{\"taken\": []}'); time.sleep(600)"
    assert fresh_process.run_job({}, stretched(2.0), entry=("-c", program)) == {"taken": []}
    assert fresh_process.run_job({}, 0.5, entry=("-c", "import time; time.sleep(600)")) is None


def test_rows_are_written_in_order_or_not_at_all() -> None:
    rows = [[i] * (i % 7 + 1) for i in range(70)]
    sizes = []

    def write(batch):
        sizes.append(len(batch))
        return [[row[0], 9] for row in batch]

    assert alone.written(write, rows, time.monotonic() + NEVER_S) == [[i, 9] for i in range(70)]
    assert max(sizes) == alone.ROWS_AT_ONCE
    assert alone.written(write, rows, time.monotonic() - 1) is None
