"""The command line: nothing heavy is imported before input is checked; one line, one exit code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from nash_search.cli import app, main, one_line


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


def test_help_of_every_command_loads_no_library_that_takes_its_time() -> None:
    program = (
        "import sys\nfrom nash_search.cli import app, main\n"
        "codes = [main([c.name, '--help']) for c in app.registered_commands] + [main(['--help'])]\n"
        "print(codes, [m for m in ('torch', 'ray', 'transformers', 'optuna', 'numpy', 'scipy') if m in sys.modules])"
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
