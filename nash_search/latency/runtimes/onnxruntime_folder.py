"""The folder of two ONNX graphs as optimum's `ORTModelForSeq2SeqLM` and transformers.js load it.

onnxruntime/ config.json              of the family's own type, for graphs ask no code for narrow shapes
             generation_config.json
             tokenizer.json, ...      the checkpoint's
             onnx/                    encoder_model.onnx, decoder_model_merged.onnx
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from nash_search.families import PREFIX, family_of
from nash_search.latency.runtimes import onnxruntime_graphs
from nash_search.latency.runtimes.onnxruntime_graphs import DECODER, ENCODER, FIRST, NEXT
from nash_search.layouts import LAYOUTS

GRAPHS = "onnx"
INT8 = "per channel, 7 bits, encoder's second feed-forward matrices and what transformers keeps there in float32"
"""How weights are quantised; part of the fingerprint, since times and qualities of another way do not compare."""
TOKENIZER = (
    *("tokenizer", "special_tokens", "added_tokens", "vocab", "merges"),
    *("spiece", "sentencepiece", "source.", "target."),
)
"""How names of a tokenizer's files begin."""


def write(model: Any, graphs: Path, checkpoint: Path, target: Path, *, quantize: str) -> None:
    """Fill a folder from the graphs that were compared.

    Args:
        model: whose configurations are written.
        graphs: folder of the encoder, the decoder and its two branches, in float32.
        checkpoint: where the tokenizer's files lie, if anywhere.
        target: an empty folder.
        quantize: `none`, or `int8` for the matrices of weights.
    """
    (target / GRAPHS).mkdir()
    if quantize == "none":
        for file in (ENCODER, DECODER):
            _link(graphs / file, target / GRAPHS / file)
    else:
        _quantise(graphs, target / GRAPHS, keep=getattr(model, "_keep_in_fp32_modules", None) or ())
    (target / "config.json").write_text(json.dumps(stock_config(model), indent=2, sort_keys=True) + "\n", "utf-8")
    model.generation_config.save_pretrained(target)
    for found in sorted(checkpoint.iterdir()) if checkpoint.is_dir() else ():
        if found.is_file() and found.name.startswith(TOKENIZER):
            shutil.copyfile(found, target / found.name)


def stock_config(model: Any) -> dict[str, Any]:
    """The model's configuration as one of its family's own type: graphs ask no code for its narrow shapes."""
    family_of(model)
    found: dict[str, Any] = model.config.to_dict()
    found = {key: value for key, value in found.items() if key != "auto_map" and not key.startswith(PREFIX)}
    kind = str(found["model_type"]).removeprefix(PREFIX)
    return found | {"model_type": kind, "architectures": [family_of(model).stock_class.__name__]}


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # on another disk, or one without links
        shutil.copyfile(source, target)


def _quantise(graphs: Path, target: Path, *, keep: Sequence[str]) -> None:
    """Both graphs with their matrices of weights in int8.

    One scale per output channel, in 7 of the 8 bits: without VNNI a CPU adds two products of 8 bits each in 16, which
    saturates. The encoder's second feed-forward matrices stay in float32, and modules of the names `keep`, which
    transformers keeps there in half precision (T5's `wo`, the decoder's too): what they read has a few values hundreds
    of times larger than the rest, and one scale holds them all (results/LOG.md, 2026-11-27 and 2026-11-28). The
    decoder's branches are quantised before they are merged: the quantiser does not look into an `If`.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)  # it advises a preprocessing that changes nothing here, on the root logger
    try:
        for name in (ENCODER, FIRST, NEXT):
            nodes = [node.name for node in onnx.load(graphs / name).graph.node if node.op_type == "MatMul"]
            wide = {*keep, *(layout.ffn_out for layout in LAYOUTS if name == ENCODER)}
            quantize_dynamic(
                graphs / name,
                target / name,
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
                op_types_to_quantize=["MatMul"],
                nodes_to_exclude=[node for node in nodes if any(f"/{module}/" in node for module in wide)],
            )
    finally:
        logger.setLevel(before)
    onnxruntime_graphs.merge(target, target / DECODER)
    for name in (FIRST, NEXT):
        (target / name).unlink()
