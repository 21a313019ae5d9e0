"""One part: imports what it needs, says so, waits for its seconds, measures until they are over."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

PARTS = {
    "machine": "machine.run",
    "clock": "clock.run",
    "eager": "table.eager",
    "batches": "table.batches",
    "training": "training.run",
    "compile": "table.compiled",
    "ctranslate2": "table.ctranslate2",
}
"""Part -> module and function; only that module is imported, for run C brings no package that the others need."""


class Lines:
    """A JSONL file, on disk line by line, so that a part which is ended loses nothing."""

    def __init__(self, path: Path, began: float) -> None:
        self._file, self._began = path.open("a", buffering=1), began

    def __call__(self, **row: Any) -> None:
        row = {"at_s": round(time.monotonic() - self._began, 2), **row}
        self._file.write(json.dumps(row, default=str) + "\n")
        os.fsync(self._file.fileno())


def main() -> int:
    """Exit code 1 after an error, which is in the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--ready", type=Path, required=True, help="touched once everything is imported")
    asked = parser.parse_args()
    began = time.monotonic()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

    import transformers

    module, _, function = PARTS[asked.part].partition(".")
    run = getattr(import_module(f"experiments.gpu.{module}"), function)
    transformers.logging.set_verbosity_error()
    imported_s = time.monotonic() - began
    asked.ready.touch()
    line = sys.stdin.readline()
    if not line:  # the parent has no time left for this part
        return 9
    began = time.monotonic()
    write = Lines(asked.out / f"{asked.part}.jsonl", began)
    write(what="imports", imported_s=imported_s)
    try:
        run(asked.device, asked.tiny, write, began + float(line))
    except BaseException:
        write(what=asked.part, error=traceback.format_exc())
        return 1
    write(what=asked.part, whole=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
