"""Named places of a commit at which a search's process is killed, so that crash tests are exact instead of lucky.

`plant("tell")` kills at the first `tell`, `plant("tell:3")` at the third. SIGKILL, because that is what a power cut
looks like: no handler, no `finally`. The package knows nothing of it: functions are wrapped from here. `place_of` reads
from a killed study's files where it died.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from nash_search.storage import artifacts, recovery
from nash_search.storage.study import Study
from tests.synthetic_evaluator import SyntheticEvaluator


def _always(*arguments: Any, **settings: Any) -> bool:
    return True


def _first_manifest(path: Path, data: str) -> bool:
    """A folder is being sealed; a manifest that replaces another forgets weights."""
    return path.name == artifacts.NAME and not path.exists()


def _not_there(scratch: Path, final: Path, facts: dict[str, Any]) -> bool:
    """This commit makes the folder; one that is there already wins."""
    return artifacts.read(final) is None


PLACES: dict[str, tuple[Any, str, bool, Callable[..., bool]]] = {
    "ask": (Study, "ask", False, _always),
    "artefact": (artifacts, "write_atomic", True, _first_manifest),
    "manifest": (artifacts, "write_atomic", False, _first_manifest),
    "rename": (artifacts, "commit", False, _not_there),
    "tell": (optuna.Study, "tell", True, _always),
    "backup": (recovery, "back_up", True, _always),
    "export": (SyntheticEvaluator, "time_fresh", True, _always),
}
"""In the order of a commit: owner and name of a function, is the place before it, and at which of its calls."""


def killed() -> None:
    """Die as in a power cut."""
    os.kill(os.getpid(), signal.SIGKILL)


def plant(wanted: str, die: Callable[[], None] = killed, put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Die at this place of this process; `put` sets an attribute (pytest's takes it back)."""
    place, _, nth = wanted.partition(":")
    owner, name, before, at = PLACES[place]
    function, left = getattr(owner, name), [int(nth or 1)]

    def hit() -> None:
        left[0] -= 1
        if left[0] == 0:
            die()

    def wrapped(*arguments: Any, **settings: Any) -> Any:
        here = at(*arguments, **settings)
        if here and before:
            hit()
        found = function(*arguments, **settings)
        if here and not before:
            hit()
        return found

    put(owner, name, wrapped)


def place_of(folder: Path) -> str:
    """Where the process that worked on this study died, by what it left behind."""
    scratch = [path for home in ("trials", "finalists") for path in (folder / home).glob(".tmp-*")]
    if scratch:
        return "manifest" if (scratch[0] / artifacts.NAME).exists() else "artefact"
    rows = optuna.load_study(study_name="s", storage=f"sqlite:///{folder}/study.db").get_trials(deepcopy=False)
    running = [row for row in rows if not row.state.is_finished()]
    whole = {path.name for path in (folder / "trials").glob("[!.]*")}
    told = {Path(row.user_attrs["folder"]).name for row in rows if "folder" in row.user_attrs}
    if whole - told or list((folder / "finalists").glob("[!.]*")):
        return "rename"
    if any("folder" in row.user_attrs for row in running):
        return "tell"
    if running:
        return "ask"
    return "export" if list((folder / "checkpoints").glob(".tmp-*")) else "backup"
