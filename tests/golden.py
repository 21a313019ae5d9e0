"""Golden records: does this commit do what its parent did? For moves only; behaviour that changes shows here.

    python tests/golden.py --parent HEAD^ [--fast: without the g2p trials]

Both commits run the same commands on this machine: every `--help`, a dozen bad inputs, a synthetic study with its
`resume`, `pick` and `report`, one real g2p trial, and `pick` on every committed study. Each leaves a flat table
`what -> value` of its files, keys, rows, exit codes and weights. The parent runs twice: a line in which the
parent differs from itself (a time, a path, a process id) says nothing and is left out, so no list of such keys
has to be kept. Every other line in which the commits differ is printed, and the exit code is 1.

The script imports nothing of the package, for its modules are what moves.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HELP = [[], *[[c] for c in "probe measure remeasure finetune init resume recover report pick dashboard".split()]]
BAD = [
    ["--budget-ms", "0"],
    ["--budget-ms", "abc"],
    ["--budgets", "40"],
    [],
    ["--config", "nowhere", "--budget-ms", "50%"],
    ["--config", "smoke", "--budget-ms", "50%", "--trials", "0"],
    ["--config", "smoke", "--budget-ms", "50%", "--sampler", "magic"],
    ["--model", "/nonexistent", "--data", "/nonexistent", "--budget-ms", "50%"],
    ["pick", "nothing", "--budget-ms", "50%"],
    ["resume", "nothing"],
    ["report", "nothing"],
    ["measure", "/nonexistent"],
]
SMOKE = ["--config", "smoke", "--budget-ms", "100%", "--serial", "--study", "real"]


class Tree:
    """One commit, checked out, and what its commands leave in a folder of its own."""

    def __init__(self, code: Path, work: Path) -> None:
        self.code, self.work, self.found = code, work, dict[str, Any]()
        work.mkdir(parents=True)

    def record(self, *, real: bool) -> dict[str, Any]:
        """Run everything; the flat table."""
        for words in HELP:
            self._command(f"help {' '.join(words)}", [*words, "--help"])
        for words in BAD:
            self._command(f"bad {' '.join(words)}", words)
        self._synthetic()
        self._committed()
        if real:
            self._command("real", [*SMOKE, "--results", "real", "--json"])
            self._folder(self.work / "real" / "real", "real")
        return self.found

    def _synthetic(self) -> None:
        (crash,) = self.code.glob("tests/**/crash.py")
        for name in ("first", "again"):
            self._run(f"synthetic {name}", [sys.executable, str(crash), "synthetic", "6", "{}"])
        for words in (["pick", "s", "--budget-ms", "60%", "--json"], ["report", "s"]):
            self._command(f"synthetic {words[0]}", [*words, "--results", "synthetic"])
        self._folder(self.work / "synthetic" / "s", "synthetic")

    def _committed(self) -> None:
        # both commits read the studies that this checkout has, so a study that only one of them can load shows
        for summary in sorted((ROOT / "results").glob("**/summary.json")):
            study = summary.parent
            copy = self.work / "committed" / study.name
            shutil.copytree(study, copy, ignore=shutil.ignore_patterns("*.png", "*.svg", "teacher"))
            words = ["pick", study.name, "--budget-ms", "55%", "--json", "--results", str(copy.parent)]
            self._command(f"committed {study.name}", words)

    def _command(self, name: str, words: list[str]) -> None:
        self._run(name, [sys.executable, "-m", "nash_search", *words])

    def _run(self, name: str, command: list[str]) -> None:
        env = os.environ | {"PYTHONPATH": str(self.code), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
        if name.startswith("synthetic"):
            env["NASH_SEARCH_EVALUATOR"] = "tests.synthetic_evaluator:SyntheticEvaluator"
        done = subprocess.run(command, cwd=self.work, env=env, capture_output=True, text=True, timeout=900)
        self.found[f"{name}: exit code"] = done.returncode
        lines = done.stdout.splitlines()
        if lines and lines[-1].startswith("{"):
            self._flat(f"{name}: json", json.loads(lines.pop()))
        for stream, text in (("stdout", lines), ("stderr", done.stderr.splitlines())):
            for i, line in enumerate(text):
                self.found[f"{name}: {stream} {i}"] = self._anywhere(line)

    def _folder(self, folder: Path, name: str) -> None:
        """Every file of a study: names, JSON leaves, database rows, and hashes of the rest."""
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            file = f"{name}/{path.relative_to(folder)}"
            if path.suffix == ".json":
                self._flat(file, json.loads(path.read_text("utf-8")))
            elif path.suffix == ".db":
                for row, value in database_rows(path):
                    self.found[f"{file} {row}"] = self._anywhere(value)
            else:
                self.found[file] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]

    def _flat(self, name: str, value: Any) -> None:
        if isinstance(value, dict | list):
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            self.found[f"{name} size"] = len(value)
            for key, inner in pairs:
                self._flat(f"{name}.{key}", inner)
        else:
            self.found[name] = self._anywhere(value) if isinstance(value, str) else value

    def _anywhere(self, text: str) -> str:
        return text.replace(str(self.work), "WORK").replace(str(self.code), "CODE")


def database_rows(path: Path) -> Iterator[tuple[str, str]]:
    """Every row of every table of a study's database, as text."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        for table in sorted(tables):
            for i, row in enumerate(database.execute(f'select * from "{table}"')):
                yield f"{table} {i}", json.dumps(row, default=str)


def differences(old: dict[str, Any], again: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Lines in which the new commit differs from its parent and the parent not from itself."""
    steady = {k: v for k, v in old.items() if k in again and again[k] == v}
    noisy = (old.keys() | again.keys()) - steady.keys()
    found = [f"changed  {k}: {v!r} -> {new[k]!r}" for k, v in steady.items() if k in new and new[k] != v]
    found += [f"gone     {k}" for k in old if k in again and k not in new]
    return found + [f"new      {k}: {new[k]!r}" for k in new if k not in old and k not in noisy]


def main() -> int:
    """Compare; 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parent", default="HEAD^", help="commit to compare the working tree with")
    parser.add_argument("--fast", action="store_true", help="without the real g2p trials")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        parent = Path(folder) / "parent"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", parent, asked.parent], cwd=ROOT, check=True)
        try:
            trees = [Tree(code, Path(folder) / name) for code, name in ((parent, "a"), (parent, "b"), (ROOT, "c"))]
            old, again, new = (tree.record(real=not asked.fast) for tree in trees)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", parent], cwd=ROOT, check=True)
    found = differences(old, again, new)
    print("\n".join(found))
    print(f"{len(old)} lines, {sum(again.get(k) == v for k, v in old.items())} of them steady, {len(found)} differ")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
