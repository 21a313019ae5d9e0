"""Text in, text out, quality: the room that knows data and metrics.

`load_task` gives a `Task` (splits, tokenizer, metric, lengths); `scoring.score` gives a `Quality`.
Importing this package loads neither torch nor transformers. Any model with
`generate` can be scored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nash_search.lazy import names_of

if TYPE_CHECKING:
    from nash_search.tasks.load import load_task
    from nash_search.tasks.scoring import predict, score
    from nash_search.tasks.task import Examples, Task

__all__ = ["Examples", "Task", "load_task", "predict", "score"]

_HOMES = {"Examples": "task", "Task": "task", "load_task": "load", "predict": "scoring", "score": "scoring"}


__getattr__ = names_of(__name__, _HOMES)
