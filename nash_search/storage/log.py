"""What libraries have to say goes into the study's `log.txt`, not between the lines of a table.

`hushed` keeps them quiet from before they are imported; `to_file` gives their loggers the file once the study's
folder exists, in the driver and in every worker (lines are appended whole, so processes may share it). Python's
own warnings are kept until then; only ours (`NashSearchWarning`) are said aloud, one line each. What is worth
writing down is decided by the libraries' own levels.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from nash_search.errors import NashSearchWarning

NAME = "log.txt"
LIBRARIES = (
    "transformers",
    "datasets",
    "optuna",
    "alembic",
    "sqlalchemy",
    "ray",
    "torch",
    "py.warnings",
    "nash_search",
)
SWITCHES = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
}
FORMAT = "%(asctime)s %(process)d %(name)s %(levelname)s: %(message)s"
KEPT = 1000
"""Most warnings kept from before there is a folder."""


@contextmanager
def hushed() -> Iterator[None]:
    """Progress bars and warnings of libraries stay out of the terminal."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
    before = {name: _settings(logging.getLogger(name)) for name in LIBRARIES}
    kept = MemoryHandler(KEPT, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
    for name in LIBRARIES:
        logger = logging.getLogger(name)
        if name in ("py.warnings", "nash_search"):
            logger.handlers, logger.propagate = [kept], False
        else:
            logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning = show
            yield
    finally:
        for name, (level, handlers, propagate) in before.items():
            logger = logging.getLogger(name)
            for handler in set(logger.handlers) - set(handlers):
                handler.close()
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)


def to_file(folder: Path) -> None:
    """From now on libraries' warnings are lines of the log in this folder; asked twice, nothing changes."""
    path = (folder / NAME).resolve()
    if any(getattr(h, "baseFilename", "") == str(path) for h in logging.getLogger("nash_search").handlers):
        return
    file = logging.FileHandler(path, encoding="utf-8", delay=True)  # no warning, no file
    file.setFormatter(logging.Formatter(FORMAT))
    kept = [h for h in logging.getLogger("py.warnings").handlers if isinstance(h, MemoryHandler)]
    for name in LIBRARIES:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [file], False
        logger.setLevel(logging.WARNING)
    for handler in kept:
        handler.setTarget(file)
        handler.flush()
        handler.close()


def show(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """Python's `showwarning`: ours as one line on stderr, others to the log."""
    if issubclass(category, NashSearchWarning):
        print(f"nash-search: warning: {' '.join(str(message).split())}", file=sys.stderr)
    else:
        words = warnings.formatwarning(message, category, filename, lineno, "").strip()
        logging.getLogger("py.warnings").warning("%s", words)


def _settings(logger: logging.Logger) -> tuple[int, list[logging.Handler], bool]:
    return logger.level, list(logger.handlers), logger.propagate
