"""A driver to be killed: one synthetic study in a process of its own.

`Driver` forks it from a process that has imported everything already: a tenth of the time, and a kill at a random
moment meets the study, not its imports. `python crash.py RESULTS TRIALS JSON-of-changes` does the same without pytest.
"""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from nash_search.config import LatencyBudget, SearchConfig, TaskConfig
from nash_search.errors import NashSearchError
from nash_search.search import Interrupted, margins, search

ROOT = str(Path(__file__).parents[1])


def config(trials: int, **changes):
    asked = {
        "task": TaskConfig(name="rehearsal"),
        "budgets": (LatencyBudget.parse("70%"), LatencyBudget.parse("50%")),
        "study": "s",
        "serial": True,
        "trials": trials,
        "sampler": "tpe",  # asked in a tenth of a Gaussian process's time, and by the same code
        "finish_steps": 0,  # a test that is about the winners' training at length asks for it
    }
    return SearchConfig(**asked | changes)


def main(results: str, trials: str, changes: str) -> int:
    try:
        result = search(config(int(trials), **json.loads(changes)), results=results)
    except Interrupted as end:
        return end.exit_code
    except NashSearchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(result.document))
    return result.exit_code


class Driver:
    """`main` in a forked process; what `subprocess.Popen` is to a program."""

    def __init__(self, arguments: list[str], *, failpoint: str = "", environment: dict[str, str]) -> None:
        self._folder = tempfile.mkdtemp(prefix="nash-search-driver-")
        self._said = [os.path.join(self._folder, name) for name in ("out", "err")]
        given = (arguments, failpoint, {**os.environ, **environment}, self._said)
        self._process = _forks().Process(target=_drive, args=given, daemon=True)  # ends with pytest
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, minus the signal's number after a kill, None while it runs."""
        return self._process.exitcode

    poll = returncode.fget

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> list[str]:
        """Wait for the end; what it wrote to stdout and stderr."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("driver", timeout)
        said = [Path(path).read_text() if os.path.exists(path) else "" for path in self._said]
        shutil.rmtree(self._folder)
        return said


def _forks():
    """What forks drivers; it imports `warm` once, for all of this test process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.warm"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([ROOT, *filter(None, [before])])
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ["PYTHONPATH"] = before or ""
    return context


def _drive(arguments: list[str], failpoint: str, environment: dict[str, str], said: list[str]) -> None:
    """In the forked process: its own environment, its output into files, then `main`."""
    os.environ.clear()
    os.environ.update(environment)
    for path, stream in zip(said, (1, 2), strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    # what is learnt of a device counts the seconds in which trials ended: this machine would be in the answer
    margins.keep_trials = lambda *kept: None
    if failpoint:
        from tests import failpoints

        failpoints.plant(failpoint)
    sys.exit(main(*arguments))


def read_migrations_once(put) -> None:
    """Optuna runs its dozen migration scripts anew for every storage that is opened: a third of a synthetic study."""
    from optuna.storages._rdb.storage import _VersionManager

    read, found = _VersionManager._create_alembic_script, []

    def once(self):
        found[:] = found or [read(self)]
        return found[0]

    put(_VersionManager, "_create_alembic_script", once)


if __name__ == "__main__":
    from tests import synthetic_evaluator

    os.environ.update(synthetic_evaluator.HERE)
    sys.exit(main(*sys.argv[1:]))
