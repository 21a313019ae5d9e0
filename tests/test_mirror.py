"""Tests mirror the package: who changes a module finds its tests by its name."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "nash_search"
THROUGH_OTHERS = {
    # said by one re-export, so tests import it from there
    "architecture": "test_config_loader",
    "lazy": "test_layering",
    "plain_json": "tasks/test_models",
    "pruner.pruning": "pruner/test_stages",
    # parts of one conversion, which is only worth something whole
    "latency.runtimes.ctranslate2_engine": "latency/runtimes/test_ctranslate2_speech",
    "latency.runtimes.ctranslate2_settings": "latency/runtimes/test_ctranslate2",
    # runs in a process of its own, or is only called by the one module that is tested
    "latency.fresh_round": "latency/test_fresh",
    "latency.runtimes.conversion": "latency/runtimes/test_ctranslate2",
    "search.callbacks": "search/test_run",
    # the evaluator's `probe`, in a file of its own
    "trial.probing": "latency/test_cache",
    # what a picture is made of is seen on the picture
    "report.canvas": "report/test_picture",
    "report.labels": "report/test_picture",
    # what every reader and every metric has in common is held for each of them
    "tasks.rows": "tasks/test_text_tables",
    "tasks.tables": "tasks/test_text_tables",
    "tasks.example_counts": "tasks/test_metrics",
    # a protocol has no behaviour of its own
    "device.protocol": "device/test_cuda",
    "search.case": "search/test_run",
}
"""Module that no test names -> the test module that goes through it, with the reason above it."""


def imported(path: Path) -> set[str]:
    """Modules of ours that a test imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.removeprefix("nash_search.") for name in names}


def test_every_module_has_a_test_module_of_its_name_or_is_named_by_one() -> None:
    modules = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if not path.stem.startswith("__")]
    named = set().union(*(imported(path) for path in TESTS.rglob("test_*.py")))
    untested = {
        ".".join(module.with_suffix("").parts)
        for module in modules
        if not (TESTS / module.parent / f"test_{module.stem}.py").exists()
    } - named
    assert untested == set(THROUGH_OTHERS), untested ^ set(THROUGH_OTHERS)
    assert all((TESTS / f"{test}.py").exists() for test in THROUGH_OTHERS.values())
