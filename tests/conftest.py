"""Two test processes of one thread each, offline, and in CI a skip is a failure."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

HERE = Path(__file__).parent

WITH_RAY = {"test_own_model", "test_readme"}
"""Files outside `tests/search` that start Ray."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files stay whole, for what they share is made once; those with Ray, the longest, share a process and begin."""

    def with_ray(item: pytest.Item) -> bool:
        return item.path.parent.name == "search" or item.path.stem in WITH_RAY

    for item in items:
        item.add_marker(pytest.mark.xdist_group("ray" if with_ray(item) else str(item.path.relative_to(HERE))))
    items.sort(key=lambda item: not with_ray(item))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was skipped where a skip is not allowed."""
    if os.environ.get("NASH_SEARCH_SKIP_IS_FAILURE") and terminalreporter.stats.get("skipped"):
        terminalreporter.write_line("a skipped test is a failure here (NASH_SEARCH_SKIP_IS_FAILURE is set)")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn a run with skips into a failure where a skip is not allowed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("NASH_SEARCH_SKIP_IS_FAILURE") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
