"""How far can the clock be trusted on this machine?

Repeated runs of the real protocol:

    one run      R fresh processes, each timing dense (6 decoder blocks), half (3), a twin of dense,
                 and dense with a planted +5 % and +10 %, all interleaved
    two runs     joined to one of 2R rounds, for the smaller effect

Prints two tables for results/LOG.md (every run, then the promises), keeps every sample in one file,
and ends with exit code 1 where a promise of "What a budget means" does not hold here. A killed study
goes on after its last whole run, on the same device and software only. Machines differ, so this is no test.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import mean, median

import torch
from transformers import T5Config, T5ForConditionalGeneration
from transformers.utils import logging

from nash_search import device as devices
from nash_search import intervals
from nash_search.config import Workload
from nash_search.latency import fresh, runtimes, timing
from nash_search.latency.fresh_round import main as one_round
from nash_search.latency.runtimes.eager import Eager, EagerSession
from nash_search.latency_record import Latency

BILL = "30 minutes on idle cores, 75 on busy ones"

PLANTED = {"twin": 0.0, "plus5": 0.05, "plus10": 0.10}


class PlantedSession(EagerSession):
    """Takes exactly the planted share longer, on the same core, every time."""

    def generate(self):
        began_ns = time.perf_counter_ns()
        output = super().generate()
        until_ns = began_ns + (time.perf_counter_ns() - began_ns) * (1 + self.model.config.planted_share)
        while time.perf_counter_ns() < until_ns:
            pass
        return output


class PlantedRuntime(Eager):
    """Eager, except for models whose config plants a delay."""

    def build(self, model, workload, inputs):
        if getattr(model.config, "planted_share", 0.0):
            return PlantedSession(model, workload, self.inputs(model, workload, inputs))
        return super().build(model, workload, inputs)


def save_models(root: Path) -> None:
    """The embedded task's shape, random weights: latency depends on shapes only."""
    logging.disable_progress_bar()

    def model(blocks, **config):
        torch.manual_seed(0)
        sizes = {"vocab_size": 80, "d_model": 64, "d_kv": 16, "d_ff": 256, "num_layers": 6, "num_heads": 4}
        config = T5Config(**sizes, num_decoder_layers=blocks, decoder_start_token_id=0, **config)
        return T5ForConditionalGeneration(config)

    model(6).save_pretrained(root / "dense")
    model(3).save_pretrained(root / "half")
    for name, share in PLANTED.items():
        model(6, planted_share=share).save_pretrained(root / name)


def spin() -> None:
    """A busy neighbour."""
    while True:
        pass


def busy_run(run, neighbours: int, rounds: int) -> Latency:
    """One short run beside busy loops on every core."""
    loops = [multiprocessing.Process(target=spin, daemon=True) for _ in range(neighbours)]
    for loop in loops:
        loop.start()
    try:
        return run(["half"], rounds=rounds)["half"]
    finally:
        for loop in loops:
            loop.kill()
            loop.join()


def different(latency: Latency) -> bool:
    """Whether the interval of the paired ratio leaves out 1."""
    lower, upper = latency.ratio_bounds
    return not lower <= 1 <= upper


def joined(first: Latency, second: Latency) -> Latency:
    """Two runs as one of twice the rounds."""
    return first.model_copy(update={"rounds": first.rounds + second.rounds})


def save(keep: Path, found: dict[str, list[Latency]]) -> None:
    """Every sample so far, replaced whole."""
    keep.parent.mkdir(parents=True, exist_ok=True)
    beside = keep.with_suffix(".new")
    with gzip.open(beside, "wt") as out:
        json.dump({name: [r.model_dump(mode="json") for r in latencies] for name, latencies in found.items()}, out)
    beside.replace(keep)


def kept(keep: Path, rounds: int, pairs: int, workload: Workload, fingerprint: str) -> dict[str, list[Latency]]:
    """The runs of an interrupted study of these very settings on this device; none of any other."""
    nothing: dict[str, list[Latency]] = {name: [] for name in ("half", *PLANTED)}
    try:
        with gzip.open(keep, "rt") as stored:
            read = json.load(stored)
        found = {name: [Latency.model_validate(r) for r in read[name]] for name in nothing}
    except (OSError, EOFError, ValueError, KeyError):
        return nothing
    same = all(
        (len(x.rounds), len(x.runs_ms), x.workload, x.fingerprint.get("hash"))
        == (rounds, rounds * pairs, workload, fingerprint)
        for latencies in found.values()
        for x in latencies
    )
    return found if same else nothing


def study(
    runs: int, rounds: int, pairs: int, workload: Workload, keep: Path
) -> tuple[dict[str, list[Latency]], Latency]:
    """The latencies by name, one of each per run, after `2 * runs` runs; and those beside busy loops.

    Raises:
        SystemExit: a run had not all its rounds (others kept the device); the whole ones are kept.
    """
    here = runtimes.fingerprint(devices.resolve(workload.device), workload)["hash"]
    found = kept(keep, rounds, pairs, workload, here)
    if found["half"]:
        print(f"{keep} has {len(found['half'])} of {2 * runs} runs; move it away to begin anew", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        save_models(root)
        fresh.run_job = partial(fresh.run_job, entry=(str(Path(__file__).resolve()), "--round"))

        def run(names, rounds=rounds):
            folders = {name: root / name for name in names}
            taken = fresh.measure_fresh(folders, root / "dense", workload, rounds=rounds, pairs=pairs, limit_s=3600)
            for name, latency in taken.items():
                if latency.cut_short:
                    raise SystemExit(
                        f"a run must have {rounds} whole rounds, but got {len(latency.rounds)} for {name} "
                        "before its time was up: free the device and run the study again"
                    )
            return taken

        print(HEAD, flush=True)
        for index in range(len(found["half"]), 2 * runs):
            for name, latency in run(found).items():
                found[name].append(latency)
            save(keep, found)
            print(row(index, found), flush=True)
        loud = busy_run(run, multiprocessing.cpu_count(), min(2, rounds))
    save(keep, found | {"busy": [loud]})
    return found, loud


HEAD = """| run | dense ms | 3 of 6 blocks | twin | planted +5 % | planted +10 % | pairs flagged |
|---|---|---|---|---|---|---|"""


def row(index: int, found: dict[str, list[Latency]]) -> str:
    """One run in the table: the ratios to dense with their 95 % intervals."""

    def ratio(name: str) -> str:
        lower, upper = found[name][index].ratio_bounds
        return f"{found[name][index].ratio:.3f} ({lower:.3f} to {upper:.3f})"

    half = found["half"][index]
    ratios = " | ".join(map(ratio, ("half", *PLANTED)))
    return f"| {index + 1} | {half.dense_ms:.1f} | {ratios} | {100 * half.contended_share:.0f} % |"


def judged(found: dict[str, list[Latency]], loud: Latency, runs: int, rounds: int) -> list[tuple[str, str, bool]]:
    """The promises, one row each."""
    ratios = [latency.ratio for latency in found["half"][:runs]]
    spread = max(abs(r / mean(ratios) - 1) for r in ratios)
    medians = [latency.median_ms for latency in found["half"][:runs]]
    absolute = max(abs(m / mean(medians) - 1) for m in medians)
    false_alarms = sum(map(different, found["twin"]))
    ten = sum(intervals.verdict(x.ratio_bounds, 1.0) == "missed" for x in found["plus10"][:runs])
    pairs_of_runs = list(zip(found["plus5"][::2], found["plus5"][1::2], strict=True))
    five = sum(intervals.verdict(joined(a, b).ratio_bounds, 1.0) == "missed" for a, b in pairs_of_runs)
    enough = runs - max(1, runs // 10)
    without = 100 * median(x.contended_share for x in found["half"])
    return [
        (f"ratio of 3 to 6 blocks within 5 % of its mean, {runs} runs", f"{100 * spread:.1f} %", spread <= 0.05),
        ("(absolute milliseconds, for comparison)", f"{100 * absolute:.1f} %", True),
        (
            f"twins called different in <= {2 * runs // 10} of {2 * runs}",
            f"{false_alarms}",
            false_alarms <= 2 * runs / 10,
        ),
        (f"planted +10 % found in >= {enough} of {runs} runs of {rounds} rounds", f"{ten}", ten >= enough),
        (f"planted +5 % found in >= {enough} of {runs} runs of {2 * rounds} rounds", f"{five}", five >= enough),
        (
            "busy loops on every core are reported",
            f"{loud.status}: {100 * loud.contended_share:.0f} % of the pairs flagged ({without:.0f} % in the median "
            f"run without the loops), ratio {loud.ratio:.3f}",
            loud.status == "contended",
        ),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run, print, keep."""
    if (sys.argv[1:2] if arguments is None else arguments[:1]) == ["--round"]:
        timing.runtime_of = lambda workload: PlantedRuntime()
        return one_round(*sys.argv[2:4])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--keep", type=Path, default=Path("results/clock/clock.json.gz"), help="every sample")
    asked = parser.parse_args(arguments)
    workload = Workload(batch_size=asked.batch_size, input_tokens=8, output_tokens=7)
    began = time.monotonic()
    found, loud = study(asked.runs, asked.rounds, asked.pairs, workload, asked.keep)
    rows = judged(found, loud, asked.runs, asked.rounds)
    on = loud.fingerprint
    print(f"\n{on['device']}, {on['affinity']} cores; torch {on['torch']}, transformers {on['transformers']}")
    print(
        f"batch {asked.batch_size}, {workload.input_tokens} tokens in, {workload.output_tokens} out, one thread; ",
        end="",
    )
    print(f"{asked.rounds} fresh processes x {asked.pairs} pairs a run; ratios to dense with their 95 % intervals\n")
    print("\n".join([HEAD, *(row(index, found) for index in range(len(found["half"])))]))
    print("\n| promise | seen | holds |\n|---|---|---|")
    for promise, seen, holds in rows:
        print(f"| {promise} | {seen} | {'yes' if holds else 'NO'} |")
    print(f"\n{(time.monotonic() - began) / 60:.0f} minutes; every sample is in {asked.keep}")
    return 0 if all(holds for _, _, holds in rows) else 1


if __name__ == "__main__":  # a fresh process of the protocol runs this file with `--round`
    sys.exit(main())
