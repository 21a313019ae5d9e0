"""Wheels that a GPU image without network lacks, gathered where there is one.

    make gpu-wheels              build/wheels for runs A and B, build/wheels-ctranslate2 for run C; then, there,
    bash experiments/gpu/run.sh A

The image is taken to have Python 3.12 and, with what they need, torch, transformers, aiohttp, matplotlib, narwhals,
numpy, pandas, psutil, pyarrow, requests, sacrebleu, scipy and xxhash. Ray (79 MB) is left out, for the study searches
with `--serial`. Versions are constraints.txt's.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

MB = 1_000_000
LIMIT_MB = 30
"""Of the wheels for runs A and B."""
STUDY = (
    "alembic annotated-doc annotated-types bottle click colorlog datasets defusedxml dill evaluate filelock jiwer Mako "
    "markdown-it-py mdurl multiprocess nvidia-ml-py optuna optuna-dashboard plotly pydantic pydantic_core Pygments "
    "RapidFuzz rich shellingham SQLAlchemy typer typing_extensions typing-inspection"
).split()
CTRANSLATE2 = (
    "annotated-types ctranslate2 nvidia-ml-py pydantic pydantic_core typing_extensions typing-inspection".split()
)
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
    """Exit code 1 where those of runs A and B are more than the limit."""
    parser = argparse.ArgumentParser(prog="python3 -m experiments.gpu.wheels")
    parser.add_argument("folder", type=Path, help="where they go; CTranslate2's beside it")
    parser.add_argument("--python", default="3.12", help="version that will import them (default: %(default)s)")
    asked = parser.parse_args()
    study = gathered(asked.folder, STUDY, asked.python)
    gathered(asked.folder.with_name(f"{asked.folder.name}-ctranslate2"), CTRANSLATE2, asked.python)
    return 0 if study <= LIMIT_MB else 1


def gathered(folder: Path, names: list[str], python: str) -> float:
    """Fetch the wheels of these packages; how many MB they are."""
    folder.mkdir(parents=True, exist_ok=True)
    constraints = Path("constraints.txt").read_text("utf-8")
    wanted = [pinned(name, constraints) for name in names]
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *PLATFORM, "--python-version", python]
    subprocess.run([*fetch, "--dest", folder, *wanted], check=True)
    wheels = list(folder.glob("*.whl"))
    size = sum(wheel.stat().st_size for wheel in wheels) / MB
    print(f"{folder}: {len(wheels)} wheels, {size:.1f} MB")
    return size


if __name__ == "__main__":
    sys.exit(main())
