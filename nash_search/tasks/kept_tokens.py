"""Token ids of a large split, made once on a machine and mapped by every process that trains on it.

    texts -> tokens-KEY/ids.int32, the rows one after the other, and tokens-KEY/lengths.npy

They lie in the user's cache folder (`files.cache_folder`). The key is of the texts, the limit and all that decides how
the tokenizer reads them; a tokenizer that cannot say so (one without a `tokenizer.json`) is asked each time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock

from nash_search.config import digest
from nash_search.files import ask_free, cache_folder, forget_unused, mark_used, staged_folder
from nash_search.tasks.task import encode, encoded_in_parts
from nash_search.token_rows import TokenRows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERSION = 1
"""Raise when texts are read otherwise: what was kept before is then not used."""
LEAST_TEXTS = 10_000
"""Fewer are tokenised in a second or two, and not kept."""
SETTINGS = ("src_lang", "tgt_lang", "truncation_side", "model_max_length", "split_special_tokens")
"""Of a tokenizer, beside what its `tokenizer.json` holds."""
IDS, LENGTHS = "ids.int32", "lengths.npy"


def encode_once(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int | None, *, as_target: bool = False
) -> TokenRows:
    """As `task.encode`; where the texts are many, in a file that is mapped and never read whole.

    A cache folder that cannot be written is no error: the ids are then made in this process's memory.
    """
    reads = _reading(tokenizer) if len(texts) >= LEAST_TEXTS else None
    if reads is not None:
        place = cache_folder() / f"tokens-{digest([VERSION, reads, max_tokens, as_target, _content(texts)])[:32]}"
        try:
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(place.parent / ".lock"):
                if not _whole(place):
                    forget_unused(place.parent)
                    ask_free(place.parent, 4 * sum(map(len, texts)), "the token ids of a split")
                    with staged_folder(place, durable=False) as staging:
                        _write(staging, encoded_in_parts(tokenizer, texts, max_tokens, as_target=as_target))
                mark_used(place)  # under the lock: whoever forgets holds it too
            return _mapped(place)
        except OSError:
            pass
    return encode(tokenizer, texts, max_tokens, as_target=as_target)


def _reading(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Digest of all that decides which ids a text has; None where it is not known."""
    if not tokenizer.is_fast:
        return None
    import tokenizers
    import transformers

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    of_last_call = ("truncation", "padding")  # what the tokenizer was last asked, not what it is
    code = [type(tokenizer).__name__, transformers.__version__, tokenizers.__version__]
    own = [getattr(tokenizer, name, None) for name in SETTINGS]
    return digest([code, own, {k: v for k, v in state.items() if k not in of_last_call}])


def _content(texts: Sequence[str]) -> str:
    state = hashlib.sha256()
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        state.update(len(raw).to_bytes(8, "little") + raw)
    return state.hexdigest()


def _write(folder: Path, parts: Iterable[TokenRows]) -> None:
    lengths = [np.empty(0, np.int64)]
    with (folder / IDS).open("wb") as file:
        for part in parts:
            file.write(part.ids.astype("<i4").tobytes())
            lengths.append(part.lengths)
    np.save(folder / LENGTHS, np.concatenate(lengths))


def _whole(folder: Path) -> bool:
    """Whether both files are there in full: a machine that lost its power may keep a name without its content."""
    try:
        return (folder / IDS).stat().st_size == 4 * int(np.load(folder / LENGTHS).sum())
    except (OSError, ValueError, EOFError):
        return False


def _mapped(folder: Path) -> TokenRows:
    lengths = np.load(folder / LENGTHS)
    ids = np.memmap(folder / IDS, "<i4", "r") if lengths.any() else np.empty(0, np.int32)  # no empty file is mapped
    return TokenRows(ids, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))
