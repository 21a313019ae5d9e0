"""Imports go one way, modules stay small, and each says what it does."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "nash_search"
FILES = sorted(PACKAGE.rglob("*.py"))
LEAVES = {
    "lazy",
    "errors",
    "recipes",
    "budget",
    "architecture",
    "config",
    "workload",
    "terms",
    "plain_yaml",
    "plain_json",
    "generation",
    "config_loader",
    "latency_record",
    "calibration_record",
    "records",
    "latency_table",
    "length_forecast",
    "results",
    "summaries",
    "runtimes",
    "summary_rows",
    "survey",
    "remeasured",
    "fidelity",
    "intervals",
    "percentiles",
    "token_rows",
    "encoder_rows",
    "traffic",
    "pareto",
    "device",
    "modeling_nash",
    "loading",
    "files",
    "families",
    "layouts",
    "writing",
}
ALLOWED = {
    "tasks": LEAVES,
    "pruner": LEAVES,
    "latency": LEAVES,
    "storage": LEAVES,
    "trial": LEAVES | {"tasks", "pruner", "latency", "storage"},
    "search": LEAVES | {"tasks", "pruner", "latency", "storage", "trial"},
    "finetune": LEAVES | {"tasks", "pruner"},
    "report": LEAVES,
    "cli": LEAVES | {"tasks", "pruner", "latency", "storage", "search", "finetune", "report"},
    "__main__": {"cli"},
}
LONGEST_LINES = 330
"""Files are of about 300 lines; the rest is room for a row (a family, a metric) that need not wait for a move."""


def room_of(path: Path) -> str:
    """First part of a module's path below the package."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(path: Path) -> set[str]:
    """Rooms of ours that a file imports, anywhere in it."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("nash_search.")}
    return {room for room in rooms if (PACKAGE / room).exists() or (PACKAGE / f"{room}.py").exists()}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    allowed = ALLOWED.get(room, LEAVES) | {room}
    assert imported_rooms(path) <= allowed, f"{path} imports {imported_rooms(path) - allowed}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_are_small_and_documented(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_LINES
    assert ast.get_docstring(ast.parse(text)), "a module docstring says what it does"


def test_no_modules_import_one_another_in_a_circle() -> None:
    names = {".".join(path.with_suffix("").parts[-len(path.relative_to(PACKAGE).parts) - 1 :]): path for path in FILES}
    imports = {}
    for name, path in names.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                found |= {m for a in node.names for m in (f"{node.module}.{a.name}", node.module) if m in names}
        imports[name] = found
    left = dict(imports)
    while free := [name for name, found in left.items() if not found & left.keys()]:
        for name in free:
            del left[name]
    assert not left, "these, or some of them, need one another"


def test_functions_take_at_most_eight_parameters_or_say_why() -> None:
    silent = []
    for path in FILES:
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            count = len([name for name in names if name not in ("self", "cls")])
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            above = text.splitlines()[: first - 1][::-1]
            reason = [line.strip() for line in itertools.takewhile(lambda line: line.strip().startswith("#"), above)]
            if count > 8 and not (reason and reason[-1].startswith(f"# {count} parameters: ")):
                silent.append(f"{path.relative_to(PACKAGE)}: {node.name} has {count}")
    assert not silent, "more than 8 parameters need a comment above: `# 9 parameters: why`"


def test_only_one_module_imports_ray() -> None:
    importers = [p for p in FILES if re.search(r"^\s*(import|from) ray\b", p.read_text(), re.MULTILINE)]
    assert [str(p.relative_to(PACKAGE)) for p in importers] == ["search/ray_cluster.py"]


def test_only_pareto_knows_which_way_quality_points() -> None:
    asks = re.compile(r"[!=]= ['\"](maximize|minimize)")
    assert [str(p.relative_to(PACKAGE)) for p in FILES if asks.search(p.read_text())] == ["pareto.py"]


def test_only_files_renames() -> None:
    renames = re.compile(r"os\.(replace|rename)\(|shutil\.move\(|\.rename\(")
    assert [str(p.relative_to(PACKAGE)) for p in FILES if renames.search(p.read_text())] == ["files.py"]


def test_no_drawer_modules() -> None:
    banned = {"utils", "helpers", "common", "manager", "handler", "factory"}
    assert not [p for p in FILES if p.stem in banned]


def test_importing_the_package_loads_no_torch() -> None:
    heavy = "('torch', 'ray', 'transformers')"
    program = f"import sys, nash_search, nash_search.cli; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
