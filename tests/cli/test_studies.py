"""Commands on finished studies: pick, report, resume, recover, dashboard."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from nash_search.cli import main
from nash_search.config_loader import load_config
from nash_search.search import search
from tests import synthetic_evaluator
from tests.patience import NEVER_S

RESULTS = Path(__file__).parents[2] / "results"


def test_a_committed_study_answers_and_reports(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(RESULTS / "g2p", tmp_path / "g2p")
    assert main(["pick", str(tmp_path / "g2p"), "--budget-ms", "60%"]) == 2
    assert "exports are gone" in capsys.readouterr().err
    for point in json.loads((tmp_path / "g2p" / "certification.json").read_text())["points"]:
        (tmp_path / "g2p" / point["checkpoint"]).mkdir(parents=True)  # weights are not committed
    monkeypatch.chdir(tmp_path)
    assert main(["pick", "g2p", "--results", ".", "--budget-ms", "60%", "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out.splitlines()[-1])
    [found] = document["budgets"]
    assert found["asked"] == "60%" and found["verdict"] == "met" and found["upper_ms"] <= found["budget_ms"]
    assert f"{found['speedup']:.2f}× faster" in err and found["checkpoint"] in err
    assert main(["pick", "g2p", "--results", ".", "--budget-ms", "10%", "--quiet"]) == 3
    assert capsys.readouterr() == ("", "")
    assert main(["report", "g2p", "--results", ".", "--json", "--quiet"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert {Path(f).name for f in json.loads(line)["files"]} >= {"report.html", "report.md", "front.png", "front.svg"}


@pytest.fixture
def rehearsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished study of the analytic evaluator, made from Python: no command, no pictures, no artifacts."""
    synthetic_evaluator.answer_here(monkeypatch)
    config = load_config("smoke", {"budgets": ["50%"], "trials": "3", "serial": True, "study": "s"})
    task = config.task.model_copy(update={"name": "rehearsal"})
    space = config.search_space.model_copy(update={"decoder_layers": (1, 2, 3, 4)})
    search(config.model_copy(update={"task": task, "search_space": space}), results=tmp_path)
    return tmp_path / "s"


@pytest.mark.slow
def test_a_study_is_resumed_recovered_and_resumed(rehearsed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = ["--results", str(rehearsed.parent)]
    assert main(["resume", "s", *results, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["budgets"][0]["verdict"] == "met"
    assert "http://127.0.0.1:" in err and "done in about" in err and "Load it" in err
    records = len(list((rehearsed / "trials").glob("*/record.json")))
    assert len(list((rehearsed / "artifacts").iterdir())) >= 2 * (records - 1), "a curve and a card each"
    summary = json.loads((rehearsed / "summary.json").read_text())
    assert summary["command"] == f"nash-search resume s --results {rehearsed.parent} --json"
    assert "nash-search resume s" in re.sub("</?span>", "", (rehearsed / "report.html").read_text())
    (rehearsed / "study.db").write_bytes(b"damaged")
    assert main(["resume", "s", *results, "--quiet"]) == 5
    assert main(["recover", "s", *results, "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out) == {"study": "s", "trials": records}
    assert main(["resume", "s", *results, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_the_dashboard_command_serves_until_interrupted(rehearsed: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["dashboard", "s", "--results", str(rehearsed.parent), "--port", str(port), "--json"]
    command = [sys.executable, "-m", "nash_search", *words]
    heard = partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # also where tests run behind a script, which ignores it
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=heard) as running:
        try:
            assert running.stdout is not None
            told = json.loads(running.stdout.readline())
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            with opener.open(told["url"], timeout=NEVER_S) as page:
                assert page.status == 200 and "token" not in page.url and told["study"] == "s"
        finally:
            running.send_signal(signal.SIGINT)
            try:
                assert running.wait(NEVER_S) == 0
            finally:
                running.kill()
