"""What ends a search early ends the command with its own exit code and one line."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nash_search.cli import main
from nash_search.config import LatencyBudget, SearchConfig
from nash_search.errors import Unfinished
from tests.patience import NEVER_S


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
@pytest.mark.parametrize("number", [signal.SIGINT])  # SIGTERM ends the searches of search/test_ray_runner
def test_a_signal_ends_the_command_with_its_own_exit_code_and_one_line(tmp_path: Path, number: signal.Signals) -> None:
    words = "--config smoke --budget-ms 50% --serial --study s --quiet --results".split()
    command = [sys.executable, "-m", "nash_search", *words, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        while not list((tmp_path / "s" / "trials").glob("*/record.json")):
            time.sleep(0.1)
            assert running.poll() is None
        running.send_signal(number)
        out, err = running.communicate(timeout=NEVER_S)
    assert (running.returncode, out) == (128 + number, "")
    assert err == "nash-search: error: interrupted: run the same command again to go on\n"
