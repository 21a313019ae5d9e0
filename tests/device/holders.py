"""Other processes that hold a device."""

from __future__ import annotations

import subprocess
import sys


def holder(mode, seconds=600.0):
    """Another process that holds the device until it is killed."""
    code = (
        "import time; from nash_search.device.lock import DeviceGuard\n"
        f"with DeviceGuard('cpu', {mode!r}):\n    print('held', flush=True); time.sleep({seconds})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def end(process):
    process.kill()
    process.wait()
    process.stdout.close()
