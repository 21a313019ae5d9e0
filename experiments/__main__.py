"""Runs one experiment by name, or lists them: `make study NAME=clock`, `python -m experiments clock --runs 5`."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

from nash_search.errors import NashSearchError

FOLDER = Path(__file__).parent


def listed() -> dict[str, tuple[str, str]]:
    """Name -> its question (the docstring's first line) and its bill, read without importing anything."""
    found = {}
    for path in sorted(FOLDER.glob("[!_]*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        question = (ast.get_docstring(tree) or "").splitlines()[0]
        (bill,) = (
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == ["BILL"]
        )
        found[path.stem.replace("_", "-")] = (question, bill)
    return found


def main() -> int:
    """Exit code of the experiment; 2 where no such name is given."""
    name, names = " ".join(sys.argv[1:2]).replace("_", "-"), listed()
    if name not in names:
        if name:
            print(f"NAME must be one of those below, but got {name}", file=sys.stderr)
        for each, (question, bill) in names.items():
            print(f"{each:<18} {question}\n{'':<18} bill: {bill}")
        return 2 if name else 0
    del sys.argv[1]
    try:
        # imported under its own name, so that its classes can be sent to other processes
        return int(importlib.import_module(f"experiments.{name.replace('-', '_')}").main())
    except NashSearchError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
