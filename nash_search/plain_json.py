"""Reads small JSON objects: a user's file, or one line that says what is wrong; our own file, or None."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from nash_search.errors import InvalidInput, shown_path

MAX_BYTES = 64 << 20
"""Largest file that is read."""


def finite(value: float) -> float | None:
    """The number; None where JSON has no word for it (infinity, NaN)."""
    return value if math.isfinite(value) else None


def kept_object(file: Path) -> dict[str, Any] | None:
    """The JSON object of a file that we wrote; None where it is missing or cut short, for it can be made again."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object of a model folder's file.

    Raises:
        InvalidInput: it is not there, not readable, too large, or no JSON object.
    """
    where, name = shown_path(file.parent), file.name
    try:
        if file.stat().st_size > MAX_BYTES:
            raise InvalidInput(f"{name} must be small, but got {file.stat().st_size:,} bytes", where=where)
        found = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        fix = "name a folder that save_pretrained wrote"
        raise InvalidInput(f"model folder must hold {name}, but got none", where=where, fix=fix) from None
    except OSError as error:
        raise InvalidInput(f"{name} must be readable, but got {error.strerror}", where=where) from None
    except InvalidInput:
        raise
    except (ValueError, RecursionError):
        raise InvalidInput(f"{name} must be JSON, but got something else", where=where) from None
    if not isinstance(found, dict):
        raise InvalidInput(f"{name} must be a JSON object, but got a {type(found).__name__}", where=where)
    return found
