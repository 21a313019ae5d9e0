"""How a study came about: the commands that were typed, and what the numbers were made on.

    command.txt   in the study's folder: one line per command, as typed, oldest first (a resumed study has several)

What looks like a password in an address is masked; a storage's address is never typed, it comes from the
environment.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nash_search.files import write_atomic

FILE = "command.txt"
_SECRET = re.compile(r"(?<=://)[^/@\s']*@")


def remember(folder: Path, command: str) -> None:
    """Keep a command; one that was typed before is not kept twice."""
    line = _SECRET.sub("***@", " ".join(command.split()))
    before = commands(folder)
    if line and line not in before:
        write_atomic(folder / FILE, "\n".join([*before, line]) + "\n")


def commands(folder: Path) -> list[str]:
    """What was typed, oldest first; nothing for a study made from Python."""
    try:
        return (folder / FILE).read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return []


def told(folder: Path, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """`command` and `environment` of the document: device, software, and the switches set in the environment."""
    plain = {name: value for name, value in fingerprint.items() if isinstance(value, (str, int, float))}
    return {
        "command": "\n".join(commands(folder)),
        "environment": plain | dict(fingerprint.get("environment") or {}) | versions(),
    }


def versions() -> dict[str, str]:
    """Versions of what made a number."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("nash-search", "torch", "transformers", "optuna", "ray"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def stamp() -> str:
    """Now, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
