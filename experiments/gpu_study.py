"""What is a GPU worth to this tool, and do its promises hold there?

    make gpu-study                     run A on a GPU: everything
    make gpu-study RUN=B               batches that fill it, a peer's lengths; what time A left to compile and training
    make gpu-study RUN=C               CTranslate2 on the GPU
    make gpu-wheels                    what a GPU image without network lacks, in build/wheels (30 MB; Ray is not in it)
    make gpu-study DEVICE=cpu TINY=1   a rehearsal where there is no GPU

Every part is a process of its own: a CUDA error ends that part only. All are started at once, so that they import
side by side, and run one after the other; what a part leaves of its time the later ones have. A part writes its raw
samples line by line as it takes them, and one that ended whole is not run again. At most 8 files in the folder.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

BILL = "8 minutes of one GPU"
RUNS = {
    "A": (470.0, ("machine", "clock", "search", "eager", "training", "compile")),
    "B": (300.0, ("batches", "compile", "training")),
    "C": (150.0, ("machine", "ctranslate2")),
}
LIMIT_S = {
    "machine": 25,
    "clock": 110,
    "search": 200,
    "eager": 75,
    "training": 60,
    "batches": 120,
    "compile": 600,
    "ctranslate2": 90,
}
"""At most, imports not counted."""
IMPORTS_S = 100.0
REHEARSED = 5
"""A rehearsal has so many times the seconds: a CPU is slower, and nothing there is a result."""
LEAST_S = 10.0
SEARCH = """\
task: {{name: g2p, validation_examples: {examples}{train}}}
search_space: {{encoder_sparsity_pct: [0, 80, {step}], decoder_layers: {layers}, decoder_selection: [scored]}}
trials: {trials}
recipe: {{narrow_steps: {narrow}, tune_steps: {tune}, batch_size: {batch}, {rates}}}
workload: {{batch_size: {call}, threads: 1}}
certify_rounds: {rounds}
certify_pairs: {pairs}
"""
FULL = {"examples": 2000, "train": "", "step": 10, "layers": "[1, 2, 3, 4, 5, 6]", "trials": 6}
FULL_COST = {"narrow": 250, "tune": 350, "batch": 128, "call": 64, "rounds": 3, "pairs": 20}
TINY = FULL | {"examples": 16, "train": ", train_examples: 64, test_examples: 16", "step": 80, "layers": "[1, 2]"}
TINY_COST = {"trials": 2, "narrow": 2, "tune": 2, "batch": 8, "call": 4, "rounds": 2, "pairs": 4}
RATES = "learning_rate: 2.0e-3, tune_learning_rate: 2.0e-3"
KEPT = "summary.json probe.json certification.json trials.csv front.csv log.txt front.png record.json measurement.json"
"""Files of the search's study that come back, in one archive."""


def main() -> int:
    """Run the parts that are not done yet; exit code 1 when one of them ended otherwise than whole."""
    asked = arguments()
    began = time.monotonic()
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-study-ready-") as ready:
        told = run_parts(asked, began, Path(ready))
    say_all(asked.out)
    parts = "; ".join(f"{name}: {how}" for name, how in told)
    print(f"== parts: {parts}; {time.monotonic() - began:.0f} s in all")
    return 0 if all(how.startswith(("code 0", "code 3")) for _, how in told) else 1


def run_parts(asked: argparse.Namespace, began: float, ready: Path) -> list[tuple[str, str]]:
    """Each part and how it ended; `ready` is where a part says that it has imported what it needs."""
    seconds, names = RUNS[asked.run]
    end = began + (asked.seconds or seconds * (REHEARSED if asked.tiny else 1))
    todo = [p for p in (asked.parts.split(",") if asked.parts else names) if not done(asked.out, p)]
    children = {name: start(name, asked, ready / name) for name in todo if name != "search"}
    told = []
    for name in todo:
        if name in children:
            patience = min(time.monotonic() + IMPORTS_S * (REHEARSED if asked.tiny else 1), end)
            while not (ready / name).exists() and children[name].poll() is None and time.monotonic() < patience:
                time.sleep(0.1)
        part_began, left_s = time.monotonic(), end - time.monotonic()
        limit_s = min(LIMIT_S[name] * (REHEARSED if asked.tiny else 1), left_s)
        print(f"== {name}: at {part_began - began:.0f} s, at most {limit_s:.0f} s", flush=True)
        if limit_s < LEAST_S:
            children[name].kill() if name in children else None
            told.append((name, "no time left"))
            continue
        code = search(asked, limit_s) if name == "search" else finish(children[name], limit_s)
        told.append((name, f"code {code}, {time.monotonic() - part_began:.0f} s"))
        print(f"== {name}: {told[-1][1]}", flush=True)
    return told


def done(out: Path, name: str) -> bool:
    """Did this part end whole in an earlier run?"""
    if name == "search":
        return (out / "search.tgz").exists()
    path = out / f"{name}.jsonl"
    return path.exists() and any("whole" in json.loads(line) for line in path.read_text("utf-8").splitlines())


def start(name: str, asked: argparse.Namespace, ready: Path) -> subprocess.Popen[str]:
    """A part that imports what it needs, touches `ready` and waits for its seconds on stdin."""
    command = [sys.executable, "-m", "experiments.gpu", name, "--out", str(asked.out), "--device", asked.device]
    command += ["--ready", str(ready), *["--tiny"] * asked.tiny]
    return subprocess.Popen(command, stdin=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], limit_s: float) -> int | str:
    """Let a waiting part go; it plans for less than its limit and is ended a little after it."""
    try:
        process.communicate(f"{limit_s - 4:.1f}\n", timeout=limit_s + 8)
        return process.returncode
    except (subprocess.TimeoutExpired, BrokenPipeError):
        process.kill()
        process.wait()
        return "killed"


def search(asked: argparse.Namespace, limit_s: float) -> int | str:
    """The real command, as a user types it; what it printed, and its study without weights."""
    with tempfile.TemporaryDirectory(prefix="gpu-study-") as folder:
        config, results = Path(folder, "search.yaml"), Path(folder, "results")
        settings = TINY | TINY_COST if asked.tiny else FULL | FULL_COST
        config.write_text(SEARCH.format(**settings, rates=RATES))
        command = [
            sys.executable,
            "-u",
            "-m",
            "nash_search",
            "--config",
            str(config),
            "--serial",
            "--json",
            "--no-engines",
        ]
        command += ["--device", asked.device, "--budget-ms", "70%", "--budget-ms", "50%", "--results", str(results)]
        command += ["--study", "gpu", "--time-budget", f"{max(30.0, 0.8 * limit_s):.0f}s"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        interrupted = threading.Timer(limit_s, lambda: process.send_signal(2))
        killed = threading.Timer(limit_s + 15, process.kill)
        interrupted.start(), killed.start()
        began = time.monotonic()
        with open(asked.out / "search.log", "w", buffering=1) as log:
            for line in process.stdout or ():
                log.write(f"[{time.monotonic() - began:6.1f}] {line}")
        code = process.wait()
        interrupted.cancel(), killed.cancel()
        with tarfile.open(asked.out / "search.part", "w:gz") as tar:
            for path in sorted(results.glob("gpu/**/*")):
                if path.name in KEPT.split():
                    tar.add(path, path.relative_to(results))
        (asked.out / "search.part").rename(asked.out / ("search.tgz" if code in (0, 3) else "search-unfinished.tgz"))
    return code


def say_all(out: Path) -> None:
    """A short table last, for whoever sees only the end of the output."""
    print("\n== what was measured (raw samples are in the files)")
    for path in sorted(out.glob("*.jsonl")):
        for text in path.read_text("utf-8").splitlines():
            row: dict[str, Any] = json.loads(text)
            if "say" in row:
                print(f"{path.stem:12s} {row['say']}")
            elif "error" in row:
                print(f"{path.stem:12s} ERROR {row.get('what', '')}: {row['error'].strip().splitlines()[-1][:150]}")


def arguments() -> argparse.Namespace:
    """What is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", choices=RUNS, default="A")
    parser.add_argument("--parts", default="", help="other parts than the run's, by name with commas")
    parser.add_argument("--seconds", type=float, help="for everything; the run's own otherwise")
    parser.add_argument("--out", type=Path, default=Path("results/gpu-study"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small models and five times the seconds: a rehearsal")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
