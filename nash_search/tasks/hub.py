"""Hub or disk: whether a name is a local path, and whether the hub can be reached at all.

Without a network the Hugging Face libraries retry for 20 to 50 seconds. One short look at the hub
comes first; when it fails they are put into offline mode, where what is cached loads at once and
everything else fails at once.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

from nash_search.config import DATA_FORMATS

LOOK_S = 3.0
"""Longest wait for the hub's address and one connection, seconds."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def is_hub_id(name: str) -> bool:
    """Whether a name that is no existing path can be a hub id (`owner/name` or `name`)."""
    return bool(_HUB_ID.fullmatch(name)) and ".." not in name and "--" not in name


def is_local(name: str) -> bool:
    """Whether a name means a path: it exists, or it cannot be a hub id."""
    if "\0" in name:
        return True
    try:
        return os.path.lexists(name) or not is_hub_id(name) or Path(name).suffix in _FILE_SUFFIXES
    except OSError:
        return True


def exists(name: str) -> bool:
    """Whether something is there; a name that no file can have is nothing."""
    try:
        return "\0" not in name and Path(name).exists()
    except OSError:
        return False


_FILE_SUFFIXES = frozenset(
    [
        *(f".{name.lower()}" for name in DATA_FORMATS),
        *".gz .txt .pkl .pickle .pt .bin .arrow .py .yaml .yml .zip .safetensors".split(),
    ]
)
"""A name that ends like a file is one, also when it is missing."""


def reachable() -> bool:
    """Look once whether the hub answers; if not, put the libraries into offline mode.

    A proxy or offline mode in the environment is believed without a look.
    """
    if _offline_asked():
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    answered: list[bool] = []

    def look() -> None:
        try:
            port = endpoint.port or (80 if endpoint.scheme == "http" else 443)
            with socket.create_connection((endpoint.hostname or "", port), timeout=LOOK_S):
                answered.append(True)
        except (OSError, ValueError):
            pass

    thread = threading.Thread(target=look, daemon=True)  # a name look-up cannot be given a timeout
    thread.start()
    thread.join(LOOK_S)
    if answered:
        return True
    _go_offline()
    return False


def _offline_asked() -> bool:
    asked = (os.environ.get(name, "").upper() for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(value in {"1", "ON", "YES", "TRUE"} for value in asked)


def _go_offline() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name in ("huggingface_hub.constants", "datasets.config"):  # read the environment when imported
        if name in sys.modules:
            setattr(sys.modules[name], "HF_HUB_OFFLINE", True)  # noqa: B010
