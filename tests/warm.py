"""Imported in the process that `crash.Driver` forks from: all that a search imports, and Optuna's tables as classes."""

import tests.crash
import tests.failpoints
from nash_search.storage.study import open_storage

tests.crash.read_migrations_once(setattr)
open_storage("sqlite://").engine.dispose()
