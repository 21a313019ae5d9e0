"""A driver to be killed: one rehearsal study; run as `python crash.py RESULTS TRIALS JSON-of-changes`."""

import json
import sys

from nash_search.config import LatencyBudget, SearchConfig, TaskConfig
from nash_search.errors import NashSearchError
from nash_search.search import Interrupted, search


def config(trials: int, **changes):
    asked = {
        "task": TaskConfig(name="rehearsal"),
        "budgets": (LatencyBudget.parse("70%"), LatencyBudget.parse("50%")),
        "study": "s",
        "serial": True,
        "trials": trials,
        "sampler": "tpe",  # asked in a tenth of a Gaussian process's time, and by the same code
    }
    return SearchConfig(**asked | changes)


def main() -> int:
    try:
        result = search(config(int(sys.argv[2]), **json.loads(sys.argv[3])), results=sys.argv[1])
    except Interrupted as end:
        return end.exit_code
    except NashSearchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(result.document))
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
