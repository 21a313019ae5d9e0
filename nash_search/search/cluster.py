"""Ray as a search wants it: quiet, private on this machine, or the cluster that was asked for.

The only module that imports ray. This module refuses to know what runs on it.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from ray.tune.search import Searcher  # noqa: E402

from nash_search.config import SearchConfig  # noqa: E402

__all__ = ["Searcher", "gpu_share", "ray", "start_ray", "tune"]

OBJECT_STORE_BYTES = 80 * 2**20


def start_ray(config: SearchConfig, workers: int, on_cpu: bool) -> None:
    """Start a private cluster on the loopback interface, or join the one asked for."""
    ray._private.worker.print_to_stdstream = hush
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL", "configure_logging": True}
    if config.ray_address is not None:
        ray.init(address=config.ray_address, **quiet)
        return
    # its ports listen on all interfaces: Ray turns token authentication on for a cluster it starts
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    with environment(worker_environment(config.workload.device)):
        ray.init(
            address="local",
            num_cpus=max(workers, 1),
            num_gpus=0 if on_cpu else None,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            **quiet,
        )


def worker_environment(device: str) -> dict[str, str]:
    """What a cluster of ours inherits: few malloc arenas (a worker has 26 threads), and of the GPUs the one named."""
    found = {} if "MALLOC_ARENA_MAX" in os.environ else {"MALLOC_ARENA_MAX": "2"}
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
