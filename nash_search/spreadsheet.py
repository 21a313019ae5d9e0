"""A cell that no spreadsheet takes for a formula, in every CSV we write or pass on.

This module refuses to know which table the cell is in.
"""

from __future__ import annotations

import re
from typing import Any

_FORMULA = re.compile(r"^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|^[\t\r\n]")
_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")


def csv_cell(value: Any) -> Any:
    """A cell no spreadsheet runs as a formula; numbers stay numbers.

    Text that starts with `= + - @` (blanks before them and full-width forms included) or a control character
    gets a leading apostrophe.
    """
    if not isinstance(value, str) or _NUMBER.match(value):
        return value
    return f"'{value}" if _FORMULA.match(value) else value
