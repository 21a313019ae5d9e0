"""How many times the seconds of one call's certificate does a percentile's take?

    a model     one decoder block with 40 % of the encoder, random weights: lengths are forced, quality is of no matter
    one call    nash-search measure MODEL --against TEACHER --batch-size 1 --input-tokens 16 --output-tokens 16
    requests    nash-search measure MODEL --against TEACHER --batch-size 1 --traffic LENGTHS.jsonl --percentile 99

Multi30k's teacher and the lengths of its train split as results/percentiles-multi30k/eager.json holds them, five fresh
processes each, wall time of the whole command. Eager and CTranslate2, turn and turn about: one call first, then
requests first, as far as the limit reaches. Goal: twice at most. The load of the machine stands beside each command;
where it is not idle, seconds of a core (its processes run one after the other, on one thread) say more than the clock.
Writes results/percentiles-multi30k/seconds.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from nash_search import pruner
from nash_search.config import Architecture
from nash_search.files import write_atomic
from nash_search.tasks import models

BILL = "10 minutes of two idle cores"

RESULTS = Path(__file__).parents[1] / "results"
TEACHER, OUT = RESULTS / "multi30k-en-de" / "teacher", RESULTS / "percentiles-multi30k" / "seconds.json"
SHAPE = Architecture(encoder_sparsity_pct=60, decoder_layers=1)
PERCENTILE, TIMES = 99, 2.0
TURNS = (("eager", 1), ("ctranslate2", 1), ("ctranslate2", -1), ("eager", -1))
"""Runtime, and which of the two commands begins."""


def lengths(file: Path) -> Path:
    """The requests of the committed study, one a line."""
    workload = json.loads((OUT.parent / "eager.json").read_text("utf-8"))["workload"]
    pairs = [pair.split(">") for pair in workload["traffic"]["requests"].split()]
    rows = [json.dumps({"input_tokens": int(read), "output_tokens": int(written)}) for read, written in pairs]
    file.write_text("\n".join(rows) + "\n", "utf-8")
    return file


def spent_s() -> float:
    """CPU seconds of every command so far, its processes with it."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def timed(command: list[str]) -> dict[str, Any]:
    """Seconds of one command and of the cores it had, the machine's load before it, and what it says."""
    load, began, before_s = os.getloadavg()[0], time.monotonic(), spent_s()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise RuntimeError(done.stderr)
    told = json.loads(done.stdout)
    found = {"seconds": round(time.monotonic() - began, 1), "cpu_s": round(spent_s() - before_s, 1), "load": load}
    named = ("status", "latency_ms", "lower_ms", "upper_ms", "speedup", "percentiles")
    return found | {"pairs": len(told["runs_ms"])} | {name: told[name] for name in named if name in told}


def main() -> int:
    """Print each command's seconds, then how many times they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit-s", type=float, default=600, help="no turn begins that would end after it")
    parser.add_argument("--runtimes", nargs="+", default=["eager", "ctranslate2"], choices=["eager", "ctranslate2"])
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    began, rows = time.monotonic(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        tokenizer = models.load_tokenizer(models.vet(TEACHER))
        pruner.save(pruner.random_cut(pruner.load(TEACHER), SHAPE), model, tokenizer=tokenizer)
        ways = {
            "one call": ["--input-tokens", "16", "--output-tokens", "16"],
            f"p{PERCENTILE}": [
                "--traffic",
                str(lengths(model.with_name("lengths.jsonl"))),
                "--percentile",
                f"{PERCENTILE}",
            ],
        }
        for runtime, order in [turn for turn in TURNS if turn[0] in asked.runtimes]:
            known_s = sum(row["seconds"] for row in rows if row["runtime"] == runtime)
            if time.monotonic() - began + known_s > asked.limit_s:
                continue
            settings = [
                "--batch-size",
                "1",
                "--threads",
                "1",
                "--runtime",
                runtime,
                "--results",
                scratch,
                "--json",
                "--quiet",
            ]
            for way in list(ways)[::order]:
                command = [sys.executable, "-m", "nash_search", "measure", str(model), "--against", str(TEACHER)]
                rows.append({"runtime": runtime, "way": way} | timed(command + settings + ways[way]))
                told = "{runtime}, {way}: {seconds} s, {cpu_s} of a core, for {pairs} pairs, {status}, load {load:.1f}"
                print(told.format(**rows[-1]), flush=True)
                write_atomic(asked.out, json.dumps(rows, indent=1) + "\n")
    missed = 0
    for runtime, unit in itertools.product(dict.fromkeys(row["runtime"] for row in rows), ("seconds", "cpu_s")):
        one, many = (
            statistics.mean(row[unit] for row in rows if (row["runtime"], row["way"]) == (runtime, way)) for way in ways
        )
        missed += many > TIMES * one
        print(f"{runtime}, {unit}: {many:.0f} against {one:.0f}, {many / one:.2f} times (goal: {TIMES:g})")
    return 1 if missed else 0
