"""What is built is what runs: the wheel carries search spaces, teacher, dictionary and its notice."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TRACKED_MOST_BYTES = 24 * 10**6


def test_every_package_folder_is_listed() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "nash_search").rglob("__init__.py")}
    assert found | {"nash_search.search_spaces"} == listed


def test_constraints_pin_torch_and_every_dependency() -> None:
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    names = {d.split(">")[0].split("[")[0].strip().lower() for d in asked}
    assert names <= pinned
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().split()


def tracked() -> list[Path]:
    """Files that git has."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]


def test_what_is_tracked_is_small() -> None:
    """Every user and every CI run fetches it."""
    assert sum(path.stat().st_size for path in tracked()) <= TRACKED_MOST_BYTES


def test_nothing_is_tracked_that_report_draws_again() -> None:
    drawn = {"front.png", "front.svg", "front-dark.png", "front-dark.svg", "report.md", "report.html"}
    assert not [path for path in tracked() if path.parents[1] == ROOT / "results" and path.name in drawn]


@pytest.mark.slow
def test_the_wheel_carries_everything_and_the_registry_would_take_both(tmp_path: Path) -> None:
    subprocess.run(  # the wheel is built from the source distribution, as the registry's users would
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,), (source,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    checked = [sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(source)]
    found = subprocess.run(checked, capture_output=True, text=True, check=False)
    assert found.returncode == 0 and found.stdout.count("PASSED") == 2, found.stdout
    names = set(zipfile.ZipFile(wheel).namelist())
    for space in (ROOT / "search_spaces").glob("*.yaml"):
        assert f"nash_search/search_spaces/{space.name}" in names
    for part in ("model.safetensors", "config.json", "tokenizer.json", "generation_config.json", "README.md"):
        assert f"nash_search/tasks/g2p_teacher/{part}" in names
    assert {"nash_search/tasks/cmudict.dict.gz", "nash_search/tasks/cmudict.LICENSE", "nash_search/py.typed"} <= names
    assert any(name.startswith("nash_search/report/templates/") for name in names)
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "nash_search").rglob("*.py")}
    assert modules <= names
    assert {name.split("/")[0] for name in names} == {"nash_search", "nash_search-0.2.0.dist-info"}
