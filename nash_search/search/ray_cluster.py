"""Ray as a search wants it: quiet, private on this machine, or the cluster that was asked for.

The only module that imports ray; `ray_runner` says what runs on it.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_WARN_THRESHOLD_S": "1000000",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
}
"""Read when ray is imported, so set before."""
for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.job_config import JobConfig  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

from nash_search.config import SearchConfig  # noqa: E402
from nash_search.errors import InvalidInput, Unfinished, shown  # noqa: E402

__all__ = ["Searcher", "gpu_share", "ray", "start_ray", "stop_ray", "tune"]

OBJECT_STORE_BYTES = 80 * 2**20
LONGEST_FOLDER = 107 - len("/ray/session_2026-11-27_09-19-07_966914_4194304/sockets/plasma_store.xx")
"""Bytes left for the folder above Ray's sockets: a socket's path has at most 107, on every Linux."""
STARTS = 3
"""How often a cluster is tried to be started."""
_own_folders: list[str] = []
"""Made for a cluster of ours, removed with it."""


def start_ray(config: SearchConfig, workers: int, on_cpu: bool) -> None:
    """Start a private cluster on the loopback interface, or join the one asked for."""
    ray._private.worker.print_to_stdstream = hush
    quiet: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "CRITICAL",
        "configure_logging": True,
        "job_config": worker_imports(),
    }
    if config.ray_address is not None:
        ray.init(address=config.ray_address, **quiet)
        return
    # its ports listen on all interfaces: Ray turns token authentication on for a cluster it starts
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    with environment(worker_environment(config.workload.device)):
        for left in reversed(range(STARTS)):
            try:
                ray.init(
                    address="local",
                    num_cpus=max(workers, 1),
                    num_gpus=0 if on_cpu else None,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=socket_folder(),
                    **quiet,
                )
                return
            except InvalidInput:
                raise
            except (
                Exception
            ) as error:  # Ray gives a start 30 s, which a busy machine may exceed, and raises no kind of its own
                ray.shutdown()
                if not left:
                    what = f"Ray must start here, but got {shown(str(error), 200)} {STARTS} times"
                    raise Unfinished(what, fix="go on when the machine is less busy, or with --serial") from error


def stop_ray() -> None:
    """Leave the cluster, and end it if it is ours."""
    ray.shutdown()
    while _own_folders:
        shutil.rmtree(_own_folders.pop(), ignore_errors=True)


def worker_imports() -> JobConfig:
    """What workers import from: the environment, as the driver does, and not the folder the user stands in.

    Ray puts that folder first in a worker's path, so that a `queue.py` or `evaluate.py` lying there would replace
    the module of that name. A metric of the user's own is still found: `tasks/own_metric.py` searches that folder last.
    """
    # Ray leaves the folder out for jobs of its client alone; the field says nothing else to a driver
    found = JobConfig(_client_job=True)
    package = Path(__file__).resolve().parents[2]
    if package == Path.cwd().resolve():  # a checkout that may not be installed
        found._py_driver_sys_path.append(str(package))
    return found


def socket_folder(candidates: tuple[str, ...] = ("/tmp", "/var/tmp", "/dev/shm")) -> str | None:
    """A short folder for Ray's sockets where the usual one is too long for them (`TMPDIR` on SLURM); None: it is not.

    Raises:
        InvalidInput: when no short folder can be written.
    """
    usual = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    if len(os.fsencode(usual)) <= LONGEST_FOLDER and os.access(usual, os.W_OK):
        return None
    for folder in candidates:
        if os.access(folder, os.W_OK):
            _own_folders.append(tempfile.mkdtemp(prefix="nash-", dir=folder))
            return _own_folders[-1]
    what = f"TMPDIR must be a folder of at most {LONGEST_FOLDER} bytes that can be written, but got {usual}"
    raise InvalidInput(what, where="environment", fix="give a shorter one, or --serial")


def worker_environment(device: str) -> dict[str, str]:
    """What a cluster of ours inherits: few malloc arenas (a worker has 26 threads), and of the GPUs the one named.

    With a safe path, no Python that a worker starts imports from the folder it stands in either.
    """
    found = {} if "MALLOC_ARENA_MAX" in os.environ else {"MALLOC_ARENA_MAX": "2"}
    found["PYTHONSAFEPATH"] = "1"
    if device.startswith("cuda:"):
        index, visible = device.removeprefix("cuda:"), os.environ.get("CUDA_VISIBLE_DEVICES")
        found["CUDA_VISIBLE_DEVICES"] = visible.split(",")[int(index)] if visible else index
    return found


@contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set for a while: the processes that certify are timed as the probe was."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def hush(data: dict[str, Any], ignore_prefix: bool = False) -> None:
    """In place of Ray's printing of cluster errors to our stdout: into the log (`log_to_driver` spares these)."""
    for line in data.get("lines", ()):
        logging.getLogger("nash_search.ray").debug("%s", line)


def gpu_share(workers: int) -> float:
    """GPU per trial, so that as many trials as workers fit (scheduling only; memory is not divided)."""
    gpus = float(ray.cluster_resources().get("GPU", 0))
    return min(1.0, gpus / workers) if gpus else 0.0
