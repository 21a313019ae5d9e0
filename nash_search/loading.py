"""The one way in which a model comes into memory to be timed, scored or shipped: `from_pretrained`, precision named.

    load          a folder, as its card's "Load it" loads it
    in_precision  the same for a model that is in memory already

`from_pretrained` does more than a cast: in float16 T5 keeps its `wo` matrices in float32. What a model is timed
in must be what users load, so nothing here casts by hand. Generation settings are resolved on the way
(`generation`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoModelForSpeechSeq2Seq
from transformers.utils import logging

from nash_search import (
    generation,
    modeling_nash,  # noqa: F401  registers the classes
)
from nash_search.errors import InvalidInput


def load(folder: str | Path, dtype: str = "float32") -> Any:
    """A folder's model in eval mode, on the CPU; weights from safetensors only, no code from the folder.

    Args:
        folder: one that `save_pretrained` wrote, ours or a stock one.
        dtype: `float32`, `bfloat16` or `float16`, whatever the folder's weights are stored in.

    Raises:
        InvalidInput: the folder holds no encoder-decoder model, a generation setting that is refused, or weights
            that are missing, not finite in this precision, or of other shapes than its config says.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        resolved = generation.of_folder(Path(folder)) if config.is_encoder_decoder else None
        with no_progress_bar():
            model, report = _auto_class(config).from_pretrained(
                folder,
                generation_config=resolved and resolved.for_transformers(),
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are random now, and refused below
            )
    except InvalidInput:
        raise
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InvalidInput(f"{folder} must be a folder with an encoder-decoder model, but got: {first}") from error
    missing = sorted(name for name in report["missing_keys"] if not _is_computed(model, name))
    if missing:
        raise InvalidInput(f"model must hold all weights, but got none for {', '.join(missing)}")
    if report["mismatched_keys"]:
        name, found, expected = sorted(report["mismatched_keys"])[0]
        raise InvalidInput(
            f"model's weights must have the shapes its config says, but got {tuple(found)} where {name} "
            f"should be {tuple(expected)}"
        )
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InvalidInput(f"model's weights must be finite in {dtype}, but got {name} in {folder}")
    if resolved is not None:
        resolved.name_start(model.config)
    return model.eval()


def in_precision(model: Any, dtype: str) -> Any:
    """The model as `load` would give it in this precision, on its device: itself where it is so already.

    A new model may share tensors with the given one, so neither may be changed while the other is in use.
    """
    if _is_in(model, dtype):
        return model
    device = next(model.parameters()).device
    with no_progress_bar():
        found = type(model).from_pretrained(
            None, config=copy.deepcopy(model.config), state_dict=model.state_dict(), dtype=getattr(torch, dtype)
        )
    found.generation_config = copy.deepcopy(model.generation_config)
    return found.to(device).eval()


def copied(model: Any) -> Any:
    """A deep copy without the compiled call that `generate` may have cached: it would run the original's graph."""
    found = copy.deepcopy(model)
    for name in ("_compiled_call", "_last_compile_config"):
        vars(found).pop(name, None)
    return found


def _is_in(model: Any, dtype: str) -> bool:
    wanted = getattr(torch, dtype)
    kept = set(model._keep_in_fp32_modules_strict or ()) if wanted != torch.float32 else set()
    kept |= set(model._keep_in_fp32_modules or ()) if wanted == torch.float16 else set()

    def fits(name: str, tensor: torch.Tensor) -> bool:
        return tensor.dtype == (torch.float32 if kept & set(name.split(".")) else wanted)

    named = model.state_dict().items()  # rotary frequencies, which no file holds, are float32 in every precision
    return all(fits(name, tensor) for name, tensor in named if tensor.is_floating_point())


def _is_computed(model: Any, name: str) -> bool:
    """Whether a tensor is a table of sinusoids, which transformers computes where a checkpoint has none (Pegasus)."""
    return "Sinusoidal" in type(model.get_submodule(name.rpartition(".")[0])).__name__


def _auto_class(config: Any) -> Any:
    """Text, or speech where there is no text model of this config; what is neither is refused by the class."""
    text, speech = AutoModelForSeq2SeqLM, AutoModelForSpeechSeq2Seq
    return speech if type(config) in speech._model_mapping and type(config) not in text._model_mapping else text


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Transformers' bars off inside, as they were after."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
