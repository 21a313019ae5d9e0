"""Where does depth decide latency, and where the encoder's width? (the paper's first finding)

    calls      batch {1, 8, 32} x input and output tokens {(8, 8), (64, 8), (8, 64), (64, 64)}
    models     dense; half and a sixth of the decoder; 60 % of the encoder removed, at full depth and at a sixth;
               a *skeleton*: as many blocks as the dense model, of width 8, whose time is nearly all dispatch
    engines    eager, CTranslate2

Whole `generate` calls, all models of a call interleaved in one process on one thread, device to themselves. Nothing
is trained: latency depends on shapes alone. A killed study goes on after its last whole call. Prints the table
for results/LOG.md; every sample goes to results/depth-and-width/depth-and-width.jsonl.gz, a picture beside it. About
15 minutes for g2p, 8 for Multi30k at `--rounds 3 --pairs 6`.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
from pathlib import Path
from typing import Any

import torch
import transformers

from experiments.shared.drawing import Interval, forest
from nash_search import latency, pruner
from nash_search.config import Architecture, Workload
from nash_search.families import family_of
from nash_search.latency_record import Latency
from nash_search.tasks.g2p import teacher_folder

BILL = "15 minutes for g2p, 8 for Multi30k"

BATCHES = (1, 8, 32)
LENGTHS = ((8, 8), (64, 8), (8, 64), (64, 64))
ENGINES = ("eager", "ctranslate2")
NARROW_PCT = 60
DRAWN = {
    "half depth": "half of the decoder", "sixth depth": "a sixth of it",
    "narrow": f"encoder {NARROW_PCT} % narrower",
}  # fmt: skip
TINY = {
    "d_model": 8, "d_kv": 4, "d_ff": 8, "num_heads": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 8, "decoder_ffn_dim": 8,
}  # fmt: skip


def skeleton(dense: Any) -> Any:
    """As many blocks as the dense model, with next to nothing to compute in them; the vocabulary shrinks too."""
    config = copy.deepcopy(dense.config)
    config.update({name: size for name, size in TINY.items() if hasattr(config, name)} | {"vocab_size": 32})
    torch.manual_seed(0)
    return transformers.AutoModelForSeq2SeqLM.from_config(config).eval()


def models_of(dense: Any) -> dict[str, Any]:
    """Candidates by name."""
    depth = len(family_of(dense).decoder_blocks(dense))
    shapes = {
        "half depth": (0, depth // 2),
        "sixth depth": (0, max(1, depth // 6)),
        "narrow": (NARROW_PCT, depth),
        "narrow, sixth depth": (NARROW_PCT, max(1, depth // 6)),
    }
    found = {
        name: pruner.random_cut(dense, Architecture(encoder_sparsity_pct=s, decoder_layers=n))
        for name, (s, n) in shapes.items()
    }
    return found | {"skeleton": skeleton(dense)}


def measured(dense: Any, models: dict[str, Any], workload: Workload, rounds: int, pairs: int) -> dict[str, Latency]:
    """Every candidate next to the dense model; the skeleton is no model that an engine needs to serve."""
    if workload.runtime != "eager":
        models = {name: model for name, model in models.items() if name != "skeleton"}
    return latency.measure_many(models, dense, workload, rounds=rounds, pairs=pairs, limit_s=240)


def gain(found: dict[str, dict[str, Any]], name: str) -> Interval:
    """Speed-up of a model with its bounds."""
    taken = Latency.model_validate(found[name])
    low, high = taken.ratio_bounds
    return taken.speedup, 1 / high, 1 / low


def row_of(workload: Workload, found: dict[str, dict[str, Any]]) -> str:
    """One line of the table: dense ms, the encoder's share of it, speed-ups with bounds, dispatch."""
    taken = {name: Latency.model_validate(value) for name, value in found.items()}
    some = taken["half depth"]
    encoder_ms = some.details.get("dense", {}).get("encoder_ms")
    cells = [
        workload.runtime, workload.batch_size, workload.input_tokens, workload.output_tokens, f"{some.dense_ms:.1f}",
        "-" if encoder_ms is None else f"{encoder_ms / some.dense_ms:.0%}",
        *("{:.2f} ({:.2f}-{:.2f})".format(*gain(found, name)) for name in DRAWN),
        f"{taken['sixth depth'].ratio / taken['narrow, sixth depth'].ratio:.2f}",
        f"{taken['skeleton'].ratio:.0%}" if "skeleton" in taken else "-",
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def pair(text: str) -> tuple[int, int]:
    """Two lengths as typed."""
    into, out = map(int, text.split(":"))
    return into, out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=None, help="folder of the dense model (default: the g2p teacher)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--lengths", type=pair, nargs="+", default=LENGTHS, metavar="IN:OUT", help="tokens in and out")
    parser.add_argument("--out", type=Path, default=Path("results/depth-and-width/depth-and-width.jsonl.gz"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    known: dict[str, dict[str, Any]] = {}
    if asked.out.exists():
        for line in gzip.decompress(asked.out.read_bytes()).decode().splitlines():
            one = json.loads(line)
            known[one["key"]] = one
    dense = pruner.load(asked.model or teacher_folder())
    models = models_of(dense)
    rows: dict[str, list[Interval]] = {}
    print(
        "| engine | batch | in | out | dense ms | encoder's share | half the decoder | a sixth | encoder 60 % narrower "
        "| the same at a sixth | dispatch |\n|" + "---|" * 11
    )
    for engine in asked.engines:
        for batch in asked.batches:
            for into, out in asked.lengths:
                workload = Workload.model_validate(
                    {"batch_size": batch, "input_tokens": into, "output_tokens": out, "runtime": engine}
                )
                key = json.dumps([asked.model or "g2p", workload.model_dump(mode="json"), asked.rounds, asked.pairs])
                if key not in known:
                    taken = measured(dense, models, workload, asked.rounds, asked.pairs)
                    found = {name: one.model_dump(mode="json") for name, one in taken.items()}
                    known[key] = {"key": key, "found": found}
                    asked.out.parent.mkdir(parents=True, exist_ok=True)
                    lines = "".join(json.dumps(one) + "\n" for one in known.values())
                    asked.out.write_bytes(gzip.compress(lines.encode(), mtime=0))
                found = known[key]["found"]
                print(row_of(workload, found), flush=True)
                rows[f"{engine}, batch {batch}, {into} → {out}"] = [gain(found, name) for name in DRAWN]
    title = (
        f"{Path(asked.model).parent.name if asked.model else 'g2p'}: speed-up by depth and width, by tokens in → out"
    )
    forest(
        Path(str(asked.out).removesuffix(".jsonl.gz") + ".png"), title, "times faster", rows, list(DRAWN.values()), 1
    )
    return 0
