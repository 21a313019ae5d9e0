"""The command line: nothing heavy is imported before input is checked; one line, one exit code."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import typer.main

from nash_search.cli import app, main, one_line
from nash_search.config import LatencyBudget, SearchConfig
from nash_search.config_loader import load_config
from nash_search.errors import Unfinished
from nash_search.search import search


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in app.registered_commands:
        assert command.name is not None
        assert f"  {command.name} " in shown
    assert "--budget-ms" in shown


def test_every_command_has_json() -> None:
    group = typer.main.get_command(app)
    for name, command in {"": group, **group.commands}.items():  # type: ignore[attr-defined]
        assert "--json" in {o for p in command.params for o in p.opts}, name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_flags(shell: str) -> None:
    def completed(words: str) -> str:
        told = {"_NASH_SEARCH_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": words}
        told |= {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        command = [sys.executable, "-m", "nash_search"]
        return subprocess.run(command, env=os.environ | told, capture_output=True, text=True, check=False).stdout

    assert {"report", "resume", "recover"} <= set(re.findall(r"[a-z]+", completed("nash-search re")))
    assert "budget-ms" in completed("nash-search pick x --bud")


def test_help_of_every_command_loads_no_torch() -> None:
    program = (
        "import sys\nfrom nash_search.cli import app, main\n"
        "codes = [main([c.name, '--help']) for c in app.registered_commands] + [main(['--help'])]\n"
        "print(codes, [m for m in ('torch', 'ray', 'transformers', 'optuna') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    last = found.stdout.strip().splitlines()[-1]
    assert last == f"{[0] * (len(app.registered_commands) + 1)} []"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "budget must be given at least once"),
        (["--budget-ms", "0"], "greater than 0"),
        (["--budget-ms", "40s"], "milliseconds (40) or a share"),
        (["--budget-ms", "120%"], "at most 100%"),
        (["--budget-ms", "50%", "--trials", "abc"], "trials must be a whole number, but got 'abc'"),
        (["--budgt-ms", "50%"], "did you mean --budget-ms?"),
        (["reprt", "x"], "did you mean report?"),
        (["--budget-ms", "50%", "report", "x"], "after the command"),
        (["pick", "nothing", "--budget-ms", "40"], "study must exist"),
        (["measure", "nowhere", "--input-tokens", "8", "--output-tokens", "8"], "no such folder"),
    ],
)
def test_one_line_and_exit_2(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1 and err.startswith("nash-search: error: ")
    assert words in err
    assert list(tmp_path.iterdir()) == []


def test_a_message_is_one_printable_line() -> None:
    found = one_line("a\nb\x1b[31m" + "x" * 500)
    assert "\n" not in found and "\x1b" not in found and len(found) <= 300


RESULTS = Path(__file__).parent.parent / "results"


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
def rehearsed(tmp_path: Path) -> Path:
    """A finished study of the analytic evaluator, made from Python: no command, no pictures, no artifacts."""
    config = load_config("smoke", {"budgets": ["50%"], "trials": "3", "serial": True, "study": "s"})
    task = config.task.model_copy(update={"name": "rehearsal"})
    space = config.search_space.model_copy(update={"decoder_layers": (1, 2, 3, 4)})
    search(config.model_copy(update={"task": task, "search_space": space}), results=tmp_path)
    return tmp_path / "s"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 5, "the disk must have room, but [Errno 28] No space left"),
        (Unfinished("the search must end", fix="nash-search resume s"), 5, "the search must end: nash-search resume s"),
        (OSError(errno.EIO, "Input/output error"), 1, "run again with --debug to see where"),
    ],
)
def test_a_full_disk_and_an_unfinished_search_are_no_bugs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    words: str,
) -> None:
    def failing(*args: object, **given: object) -> None:
        raise error

    monkeypatch.setattr("nash_search.cli.studies.run_search", failing)
    config = SearchConfig(budgets=(LatencyBudget.parse("50%"),))
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "config.json").write_text(config.model_dump_json())
    assert main(["resume", "s", "--results", str(tmp_path)]) == code
    out, err = capsys.readouterr()
    assert out == "" and words in err and len(err.splitlines()) == 1


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
    assert "nash-search resume s" in (rehearsed / "report.html").read_text()
    (rehearsed / "study.db").write_bytes(b"damaged")
    assert main(["resume", "s", *results, "--quiet"]) == 5
    assert main(["recover", "s", *results, "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out) == {"study": "s", "trials": records}
    assert main(["resume", "s", *results, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_with_its_own_exit_code_and_one_line(tmp_path: Path, number: signal.Signals) -> None:
    words = "--config smoke --budget-ms 50% --serial --study s --quiet --results".split()
    command = [sys.executable, "-m", "nash_search", *words, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        while not list((tmp_path / "s" / "trials").glob("*/record.json")):
            time.sleep(0.1)
            assert running.poll() is None
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (128 + number, "")
    assert err == "nash-search: error: interrupted: run the same command again to go on\n"


@pytest.mark.slow
def test_the_dashboard_command_serves_until_interrupted(rehearsed: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["dashboard", "s", "--results", str(rehearsed.parent), "--port", str(port), "--json"]
    command = [sys.executable, "-m", "nash_search", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            told = json.loads(running.stdout.readline())
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            with opener.open(told["url"], timeout=60) as page:
                assert page.status == 200 and "token" not in page.url and told["study"] == "s"
        finally:
            running.send_signal(signal.SIGINT)
            try:
                assert running.wait(60) == 0
            finally:
                running.kill()


def test_init_writes_a_search_space_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = str(Path(__file__).parent.parent / "nash_search" / "tasks" / "g2p_teacher")
    assert main(["init", teacher, "--output", str(tmp_path / "space.yaml"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["file"] == str(tmp_path / "space.yaml") and (tmp_path / "space.yaml").read_text() == told["text"]
    assert load_config(told["file"]).search_space.decoder_layers
    assert main(["init", teacher]) == 0
    assert capsys.readouterr().out == told["text"]
