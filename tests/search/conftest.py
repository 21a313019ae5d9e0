"""Studies on the analytic bench."""

import importlib.util
from pathlib import Path

import pytest

from nash_search.search import search

SPEC = importlib.util.spec_from_file_location("nash_search_crash", Path(__file__).parent / "crash.py")
crash = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(crash)


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


@pytest.fixture
def rehearse(tmp_path, notebook, monkeypatch):
    """Run a serial rehearsal: `rehearse(trials=4, orders="nan=enc0-dec2")`."""
    from nash_search.search import trial

    def run(trials=4, orders="", fork=False, results=tmp_path, **changes):
        monkeypatch.setenv("NASH_SEARCH_REHEARSAL", orders)
        trial._benches.clear()
        return search(crash.config(trials, **changes), results=results, listeners=[notebook], fork=fork)

    yield run
    trial._benches.clear()
