"""A pruned model as a folder that loads anywhere.

`save` writes a stock checkpoint whenever the stock config can say the shape (decoder depth in every
family; a uniform encoder FFN width in the BART family), else a self-contained one: `modeling_nash.py`,
`auto_map` and `nash_shapes` beside the weights. `load` reads both. safetensors only, never a pickle,
never code from the folder.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from nash_search import loading
from nash_search.errors import InvalidInput, message_of
from nash_search.families import family_of
from nash_search.files import staged_folder
from nash_search.modeling_nash import block_parts, encoder_blocks
from nash_search.pruner.surgery import is_narrow


def save(model: Any, path: str | Path, format: str = "auto", tokenizer: Any = None, extractor: Any = None) -> Path:
    """Write the model as a Hugging Face folder; an existing folder at `path` is replaced.

    Args:
        model: a supported model, stock or narrow.
        path: the folder.
        format: `auto`, or `stock` to insist on a folder that plain `from_pretrained` reads.
        tokenizer: saved beside the weights.
        extractor: the feature extractor of a model that hears, saved there too.
    """
    if format not in ("auto", "stock"):
        raise InvalidInput(f"format must be auto or stock, but got {format}")
    family_of(model)
    if format == "stock" and is_narrow(model):
        raise InvalidInput(
            "format stock must be able to say the model's shape, "
            f"but got encoder blocks of their own sizes ({type(model).__name__})"
        )
    target = Path(path)
    with staged_folder(target, durable=True) as staging:
        with loading.no_progress_bar():
            model.save_pretrained(staging)
        if tokenizer is not None:
            save_tokenizer(tokenizer, staging)
        if extractor is not None:
            extractor.save_pretrained(staging)
        _say_untied(model, staging / "config.json")
    return target


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """A tokenizer's files, without how the last text was cut and padded; transformers 4.57 reads them too."""
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(folder)
    settings_file = folder / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text("utf-8"))
    if settings.get("tokenizer_class") == "TokenizersBackend":  # the same class has this name in both
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(settings.get("extra_special_tokens"), list):  # and the same list this one: 4.57 asks for a mapping
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    settings_file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", "utf-8")


def check_export(model: Any, beside: Path, format: str = "auto", tokenizer: Any = None, extractor: Any = None) -> None:
    """Write the model as an export, read it back, and throw it away: asked before anything is trained.

    Args:
        model: as for `save`, with its format, tokenizer and feature extractor.
        beside: where exports will lie, or a folder that will be there; its disk is written to.

    Raises:
        InvalidInput: it cannot be written, or what was written cannot be loaded.
    """
    there = next(path for path in beside.parents if path.is_dir())
    with tempfile.TemporaryDirectory(prefix=".nash-search-export-", dir=there) as folder:
        try:
            load(save(model, Path(folder) / "export", format, tokenizer, extractor))
        except (InvalidInput, OSError, MemoryError):
            raise
        except Exception as error:
            reason = message_of(error, 160)
            raise InvalidInput(f"model must be one that can be saved and loaded again, but got: {reason}") from error


def _say_untied(model: Any, config_file: Path) -> None:
    """An untied head must be said in config.json where transformers 5 says "tied" of every model."""
    if not family_of(model).says_tied or model.lm_head.weight is model.shared.weight:
        return
    config = json.loads(config_file.read_text())
    config["tie_word_embeddings"] = False
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def load(path: str | Path) -> Any:
    """The model of a folder written by `save`, or of any supported stock folder; eval mode, float32.

    Whatever precision the folder is stored in: this is the model that is trained and cut.

    Raises:
        InvalidInput: when the folder is not a supported model, carries foreign code, or holds weights
            that are not finite or do not fit its config.
    """
    folder = Path(path)
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise InvalidInput(f"model must be a folder with a config.json, but got {folder}")
    raw = json.loads(config_file.read_text())
    if raw.get("auto_map") and not str(raw.get("model_type", "")).startswith("nash_"):
        raise InvalidInput(f"model must not carry code of its own (auto_map), but got {folder}")
    family_of(_TypeOnly(str(raw.get("model_type"))))  # refuses what is not supported before it is read
    model = loading.load(folder)
    sizes = (getattr(model.config, "nash_shapes", None) or {}).get("encoder")
    if sizes is not None:
        found = [{"heads": p.heads, "ffn": p.neurons} for p in map(block_parts, encoder_blocks(model))]
        if found != sizes:
            raise InvalidInput(f"model's encoder must have the shapes its config says, but got {found}")
    return model


class _TypeOnly:
    """A config of which only the type is known yet."""

    def __init__(self, model_type: str) -> None:
        self.model_type = model_type
