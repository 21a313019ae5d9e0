"""Flags are made of fields: a new knob is one field."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

import nash_search
from nash_search.cli import app
from nash_search.cli.flags import EVERYTHING, METAVARS, flags_of
from nash_search.config_loader import flag_of, load_config

SECTIONS = ("", "task", "workload", "teacher")
NEW_FIELDS = {
    "    study: str | None = None\n": (
        '    patience: int = Field(default=2, ge=1)\n    """Trials without gain after which the search ends."""\n'
    ),
    '    prefix: str = ""\n': (
        '    shuffle: bool = True\n    """Read the examples in any order."""\n'
        '    languages: tuple[int, ...] = ()\n    """Numbers of the languages."""\n'
    ),
    '    runtime: Runtime = "eager"\n    """What': (
        '    warm_s: float | None = None\n    """How long the model is warmed up."""\n'
    ),
}
"""By the text in config.py before which it is put."""
SCRIPT = """
import json
from nash_search.cli import main, search
search.run_search = lambda config, *_, **__: print(config.model_dump_json()) or 0
assert main(["--help"]) == 0
given = "--patience 7 --no-shuffle --languages 3 --languages 5 --warm 2m --serial --budget-ms 50%"
assert main(given.split()) == 0
assert main(["--patience", "0", "--budget-ms", "50%"]) == 2
"""


def test_a_new_knob_is_one_field(tmp_path: Path) -> None:
    package = Path(nash_search.__file__).parent
    shutil.copytree(package, tmp_path / "nash_search", ignore=shutil.ignore_patterns("__pycache__", "g2p_teacher"))
    shutil.copytree(package.parent / "search_spaces", tmp_path / "search_spaces")
    for place, field in NEW_FIELDS.items():
        holding = [tmp_path / "nash_search" / name for name in ("config.py", "workload.py")]
        [home] = [path for path in holding if place in path.read_text()]
        text = home.read_text()
        assert text.count(place) == 1
        home.write_text(text.replace(place, field + place))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *shown, last = done.stdout.strip().splitlines()
    page = " ".join(" ".join(shown).split())
    assert "--patience N Trials without gain after which the search ends." in page
    assert "--shuffle / --no-shuffle Read the examples in any order." in page
    assert "--warm TIME How long the model is warmed up." in page
    found = json.loads(last)
    assert (found["patience"], found["task"]["shuffle"], found["workload"]["warm_s"]) == (7, False, 120.0)
    assert found["task"]["languages"] == [3, 5] and found["serial"]
    assert done.stderr.strip() == "nash-search: error: patience must be at least 1, but got 0 (--patience)"


def test_every_flag_says_what_it_does_and_bears_one_name_per_command() -> None:
    flags = [flag for section in SECTIONS for flag in flags_of(section)]
    assert not [flag.field for flag in flags if not flag.help]
    assert METAVARS.keys() <= {flag.field for flag in flags}
    group = typer.main.get_command(app)
    for name, command in {"": group, **group.commands}.items():  # type: ignore[attr-defined]
        words = [o for p in command.params for o in (*p.opts, *p.secondary_opts)]
        assert len(words) == len(set(words)), name


def test_what_is_secret_or_a_section_is_no_flag() -> None:
    fields = {flag.field for flag in EVERYTHING}
    assert not fields & {"storage", "recipe", "search_space", "task", "workload", "teacher"}


@pytest.mark.parametrize(
    ("field", "flag"),
    {
        "budgets": "--budget-ms",
        "task.name": "--task",
        "workload.batch_size": "--batch-size",
        "trial_timeout_s": "--trial-timeout",
        "max_drop_pct": "--max-drop",
    }.items(),
)
def test_a_flag_is_its_field_without_section_and_unit(field: str, flag: str) -> None:
    assert flag_of(field) == flag


def test_a_switch_that_a_file_sets_can_be_taken_back(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("keep_all: true\n")
    assert load_config(file).keep_all and not load_config(file, {"keep_all": False}).keep_all


@pytest.mark.parametrize(
    "given", [["--results", "x"], ["--json"], ["--config", "smoke"], ["--quiet"], ["--trials", "3"]]
)
def test_a_flag_before_the_command_is_refused_and_never_lost(given, capsys):
    from nash_search.cli import main

    assert main([*given, "pick", "mine", "--budget-ms", "50%"]) == 2
    assert "flags must come after the command" in capsys.readouterr().err
