"""Which tokens a task needs, and a tokenizer that has only these.

    kept     tokens of train's sources and references, every added and special token, single characters
             (of Latin, and of every Unicode page that a kept token uses), bytes to fall back on, and
             for BPE every token that a kept one is merged from
    promise  a text whose tokens are all kept gets the same tokens, renumbered in their order

The promise holds because every algorithm picks among candidates, and what it picked before is still
there: BPE the merge of lowest rank, Unigram the best path, WordPiece the longest prefix. The choice
looks at train alone; what it costs other splits is counted afterwards (`lost_tokens`).
Ids that a model names are handed to it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nash_search.errors import InvalidInput
from nash_search.tasks.task import Examples, encode
from nash_search.token_rows import TokenRows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FLAG = "--trim-vocab"
TOKENIZER = "tokenizer.json"
PAGE_BITS = 8
LATIN_PAGES = {0, 1}
"""U+0000 to U+01FF; the letters that byte-level BPE writes its 256 bytes with lie there too."""
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))


@dataclass(frozen=True, kw_only=True)
class Lost:
    """What a smaller vocabulary costs a split (its sources and references)."""

    tokens: int
    """Tokens of the split under the whole vocabulary."""
    dropped: int
    """Those of them that are not kept."""
    unknown: int
    """Unknown tokens of the split under the small vocabulary, beyond those of before."""
    texts: int
    changed: int
    """Texts that encode differently."""

    def document(self) -> dict[str, float]:
        """As JSON, shares beside counts."""
        return asdict(self) | {"dropped_share": self.dropped / max(1, self.tokens)}


def kept_tokens(tokenizer: PreTrainedTokenizerBase, train: Examples, also: Iterable[int] = ()) -> list[int]:
    """Ids that stay, increasing.

    Args:
        tokenizer: a fast one.
        train: the only split that is looked at.
        also: ids that the model's config names.

    Raises:
        InvalidInput: when the tokenizer has no fast form.
    """
    backend = _backend(tokenizer)
    ids = {i for row in _encoded(tokenizer, train) for i in row} | set(also) | set(tokenizer.all_special_ids)
    ids |= {token["id"] for token in backend["added_tokens"]} | set(_ids_in(backend["post_processor"]))
    model = backend["model"]
    numbers = _numbers(model)
    tokens = {i: token for token, i in numbers.items()}
    needed = {tokens[i] for i in ids if i in tokens} | _always(model, numbers)
    if model["type"] == "BPE":
        needed |= _merged_from(model, needed)
    return sorted(ids | {numbers[token] for token in needed | _characters(model, numbers, needed)})


def trim_tokenizer(tokenizer: PreTrainedTokenizerBase, kept_ids: Sequence[int]) -> PreTrainedTokenizerBase:
    """The same tokenizer with these tokens only; token `kept_ids[i]` becomes token i.

    Raises:
        InvalidInput: when it has no fast form, or transformers does not read the smaller one back as it was meant.
    """
    backend = _backend(tokenizer)
    new = {old: i for i, old in enumerate(kept_ids)}
    model = backend["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [piece for i, piece in enumerate(model["vocab"]) if i in new]
        model["unk_id"] = new.get(model["unk_id"])
    else:
        model["vocab"] = {token: new[i] for token, i in model["vocab"].items() if i in new}
    if model["type"] == "BPE":
        glued = _glue(model)
        model["merges"] = [m for m in model["merges"] if {*_pair(m), glued(*_pair(m))} <= set(model["vocab"])]
    backend["added_tokens"] = [token | {"id": new[token["id"]]} for token in backend["added_tokens"]]
    _renumber(backend["post_processor"], new)
    if backend.get("padding"):
        backend["padding"]["pad_id"] = new[backend["padding"]["pad_id"]]
    trimmed = _read_back(tokenizer, backend, new)
    expected = {token: new[i] for token, i in tokenizer.get_vocab().items() if i in new}
    if trimmed.get_vocab() != expected or type(trimmed) is not type(tokenizer):
        what = f"tokenizer must be one that can be trimmed, but got {type(tokenizer).__name__}, which rebuilds itself"
        raise InvalidInput(what, where=FLAG, fix="leave the flag out")
    return trimmed


def lost_tokens(
    tokenizer: PreTrainedTokenizerBase, trimmed: PreTrainedTokenizerBase, kept_ids: Sequence[int], split: Examples
) -> Lost:
    """Count what a split loses; asked after the choice, never before."""
    new = {old: i for i, old in enumerate(kept_ids)}
    before, after = _encoded(tokenizer, split), _encoded(trimmed, split)
    unknown = sum(row.count(trimmed.unk_token_id) for row in after) - sum(
        row.count(tokenizer.unk_token_id) for row in before
    )
    return Lost(
        tokens=sum(map(len, before)),
        dropped=sum(i not in new for row in before for i in row),
        unknown=max(0, unknown),
        texts=len(before),
        changed=sum([new.get(i) for i in old] != now for old, now in zip(before, after, strict=True)),
    )


def _encoded(tokenizer: PreTrainedTokenizerBase, split: Examples) -> TokenRows:
    """Sources, then every reference, whole."""
    references = [text for several in split.references for text in several]
    written = encode(tokenizer, references, None, as_target=True)
    return TokenRows.joined([encode(tokenizer, split.sources, None), written])


def _backend(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """`tokenizer.json` as a mapping."""
    if not tokenizer.is_fast:
        what = f"tokenizer must have a fast form (tokenizer.json), but got a {type(tokenizer).__name__} without one"
        raise InvalidInput(what, where=FLAG, fix="leave the flag out")
    found: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return found


def _numbers(model: Mapping[str, Any]) -> dict[str, int]:
    """Token to id of the model itself, added tokens aside."""
    vocabulary = model["vocab"]
    return dict(vocabulary) if isinstance(vocabulary, dict) else {piece: i for i, (piece, _) in enumerate(vocabulary)}


def _always(model: Mapping[str, Any], numbers: Mapping[str, int]) -> set[str]:
    """What the algorithm itself needs: its unknown token, its bytes, and for Unigram the least likely piece."""
    found = {str(model.get("unk_token")), *(BYTES if model.get("byte_fallback") else ())}
    if model["type"] == "Unigram":
        pieces = model["vocab"]
        found |= {min(pieces, key=lambda piece: piece[1])[0]}  # an unknown's price is counted from its score
        found |= {pieces[model["unk_id"]][0]} if model["unk_id"] is not None else set()
    return {token for token in found if token in numbers}


def _characters(model: Mapping[str, Any], numbers: Mapping[str, int], kept: Iterable[str]) -> set[str]:
    """Single characters from pages of Unicode that are in use, so that new words can still be spelled."""
    pages = LATIN_PAGES | {ord(character) >> PAGE_BITS for token in kept for character in token}
    if model["type"] == "WordLevel":
        return set()
    affixes = [a for a in (model.get("continuing_subword_prefix"), model.get("end_of_word_suffix")) if a]
    found = set()
    for token in numbers:
        bare = token
        for affix in affixes:
            bare = bare.removeprefix(affix).removesuffix(affix) or bare
        if len(bare) == 1 and ord(bare) >> PAGE_BITS in pages:
            found.add(token)
    return found


def _merged_from(model: Mapping[str, Any], kept: Iterable[str]) -> set[str]:
    """Every token that BPE passes through on its way to a kept one.

    Merges across a token's ends never happened in a text where it came out whole, so its way is the same
    wherever it stands, and spelling it alone shows it.
    """
    glued, prefix, suffix = _glue(model), model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix")
    rank = {_pair(merge): i for i, merge in reversed(list(enumerate(model["merges"])))}
    passed: set[str] = set()
    for token in kept:
        end = suffix if suffix and token.endswith(suffix) else ""
        inside = bool(prefix) and token.startswith(prefix)
        letters = token.removesuffix(end).removeprefix(prefix if inside else "")
        parts = [(prefix if i or inside else "") + letter for i, letter in enumerate(letters)]
        parts[-1:] = [parts[-1] + end] if parts else []
        while True:
            passed |= set(parts)
            best = min(range(len(parts) - 1), key=lambda i: rank.get((parts[i], parts[i + 1]), len(rank)), default=None)
            if best is None or (parts[best], parts[best + 1]) not in rank:
                break
            parts[best : best + 2] = [glued(parts[best], parts[best + 1])]
    return passed & set(model["vocab"])


def _pair(merge: Any) -> tuple[str, str]:
    """A merge in either of its spellings."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _glue(model: Mapping[str, Any]) -> Any:
    """What two parts become."""
    prefix = model.get("continuing_subword_prefix") or ""
    return lambda left, right: left + right[len(prefix) :]


def _ids_in(processor: Any) -> list[int]:
    """Ids that a post-processor writes."""
    if not processor:
        return []
    found = [i for inner in processor.get("processors", ()) for i in _ids_in(inner)]
    if isinstance(processor.get("special_tokens"), dict):
        found += [i for token in processor["special_tokens"].values() for i in token["ids"]]
    return found + [processor[name][1] for name in ("sep", "cls") if isinstance(processor.get(name), list)]


def _renumber(processor: Any, new: Mapping[int, int]) -> None:
    if not processor:
        return
    for inner in processor.get("processors", ()):
        _renumber(inner, new)
    if isinstance(processor.get("special_tokens"), dict):
        for token in processor["special_tokens"].values():
            token["ids"] = [new[i] for i in token["ids"]]
    for name in ("sep", "cls"):
        if isinstance(processor.get(name), list):
            processor[name][1] = new[processor[name][1]]


def _read_back(tokenizer: Any, backend: Mapping[str, Any], new: Mapping[int, int]) -> Any:
    """Through the files, as any user will read it: classes rebuild parts of what they load."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save_pretrained(folder)
        (folder / TOKENIZER).write_text(json.dumps(backend, ensure_ascii=False), "utf-8")
        settings_file = folder / "tokenizer_config.json"
        settings = json.loads(settings_file.read_text("utf-8"))
        if "added_tokens_decoder" in settings:
            old = settings["added_tokens_decoder"]
            settings["added_tokens_decoder"] = {str(new[int(i)]): token for i, token in old.items()}
            settings_file.write_text(json.dumps(settings, ensure_ascii=False), "utf-8")
        others = [p for p in folder.iterdir() if p.name not in (TOKENIZER, settings_file.name)]
        for path in others:  # the whole vocabulary in an older form, if any
            path.unlink()
        trimmed = type(tokenizer).from_pretrained(folder, local_files_only=True)
    trimmed.name_or_path = tokenizer.name_or_path
    trimmed.init_kwargs.pop("name_or_path", None)
    return trimmed
