"""Where a search runs: under a long TMPDIR, beside modules of any name, into a results folder of any name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nash_search.config import SearchConfig
from nash_search.errors import InvalidInput
from nash_search.files import sqlite_path, sqlite_url
from nash_search.report.dashboard import database_url
from nash_search.report.dashboard import open_storage as look_at
from nash_search.search import ray_cluster
from nash_search.storage.study import open_storage
from nash_search.tasks.own_metric import from_here, is_there
from tests.crash import ROOT
from tests.patience import NEVER_S
from tests.search.test_crash import finish

ODD = [
    "a b", "#1", "what?", "x=1&y=2", "100%41", "{0}", "[é]*", "it's \"quoted\"", "a:b", "a;b", "s3:", "file:x", "-dash",
    "naïve ü 🙂", "$HOME", "back\\slash", "~tilde", "line\nbreak", "<b>bold",
]  # fmt: skip
SHADOWS = ("queue", "code", "evaluate", "optuna", "pydantic", "filelock", "psutil", "typing", "json", "numpy", "token")


@pytest.mark.parametrize("name", ODD)
def test_a_database_is_found_by_its_url_whatever_its_folder_is_called(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    url = sqlite_url(folder / "study.db")
    assert sqlite_path(url) == folder / "study.db"
    open_storage(url).engine.dispose()
    assert [p.name for p in folder.iterdir() if p.suffix == ".db"] == ["study.db"]
    assert list(tmp_path.iterdir()) == [folder], "nowhere else"
    look_at(database_url(None, folder)).engine.dispose()


@pytest.mark.slow
def test_a_study_is_searched_and_answered_in_a_folder_of_any_name(tmp_path: Path) -> None:
    from nash_search.report import load, page

    results = tmp_path / "".join(name for name in ODD)
    found = finish(results, trials=3)
    assert found["budgets"][0]["checkpoint"].startswith(str(results))
    assert finish(results, trials=4)["trials"]["complete"] >= found["trials"]["complete"], "and goes on there"
    page.write(load.load(results / "s"), results / "s")
    assert (results / "s" / "report.html").is_file() and list(tmp_path.iterdir()) == [results]


def test_sockets_have_a_short_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(ray_cluster, "_own_folders", [])
    monkeypatch.setenv("TMPDIR", str(tmp_path) if len(str(tmp_path)) < 30 else "/tmp")
    assert ray_cluster.socket_folder() is None, "the usual one"
    for unfit in ("/tmp/" + "long-" * 20, str(tmp_path / "nowhere")):
        monkeypatch.setenv("TMPDIR", unfit)
        made = ray_cluster.socket_folder()
        assert made is not None and len(made) <= ray_cluster.LONGEST_FOLDER and os.access(made, os.W_OK)
    monkeypatch.setattr(ray_cluster.ray, "shutdown", lambda: None)
    made = list(ray_cluster._own_folders)
    ray_cluster.stop_ray()
    assert len(made) == 2 and not any(map(os.path.exists, made)), "nothing is left behind"
    with pytest.raises(InvalidInput, match="TMPDIR must be a folder of at most"):
        ray_cluster.socket_folder(("/nowhere/at/all",))


def test_modules_of_the_working_folder_come_after_what_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "evaluate.py").write_text("raise SystemExit('shadowed')")
    (tmp_path / "my_own_metric.py").write_text("")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    with from_here():
        assert sys.path[-1] == str(tmp_path)
    assert is_there("my_own_metric") and not is_there("no_such_module") and sys.path == before
    assert str(tmp_path) not in ray_cluster.worker_imports()._py_driver_sys_path


@pytest.mark.slow
def test_trials_in_workers_survive_where_they_run(tmp_path: Path) -> None:
    """One real Ray search: TMPDIR too long for sockets, the folder full of modules that must not be imported."""
    here, results = tmp_path / "here", tmp_path / "odd #{x}? 100% é"
    here.mkdir()
    for name in SHADOWS:
        (here / f"{name}.py").write_text(f"raise SystemExit('{name} was taken from the working folder')\n")
    long = tmp_path / ("long-" * 20)
    long.mkdir()
    changes = json.dumps({"serial": False, "workers": 2})
    done = subprocess.run(
        [sys.executable, f"{ROOT}/tests/crash.py", str(results), "4", changes],
        cwd=here, env={**os.environ, "TMPDIR": str(long), "PYTHONPATH": ROOT, "PYTHONSAFEPATH": "1"},
        capture_output=True, text=True, timeout=NEVER_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["trials"]["failed"] == 0
    assert SearchConfig.model_validate_json((results / "s" / "config.json").read_text()).study == "s"
