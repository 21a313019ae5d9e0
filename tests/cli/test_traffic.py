"""The flags that ask for a percentile, together and alone; and a checkpoint timed on a log of requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nash_search.cli import main
from nash_search.config_loader import load_config
from nash_search.errors import InvalidInput
from nash_search.percentiles import PAIRS, REQUESTS
from nash_search.tasks.g2p import teacher_folder
from nash_search.tasks.preflight import check_traffic
from nash_search.trial.cost import certified_pairs


def flags(budgets: list[str], percentile: str | None, traffic: str | None) -> dict[str, Any]:
    return {"budgets": budgets or None, "workload.percentile": percentile, "workload.traffic": traffic}


@pytest.mark.parametrize(
    ("budgets", "percentile", "traffic", "expected"),
    [
        ([], None, None, ([], 50, "fixed", PAIRS)),
        (["40"], None, None, (["40"], 50, "fixed", PAIRS)),
        (["40"], "95", None, (["40@p95"], 95, "data", REQUESTS)),
        (["50%@p99"], "95", "log.jsonl", (["50%@p99"], 95, "log.jsonl", 78)),
        (["50%@p99", "40"], None, None, (["50%@p99", "40"], 99, "data", 78)),
        ([], "p95", None, ([], 95, "data", REQUESTS)),
        ([], None, "data", ([], 50, "data", REQUESTS)),
        (["40", "60@p99"], "95", None, (["40@p95", "60@p99"], 95, "data", 78)),
        (["40", "60@p99"], None, None, (["40", "60@p99"], 50, "data", 78)),
        (["40@p50"], None, None, (["40@p50"], 50, "data", REQUESTS)),
    ],
)
def test_a_percentile_needs_a_traffic_which_is_the_data_s_unless_another_is_named(
    budgets: list[str], percentile: str | None, traffic: str | None, expected: tuple[object, ...]
) -> None:
    found = load_config(None, flags(budgets, percentile, traffic))
    assert ([b.asked for b in found.budgets], found.percentile, found.traffic, certified_pairs(found)) == expected
    assert type(found).stored(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("budgets", "percentile", "traffic", "words"),
    [
        (["40@p95"], None, "fixed", "traffic must be data or a file where p95 is asked, but got fixed (--traffic)"),
        ([], "100", None, "percentile must be from 50 to 99.5, but got '100' (--percentile)"),
        (["40@px"], None, None, "(--budget-ms)"),
        (["40", "30@p99"], None, "fixed", "traffic must be data or a file where p99 is asked, but got fixed"),
        (["40", "40@p95"], "95", None, "budgets must differ, but got 40@p95, 40@p95"),
    ],
)
def test_what_does_not_go_together_is_refused(
    budgets: list[str], percentile: str | None, traffic: str | None, words: str
) -> None:
    with pytest.raises(InvalidInput) as error:
        check_traffic(load_config(None, flags(budgets, percentile, traffic)))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            ["--runtime", "compile"],
            "runtime must take any length where requests are timed as they come, but got comp",
        ),
        (["--output-tokens", "9"], "output_tokens must be left out where requests have their own lengths, but got 9"),
        (["--traffic", "none.jsonl"], "traffic must be data, fixed or a JSONL file, but got No such file or directory"),
    ],
)
@pytest.mark.parametrize("command", [[], ["probe"]], ids=["search", "probe"])
def test_a_search_refuses_by_name_what_cannot_be_timed_on_requests(
    command: list[str], given: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--budget-ms", "50%@p95", "--results", str(tmp_path), "--batch-size", "1", *given]) == 2
    assert words in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_traffic_file_is_checked_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"input_tokens": 4, "output_tokens": 6}\n' * 76)
    asked = ["measure", str(teacher_folder()), "--batch-size", "1", "--traffic", str(log)]

    def said(*more: str) -> str:
        assert main([*asked, *more]) == 2
        told = capsys.readouterr()
        assert not told.out
        return told.err

    words = "nash-search: error: p95 needs at least 77 requests, but got 76"
    assert said("--percentile", "95").startswith(words)
    assert "input_tokens must be left out where requests have their own lengths, but got 9" in said(
        "--input-tokens", "9"
    )
    few = ("--percentile", "90", "--rounds", "2", "--pairs", "3")
    assert "p90 needs at least 38 requests, but got 2 rounds of 3 (--pairs): give --pairs 19" in said(*few)
    log.write_text('{"input_tokens": 4, "output_tokens": 60000}\n')
    assert "output_tokens must be from 1 to 16384, but got 60000" in said()


@pytest.mark.slow
def test_a_checkpoint_is_timed_on_a_log_of_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.jsonl"
    rows = [{"input_tokens": 3 + i % 5, "output_tokens": 2 + i % 20} for i in range(100)]
    log.write_text("\n".join(map(json.dumps, rows)))
    asked = ["measure", str(teacher_folder()), "--against", str(teacher_folder()), "--batch-size", "3", "--json"]
    timed = ["--rounds", "2", "--pairs", "39", "--results", str(tmp_path)]
    assert main([*asked, *timed, "--traffic", str(log), "--budget-ms", "0.01@p95", "--budget-ms", "0.01"]) == 3
    told = capsys.readouterr()
    found = json.loads(told.out.strip().splitlines()[-1])
    assert len(found["runs_ms"]) == len(found["dense_runs_ms"]) == 78 and found["percentile"] == 95
    assert found["latency_ms"] == found["percentiles"]["95"]["latency_ms"] > found["percentiles"]["50"]["latency_ms"]
    assert found["percentiles"]["99"] is None and "p99  needs at least 390 batches, but got 78" in told.err
    assert found["workload"]["traffic"]["of"] == 100 and "a batch of 3 of 100 requests of" in told.err
    assert found["lower_ms"] < found["latency_ms"] < found["upper_ms"]
    assert found["verdicts"] == {"0.01@p95": "missed", "0.01": "missed"} and found["verdict"] is None
