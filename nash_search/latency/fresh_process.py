"""One job in a fresh Python process: handed over as a file, ended with its parent or at its limit, read back as JSON.

What the process does with a job is `fresh_round`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nash_search.errors import InvalidInput, Locked, NashSearchError

ENTRY = ("-m", "nash_search.latency.fresh_round")
NO_MEMORY = (
    *("OutOfMemoryError", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "cudaErrorMemoryAllocation"),
    *("MemoryError", "can't allocate memory", "std::bad_alloc"),
)
"""A process whose last line of output holds one of these ran out of memory (PyTorch, CUDA, its libraries, host)."""


class MeasurementFailed(NashSearchError):
    """A fresh process ended without a result; the message holds its last words."""


class OutOfMemory(MeasurementFailed):
    """A fresh process was killed, or said itself that memory was not enough."""

    exit_code = 5


def run_job(job: Mapping[str, Any], limit_s: float, entry: Sequence[str] = ENTRY) -> dict[str, Any] | None:
    """One job in a fresh process; None when the limit came before any result (the process is then gone).

    A device that stays in use all the while is a limit too.

    Args:
        job: the JSON that `fresh_round.main` reads; its `kind` says what the process does.
        limit_s: seconds until the process is killed.
        entry: Python's arguments before the files (`experiments/clock.py` runs itself, with delays planted).
    """
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    quiet = {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONSAFEPATH": "1"}
    with tempfile.TemporaryDirectory(prefix="nash-search-round-") as folder:
        job_file, result_file, log = (Path(folder) / name for name in ("job.json", "result.json", "log.txt"))
        job_file.write_text(json.dumps(job))
        with log.open("wb") as words:
            process = subprocess.Popen(
                [sys.executable, *entry, str(job_file), str(result_file)],
                stdin=subprocess.PIPE,  # never written: it closes when this process dies
                stdout=words,
                stderr=subprocess.STDOUT,
                env=os.environ | quiet,
                start_new_session=True,
            )
            late = False
            try:
                process.wait(max(0.0, limit_s))
            except subprocess.TimeoutExpired:
                late = True  # a job that keeps what it has may have left a part of its result
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)  # with the compilers it may have started
                process.wait()
                assert process.stdin is not None
                process.stdin.close()
        if late and not result_file.exists():
            return None
        if not result_file.exists():
            lines = log.read_text(errors="replace").strip().splitlines()
            last = lines[-1] if lines else "it said nothing"
            killed = process.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
            failed = OutOfMemory if killed or any(words in last for words in NO_MEMORY) else MeasurementFailed
            raise failed(f"a fresh timing process must end with a result, but got {_end(process)}: {last}")
        result: dict[str, Any] = json.loads(result_file.read_text())
    if isinstance(result.get("error"), str):
        if result["exit_code"] == Locked.exit_code:
            return None
        refused = result["exit_code"] == InvalidInput.exit_code
        raise (InvalidInput if refused else MeasurementFailed)(result["error"])
    return result


def _end(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    if code in (-9, 137):
        return "killed (out of memory?)"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
