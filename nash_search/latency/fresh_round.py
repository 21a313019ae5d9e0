"""One fresh process of a measurement: `python -m nash_search.latency.fresh_round JOB RESULT`.

Loads folders, times them or generates from them, or tries a dense model on another runtime; writes one JSON file,
ends. Its standard input is a lifeline: when the parent dies, the pipe closes and so does this process. It takes the
device's lock itself, after loading, so that trainers wait for the timing only.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

STARTED_S = time.monotonic()


def main(job_file: str, result_file: str) -> int:
    """Do one job; an error a user can act on is a result too."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    from nash_search.errors import NashSearchError

    job = json.loads(Path(job_file).read_text())
    kinds = {"time": _time, "tokens": _tokens, "alone": lambda job: _alone(job, result_file)}
    try:
        result = kinds[job["kind"]](job)
    except NashSearchError as error:
        result = {"error": str(error), "exit_code": error.exit_code}
    _keep(result, result_file)
    return 0


def _keep(result: dict[str, Any], result_file: str) -> None:
    from nash_search.files import replace

    replace(Path(result_file), json.dumps(result).encode())


def _time(job: dict[str, Any]) -> dict[str, Any]:
    from nash_search.config import Workload
    from nash_search.latency.runtimes import runtime_of
    from nash_search.latency.timing import NotCut, measure_many

    warnings.simplefilter("ignore", NotCut)  # the warning travels in the result's details
    workload = Workload(**job["workload"])
    runtime = runtime_of(workload)
    dense = runtime.load(job["dense"], workload)
    models = {name: runtime.load(folder, workload) for name, folder in job["folders"].items()}
    left_s = max(0.0, job["limit_s"] - (time.monotonic() - STARTED_S))
    found = measure_many(
        models,
        dense,
        workload,
        inputs=job["inputs"],
        pairs=job["pairs"],
        limit_s=left_s,
        wait_s=left_s,
        details=job["details"],
        turn=job["turn"],
    )
    return {name: latency.model_dump(mode="json") for name, latency in found.items()}


def _tokens(job: dict[str, Any]) -> dict[str, Any]:
    import torch

    from nash_search.config import Workload
    from nash_search.latency.runtimes import runtime_of

    workload = Workload(**job["workload"])
    torch.set_num_threads(workload.threads)
    runtime = runtime_of(workload)
    return {
        name: runtime.tokens(
            runtime.load(folder, workload), job["inputs"], beams=workload.beams, max_new_tokens=job["max_new_tokens"]
        )
        for name, folder in job["folders"].items()
    }


def _alone(job: dict[str, Any], result_file: str) -> dict[str, Any]:
    from nash_search.latency.alone import Job, Taken, take

    def told(found: list[Taken]) -> dict[str, Any]:
        return {"taken": [one.model_dump(mode="json") for one in found]}

    return told(take(Job.model_validate(job), STARTED_S, lambda found: _keep(told(found), result_file)))


def _end_with_the_parent() -> None:
    os.read(0, 1)
    os._exit(3)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
