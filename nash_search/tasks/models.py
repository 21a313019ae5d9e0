"""The user's model: found, and vetted before torch is loaded.

A folder or hub id must be an encoder-decoder of a supported family, in safetensors that are whole
and fit `config.json`, with a tokenizer and without code of its own. Exports of ours are known by
their `nash_*` model type and load through our classes. Nothing is unpickled or executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nash_search import generation
from nash_search.errors import InvalidInput, message_of, shown, shown_path
from nash_search.families import FAMILIES, NOT_YET, PREFIX, family_type, find_family
from nash_search.layouts import Layout, setting
from nash_search.plain_json import read_object
from nash_search.tasks import hub

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "source.spm",
    "vocab.json",
)
FLOATS = {"BF16", "F16", "F32", "F64"}
"""What safetensors calls the types of weights that can be trained."""
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.spm", "*.txt"]
_GENERATION = ("num_beams", "length_penalty", "no_repeat_ngram_size", "early_stopping", "repetition_penalty")


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A model that was vetted: where it is and what its config says."""

    folder: Path
    model_type: str
    """The family, without our `nash_` prefix."""
    ours: bool
    """An export of ours (`nash_*`)."""
    encoder_layers: int
    decoder_layers: int
    config: Mapping[str, Any]
    generation: generation.ResolvedSettings
    """How it writes."""


def find_model(name: str, revision: str | None = None) -> ModelFolder:
    """The vetted folder behind `--model`: a local one, or a hub id fetched into the cache.

    Raises:
        InvalidInput: one line saying what the folder lacks or which rule it breaks.
    """
    if hub.is_local(name):
        return vet(Path(name))
    there = hub.reachable()
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=_HUB_FILES, local_files_only=not there)
    except Exception as error:
        reason = message_of(error)
        what = f"hub model must be readable, but got {reason}"
        if not there:
            what = "model must be a local folder or a hub model that can be reached, but got neither"
        raise InvalidInput(what, where=shown(name)[1:-1], fix="give a local folder") from None
    return vet(Path(folder))


def vet(folder: Path) -> ModelFolder:
    """Check a model folder without torch: config, weights, shapes, tokenizer, generation settings.

    Raises:
        InvalidInput: the first rule it breaks.
    """
    where, config = shown_path(folder), _own_config(folder)
    found = _family(config, config.get("model_type"), where)
    _check_shapes(found, _tensors(folder, where), where)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        fix = "save it beside the weights: tokenizer.save_pretrained(folder)"
        raise InvalidInput("model folder must hold a tokenizer, but got none", where=where, fix=fix)
    return ModelFolder(folder=folder, generation=generation.of_folder(folder), **found)


def vet_timed(folder: Path) -> dict[str, Any]:
    """Check a folder that is only to be timed: any encoder-decoder in whole safetensors, with or without tokenizer.

    Returns:
        Its config.json.

    Raises:
        InvalidInput: the first rule it breaks.
    """
    where, config = shown_path(folder), _own_config(folder)
    tensors = _tensors(folder, where)
    if family_type(config) in FAMILIES or not config.get("is_encoder_decoder"):
        _check_shapes(_family(config, config.get("model_type"), where), tensors, where)
    generation.of_folder(folder)
    return config


def _own_config(folder: Path) -> dict[str, Any]:
    """The config of a folder that exists and brings no code."""
    where = shown_path(folder)
    if not hub.exists(str(folder)):
        raise InvalidInput("model must exist, but got no such folder", where=where, fix="check the path")
    if not folder.is_dir():
        raise InvalidInput("model must be a folder, but got a file", where=where, fix="name the folder that holds it")
    config = read_object(folder / "config.json")
    _refuse_foreign_code(folder, config, str(config.get("model_type")))
    _refuse_quantised(folder, config)
    return config


def load_tokenizer(model: ModelFolder) -> PreTrainedTokenizerBase:
    """The folder's tokenizer; code from the folder is never run.

    Raises:
        InvalidInput: when transformers cannot read it.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        reason = message_of(error, 120)
        raise InvalidInput(f"tokenizer must be readable, but got {reason}", where=shown_path(model.folder)) from None
    vocabulary = model.config.get("vocab_size")
    if isinstance(vocabulary, int) and len(tokenizer) > vocabulary:
        what = f"tokenizer must fit the model's {vocabulary} embeddings, but got {len(tokenizer)} tokens"
        raise InvalidInput(what, where=shown_path(model.folder))
    if tokenizer.pad_token is None:  # texts of several lengths could not be written side by side
        pad = model.config.get("pad_token_id")
        if pad is None:
            what = "tokenizer or config.json must name the padding token (pad_token_id), but got neither"
            raise InvalidInput(what, where=shown_path(model.folder))
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    tokenizer.padding_side = "right"  # as it is trained and scored; positions are counted from the left
    limit = positions(model.config)
    if limit is not None:  # many tokenizers do not say how long a text their model can read
        tokenizer.model_max_length = min(limit[0], tokenizer.model_max_length)
    return tokenizer


def positions(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Longest input and output that a model (its config.json) has positions for, tokens; None: any length."""
    family = find_family(family_type(config))
    return None if family is None else family.longest(config)


def window(config: Mapping[str, Any]) -> int | None:
    """Positions that the encoder of a model that hears has for every recording; None: it reads text."""
    family = find_family(family_type(config))
    found = config.get("max_source_positions")
    return found if family is not None and not family.reads_text and isinstance(found, int) else None


def generation_settings(model: ModelFolder, beams: int | None = None) -> dict[str, Any]:
    """The decoding settings of the folder's generation config that scoring and exports share.

    Args:
        model: the folder.
        beams: what the workload asks for instead (None: the folder's own).
    """
    stored = model.generation.settings
    found = {name: stored[name] for name in _GENERATION if stored.get(name) is not None}
    if beams is not None:
        found["num_beams"] = beams
        if beams == 1:  # an export that asks for these and for one beam is refused by transformers
            found |= {"early_stopping": False, "length_penalty": 1.0}
    return found


def _refuse_foreign_code(folder: Path, config: Mapping[str, Any], model_type: str) -> None:
    if model_type.startswith(PREFIX):
        return  # its auto_map names the modelling file that we wrote; our own classes are used
    stored = folder / "tokenizer_config.json"
    tokenizer = read_object(stored) if stored.is_file() else {}
    for name, found in (("config.json", config), ("tokenizer_config.json", tokenizer)):
        if found.get("auto_map"):
            what = f"model must not bring code of its own, but got auto_map in {name}"
            raise InvalidInput(
                what, where=shown_path(folder), fix="convert it to a transformers model without remote code"
            )


def _refuse_quantised(folder: Path, config: Mapping[str, Any]) -> None:
    """Weights that no optimizer can train, or that are only what is added to another model's."""
    where, fix = shown_path(folder), "give the model as it was before it was quantised"
    if config.get("quantization_config"):
        method = config["quantization_config"]
        method = method.get("quant_method", method) if isinstance(method, dict) else method
        raise InvalidInput(f"model must not be quantised, but got {shown(method)}", where=where, fix=fix)
    if (folder / "adapter_config.json").exists():
        what = "model must be whole, but got an adapter (adapter_config.json)"
        raise InvalidInput(what, where=where, fix="merge it into its model: merge_and_unload, then save_pretrained")


def _family(config: Mapping[str, Any], model_type: object, where: str) -> dict[str, Any]:
    if not isinstance(model_type, str):
        raise InvalidInput(f"config.json must name a model_type, but got {shown(model_type)}", where=where)
    family = find_family(model_type)
    if family is None:
        kind = shown(model_type)
        if not config.get("is_encoder_decoder"):
            kind += ", which is no encoder-decoder"
        fix = NOT_YET.get(model_type, "nash-search prunes encoder-decoder models")
        raise InvalidInput(f"model must be one of {', '.join(sorted(FAMILIES))}, but got {kind}", where=where, fix=fix)
    family.check_settings(config, where)
    names = (family.layout.encoder_depth_key, family.layout.decoder_depth_key)
    layers = [setting(config, name) for name in names]
    if layers[1] is None:
        layers[1] = layers[0]
    for name, value in zip(names, layers, strict=True):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InvalidInput(f"{name} in config.json must be at least 1, but got {shown(value)}", where=where)
    return {
        "model_type": family.model_type,
        "ours": model_type != family.model_type,
        "encoder_layers": layers[0],
        "decoder_layers": layers[1],
        "config": config,
    }


def _tensors(folder: Path, where: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, from the safetensors headers (which must fit the files' sizes)."""
    if (folder / WEIGHTS).is_file():
        files = [WEIGHTS]
    elif (folder / INDEX).is_file():
        index = read_object(folder / INDEX).get("weight_map")
        if not isinstance(index, dict) or not index or not all(isinstance(name, str) for name in index.values()):
            raise InvalidInput(f"{INDEX} must map tensors to files, but got {shown(index)}", where=where)
        files = sorted(set(index.values()))
        for name in files:
            if "/" in name or not (folder / name).is_file():
                raise InvalidInput(f"model folder must hold every shard, but got no {shown(name)}", where=where)
    else:
        others = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".h5", ".msgpack", ".ckpt", ".pt"))
        what = f"weights must be {WEIGHTS}, but got {shown(others[0]) if others else 'none'}"
        raise InvalidInput(what, where=where, fix="save them with save_pretrained; pickles are never loaded")
    from safetensors import safe_open

    found: dict[str, tuple[int, ...]] = {}
    kinds: dict[str, str] = {}
    for name in files:
        try:
            with safe_open(folder / name, framework="numpy") as stored:
                slices = {key: stored.get_slice(key) for key in stored.keys()}  # noqa: SIM118
                found |= {key: tuple(one.get_shape()) for key, one in slices.items()}
                kinds |= {str(one.get_dtype()): key for key, one in slices.items() if key.endswith("weight")}
        except Exception as error:
            reason = message_of(error)
            raise InvalidInput(f"{name} must be whole safetensors, but got {reason}", where=where) from None
    for kind in sorted(kinds.keys() - FLOATS):
        what = f"weights must be of {', '.join(sorted(FLOATS))}, but got {kind} for {shown(kinds[kind])}"
        raise InvalidInput(what, where=where, fix="give the model as it was before it was quantised")
    return found


def _check_shapes(found: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Embedding, projection and depth as the config says them (the rest is checked when weights load)."""
    config, layout = found["config"], FAMILIES[found["model_type"]].layout
    width, vocabulary = setting(config, layout.width_key), config.get("vocab_size")
    # `model.` or `led.`; a base model saved by itself (facebook/bart-base) has neither in its names
    base = next((name[: name.index("encoder.")] for name in tensors if "encoder." in name), "")
    expected: dict[str, tuple[Any, Any]] = {f"{base}{layout.embeddings}.weight": (vocabulary, width)}
    if not FAMILIES[found["model_type"]].reads_text:
        expected = {f"{base}decoder.embed_tokens.weight": (vocabulary, width)}
        expected[f"{base}encoder.embed_positions.weight"] = (config.get("max_source_positions"), width)
    if not found["ours"]:
        block = f"{base}{layout.encoder}.{layout.blocks}.0."
        inner = _attention_width(config, layout, where)
        expected[f"{block}{layout.self_attention}.{layout.query}.weight"] = (inner, width)
        expected |= {f"{block}{name}.weight": (setting(config, layout.ffn_key), width) for name in layout.ffn_in}
    for name, shape in expected.items():
        if name in tensors and tensors[name] != shape:
            what = f"{name} must have the shape {shape} that config.json says, but got {tensors[name]}"
            raise InvalidInput(what, where=where)
    prefix = f"{base}decoder.{layout.blocks}."
    blocks = {name.removeprefix(prefix).partition(".")[0] for name in tensors if name.startswith(prefix)}
    if len(blocks) != found["decoder_layers"]:
        what = f"weights must hold the {found['decoder_layers']} decoder blocks config.json says, but got {len(blocks)}"
        raise InvalidInput(what, where=where)


def _attention_width(config: Mapping[str, Any], layout: Layout, where: str) -> Any:
    """All heads of an encoder block's attention together."""
    if layout.head_width_key is not None:
        return (setting(config, layout.heads_keys[0]) or 0) * (setting(config, layout.head_width_key) or 0)
    width = setting(config, layout.width_key)
    for name in layout.heads_keys:
        heads = config.get(name, 1)
        if isinstance(width, int) and (not isinstance(heads, int) or heads < 1 or width % heads):
            what = f"{name} in config.json must divide d_model ({width}), but got {shown(heads)}"
            raise InvalidInput(what, where=where)
    return width
