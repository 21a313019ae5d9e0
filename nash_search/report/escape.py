"""Foreign text made harmless, once per medium: terminal, Markdown, JSON inside HTML, plot labels.

Study names, error messages and dataset cells come from outside. Each function here answers one
question, "what must I write so that this medium shows exactly these characters and does nothing
else". HTML itself is Jinja2's autoescape, CSV is `nash_search.files.csv_cell`.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from typing import Any

# C0/C1 controls, and the bidirectional overrides that make a line read as something else
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_MARKDOWN = re.compile(r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=www)\.|@|^[-+=#]|(?<=^\d)[.)]")


def plain(value: object, limit: int = 400) -> str:
    """One line without control characters (shown as a space), at most `limit` characters."""
    text = _CONTROL.sub(" ", unicodedata.normalize("NFC", str(value))).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def markdown(value: object, limit: int = 400) -> str:
    """Text that Markdown renders literally: HTML as entities, every marker escaped, one line.

    `://`, `www.` and `@` too, because renderers make links and mentions of bare addresses.
    """
    escaped = _MARKDOWN.sub(r"\\\g<0>", plain(value, limit).replace("&", "&amp;"))
    # braces as entities: site generators expand {{ }} before they read Markdown
    for character, entity in (("<", "&lt;"), (">", "&gt;"), ("{", "&#123;"), ("}", "&#125;")):
        escaped = escaped.replace(character, entity)
    return escaped


def markdown_code(value: object, limit: int = 400) -> str:
    """A Markdown code span (not for table cells, where `|` has no escape that both readers agree on).

    Doubled braces are set apart: site generators expand them even inside code.
    """
    text = plain(value, limit)
    for pair in ("{{", "}}", "{%", "%}"):
        text = text.replace(pair, f"{pair[0]} {pair[1]}")
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def script_json(value: Any) -> str:
    """JSON that cannot end the `<script>` element it lies in."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text)


def plot_label(value: object, limit: int = 80) -> str:
    """Text for a Plotly label, which reads a subset of HTML."""
    return html.escape(plain(value, limit), quote=True)


def matplotlib_label(value: object, limit: int = 80) -> str:
    """Text for a matplotlib label, in which `$` starts mathematics."""
    return plain(value, limit).replace("\\", "/").replace("$", r"\$")
