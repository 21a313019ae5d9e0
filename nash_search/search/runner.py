"""How trials are run: one after the other in this process, or side by side as Ray Tune trials.

The only importer of ray. Both runners call `driver.next()` and `driver.finish()`, nothing else, so the study
cannot tell them apart. This module refuses to know what is proposed and what a trial does.
"""

from __future__ import annotations

import os

from nash_search.config import SearchConfig
from nash_search.search import serial
from nash_search.search.driver import Driver
from nash_search.search.signals import Interruption


def worker_count(config: SearchConfig) -> int:
    """Trials side by side: as asked, else one per CPU core of this process."""
    return config.workers or len(os.sched_getaffinity(0))


def run(driver: Driver, interruption: Interruption) -> None:
    """Take over the dense model, then run jobs until the driver has no more."""
    dense = driver.dense_job()
    if dense is not None:
        serial.run_job(dense, driver, interruption, dense=True)
    serial.run(driver, interruption)
