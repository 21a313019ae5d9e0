"""A user's own metric: an `evaluate.Metric` named by import path, `package.module:Class` or `file.py:Class`.

It runs as the user's own code, which was asked for by name. Its direction must be known, because
nothing in `evaluate` says it. This module refuses to guess.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nash_search.errors import InvalidInput, message_of, shown

if TYPE_CHECKING:
    from nash_search.tasks.example_counts import Direction, Measured


class ImportedMetric:
    """An `evaluate.Metric` as scoring wants it: one number, from texts."""

    def __init__(self, metric: Any, path: str, direction: Direction) -> None:
        import evaluate

        self._metric = metric
        self.label = str(metric.name)
        self.direction: Direction = direction
        self.signature = f"{path}|evaluate:{evaluate.__version__}"
        references = metric.features["references"] if isinstance(metric.features, dict) else None
        self._takes_several = references is not None and type(references).__name__ in ("Sequence", "List")

    def measure(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Measured:
        """The metric's first number, not finite where it is undefined; the finite others stand beside it."""
        given = [list(several) if self._takes_several else several[0] for several in references]
        try:
            found = self._metric.compute(predictions=list(predictions), references=given)
        except Exception as error:
            reason = message_of(error)
            raise InvalidInput(f"metric must compute on texts, but got {type(error).__name__}: {reason}") from error
        numbers = {str(key): number for key, value in found.items() if (number := _number(value)) is not None}
        if not numbers:
            raise InvalidInput(f"metric must return a number, but got {shown(found)}", where=self.label)
        name = self.label if self.label in numbers else next(iter(numbers))
        return numbers.pop(name), {beside: number for beside, number in numbers.items() if math.isfinite(number)}


def _number(value: Any) -> float | None:
    """A single number, its library's own kind too; None for anything else, an array or a text."""
    try:
        return float(value if isinstance(value, int | float) else value.item())
    except (AttributeError, TypeError, ValueError, RuntimeError):  # the last two: of several elements
        return None


def is_there(module: str) -> bool:
    """Whether there is such a module or file, without running it (a dotted name's packages are)."""
    if module.endswith(".py"):
        return Path(module).is_file()
    try:
        with from_here():
            return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def import_metric(path: str, direction: Direction | None) -> ImportedMetric:
    """Import and build the metric at `path`.

    Raises:
        InvalidInput: when there is none, or its direction is not known.
    """
    import evaluate

    module_name, _, class_name = path.partition(":")
    fix = "give package.module:Class or file.py:Class"
    try:
        module = _module(module_name)
    except Exception as error:
        reason = message_of(error)
        what = f"metric must be importable, but got {type(error).__name__}: {reason}"
        raise InvalidInput(what, where="--metric", fix=fix) from error
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, evaluate.Metric)):
        raise InvalidInput(f"metric must be an evaluate.Metric class, but got {shown(path)}", where="--metric", fix=fix)
    known = direction or getattr(found, "direction", None)
    if known not in ("maximize", "minimize"):
        what = f"metric's direction must be known, but got none for {shown(path)}"
        raise InvalidInput(what, where="--metric", fix="give --metric-direction maximize or minimize")
    try:
        metric = found(keep_in_memory=True)
    except Exception as error:
        raise InvalidInput(f"metric must be built without arguments, but got {error}", where="--metric") from error
    return ImportedMetric(metric, path, cast("Direction", known))


def _module(name: str) -> Any:
    if name.endswith(".py"):
        file = Path(name).resolve()
        spec = importlib.util.spec_from_file_location(f"nash_search_metric_{file.stem}", file)
        if spec is None or spec.loader is None:
            raise ImportError(f"no module in {name}")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    with from_here():
        return importlib.import_module(name)


@contextmanager
def from_here() -> Iterator[None]:
    """Import from the working folder too, after everything installed: a `queue.py` there replaces no module."""
    here = str(Path.cwd())
    if here in sys.path:
        yield
        return
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)
