"""Two test processes of one thread each, offline, and in CI a skip is a failure."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path

from nash_search import files

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# not the user's own: tests leave nothing there; matplotlib's list of fonts takes seconds to make and stays his
os.environ.setdefault("MPLCONFIGDIR", str(files.cache_folder().parent / "matplotlib"))
os.environ["XDG_CACHE_HOME"] = f"{tempfile.gettempdir()}/nash-search-test-cache-{os.getuid()}"
# not the user's own: a test must neither wait for his searches nor hold them up; both test processes share it
os.environ.setdefault("NASH_SEARCH_LOCKS", f"{tempfile.gettempdir()}/nash-search-test-locks-{os.getuid()}")

import pytest

from tests import crash, synthetic_evaluator
from tests.warm_python import executable as warm_executable

ROOT = Path(__file__).parent
LONGEST = (
    "test_own_model.py", "search/test_ray_runner.py", "trial/test_deployment.py", "cli/test_latency.py",
    "experiments/test_gpu_study.py", "trial/test_nash_evaluator.py", "search/test_on_engines.py",
    "search/test_crash.py", "latency/test_fresh.py", "pruner/test_supernet.py", "latency/test_timing.py",
)  # fmt: skip
"""Files of minutes, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files begin, then those with the most slow tests, so that both processes end together."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    first = {ROOT / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (first.get(item.path, len(first)), -slow[item.path]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was skipped where a skip is not allowed."""
    if os.environ.get("NASH_SEARCH_SKIP_IS_FAILURE") and terminalreporter.stats.get("skipped"):
        terminalreporter.write_line("a skipped test is a failure here (NASH_SEARCH_SKIP_IS_FAILURE is set)")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn a run with skips into a failure where a skip is not allowed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("NASH_SEARCH_SKIP_IS_FAILURE") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True, scope="module")
def environment_is_left_as_found():
    """`cli.main` sets variables for the process that it owns; in a test's process they would reach the next file."""
    found = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    yield
    for name in os.environ.keys() - found.keys() - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]
    os.environ.update(found)


@pytest.fixture(autouse=True, scope="session")
def migrations_are_read_once():
    with pytest.MonkeyPatch.context() as patch:
        crash.read_migrations_once(patch.setattr)
        yield


@pytest.fixture
def warm_python(monkeypatch):
    """See `tests.warm_python`: what the test and what it runs start with `sys.executable` starts warm."""
    monkeypatch.setattr("sys.executable", warm_executable())


class Notebook:
    """A listener that writes everything down."""

    def __init__(self):
        self.stages, self.trials, self.states, self.progress = [], [], [], []

    def on_stage(self, stage, detail):
        self.stages.append((stage, detail))

    def on_trial(self, record, state):
        self.trials.append(record)
        self.states.append(state)

    def on_progress(self, number, stage, step, steps, loss):
        self.progress.append((number, stage, step, steps, loss))


@pytest.fixture
def notebook():
    return Notebook()


def rehearsals(folder, listener, patch):
    """A function that runs a serial search on the synthetic evaluator: `rehearse(trials=4, orders="nan=enc0-dec2")`."""
    from nash_search.search import search
    from nash_search.trial import evaluator

    def run(trials=4, orders="", fork=False, results=folder, **changes):
        synthetic_evaluator.answer_here(patch, orders)
        evaluator._open.clear()
        return search(crash.config(trials, **changes), results=results, listeners=[listener], fork=fork)

    yield run
    evaluator._open.clear()


@pytest.fixture
def rehearse(tmp_path, notebook, monkeypatch):
    """See `rehearsals`; into the test's own folder, with its own `notebook`."""
    yield from rehearsals(tmp_path, notebook, monkeypatch)


@pytest.fixture(scope="module")
def rehearse_once(tmp_path_factory):
    """See `rehearsals`; for a study that all tests of a module read and none changes."""
    with pytest.MonkeyPatch.context() as patch:
        yield from rehearsals(tmp_path_factory.mktemp("studies"), Notebook(), patch)
