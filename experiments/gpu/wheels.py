"""Wheels that a GPU image without network lacks, gathered where there is one.

    make gpu-wheels        then, there, in the repository's folder:
    python3 -m pip install --no-index --no-deps --target site build/wheels/*.whl
    PYTHONPATH=site python3 -m experiments gpu-study

The image is taken to have Python 3.12, torch, transformers, numpy, pandas, scipy, pyarrow and sacrebleu. Ray (79 MB) is
left out, for the study searches with `--serial`. Versions are constraints.txt's.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

MIB = 2**20
LIMIT_BYTES = 30 * MIB
NAMES = (
    "alembic annotated-doc annotated-types bottle click colorlog datasets defusedxml dill evaluate filelock jiwer Mako "
    "markdown-it-py mdurl multiprocess nltk nvidia-ml-py optuna optuna-dashboard plotly pydantic pydantic_core "
    "Pygments RapidFuzz rich shellingham SQLAlchemy typer typing_extensions typing-inspection"
).split()
BUILT = ("rouge_score",)
"""Published as source alone."""
PLATFORM = [
    *("--only-binary=:all:", "--implementation", "cp"),
    *(part for kind in ("_2_28", "_2_27", "_2_17", "2014") for part in ("--platform", f"manylinux{kind}_x86_64")),
]


def pinned(name: str, constraints: str) -> str:
    """The requirement as constraints.txt has it; the name alone where it has none."""
    known = re.escape(name).replace("_", "[-_]").replace(r"\-", "[-_]")
    found = re.search(rf"^{known}==\S+", constraints, re.MULTILINE | re.IGNORECASE)
    return found.group(0) if found else name


def main() -> int:
    """Exit code 1 where they are more than the limit."""
    parser = argparse.ArgumentParser(prog="python3 -m experiments.gpu.wheels")
    parser.add_argument("folder", type=Path, help="where they go")
    parser.add_argument("--python", default="3.12", help="version that will import them (default: %(default)s)")
    asked = parser.parse_args()
    folder = asked.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    constraints = Path("constraints.txt").read_text("utf-8")
    pip = [sys.executable, "-m", "pip"]
    wanted = [pinned(name, constraints) for name in NAMES]
    subprocess.run(
        [*pip, "download", "--quiet", "--no-deps", *PLATFORM, "--python-version", asked.python, "-d", folder, *wanted],
        check=True,
    )
    with tempfile.TemporaryDirectory() as scratch:
        built = [pinned(name, constraints) for name in BUILT]
        subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, *built], cwd=scratch, check=True)
    wheels = list(folder.glob("*.whl"))
    size = sum(wheel.stat().st_size for wheel in wheels)
    print(f"{len(wheels)} wheels, {size / MIB:.1f} of at most {LIMIT_BYTES / MIB:.0f} MiB, in {folder}")
    return 0 if size <= LIMIT_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
