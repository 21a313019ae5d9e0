"""The engine's vocabulary: every token id has a word, the tokenizer's own where the folder holds one.

CTranslate2 takes and returns words, not ids. With the tokenizer's words its documented usage
(`convert_ids_to_tokens`, `translate_batch`, `convert_tokens_to_ids`) writes what was timed and scored. An id that the
tokenizer does not know (padding of the embeddings) gets a word of its own: two ids with one word would be one token.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from nash_search.config import Frozen

SHARED, SOURCE, TARGET = (f"{kind}_vocabulary.json" for kind in ("shared", "source", "target"))
WRITTEN = "vocabulary.json"
"""The engine's own file names: one vocabulary for both sides, or one each; of speech there is a written side only."""


class Words(Frozen):
    """A word for every token id, by side."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    unknown: str
    """What both sides call a word that they do not know."""

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.target)}

    def read(self, ids: Iterable[int]) -> list[str]:
        """Input ids as the engine reads them."""
        return [self.source[index] for index in ids]

    def written(self, ids: Iterable[int]) -> list[str]:
        """Output ids as the engine writes them."""
        return [self.target[index] for index in ids]

    def ids(self, written: Iterable[str]) -> list[int]:
        """Output words as ids."""
        return [self._ids[word] for word in written]


def words_for(folder: str | Path, source_size: int, target_size: int, pad: int) -> Words:
    """The words of a folder's tokenizer; ids written out where it holds none.

    Args:
        folder: of the checkpoint.
        source_size: rows of the encoder's embeddings.
        target_size: rows of the decoder's.
        pad: the padding id, whose word stands for the unknown where the tokenizer has no such token.
    """
    tokenizer = _tokenizer(Path(folder))
    vocabulary = {} if tokenizer is None else dict(tokenizer.get_vocab())
    apart = getattr(tokenizer, "separate_vocabs", False)  # Marian: one vocabulary for each language
    source = _named(vocabulary, source_size)
    target = _named(tokenizer.target_encoder, target_size) if apart else _named(vocabulary, target_size)
    unknown = getattr(tokenizer, "unk_token", None)
    if unknown not in source or unknown not in target:
        unknown = target[pad]
    return Words(source=source, target=target, unknown=unknown)


def with_roles(words: Words, roles: Mapping[str, int]) -> Words:
    """The words with those by which the engine's `Whisper` finds tokens; where a token has another, it is replaced."""
    target = list(words.target)
    for word, index in roles.items():
        if word in target and target.index(word) != index:
            target[target.index(word)] += "_"
        target[index] = word
    return words.model_copy(update={"source": tuple(target), "target": tuple(target)})


def stored(place: Path) -> Words:
    """The words of an artefact that lies in a folder."""
    one = next((place / name for name in (SHARED, WRITTEN) if (place / name).is_file()), None)
    files = [one, one] if one is not None else [place / SOURCE, place / TARGET]
    source, target = (tuple(json.loads(file.read_text("utf-8"))) for file in files)
    return Words(source=source, target=target, unknown="")


def _named(vocabulary: Mapping[str, int], size: int) -> tuple[str, ...]:
    names = {index: word for word, index in vocabulary.items()}
    if not names:
        return tuple(str(index) for index in range(size))
    found = [names.get(index, f"<unused_{index}>") for index in range(size)]
    taken = set(names.values())
    for index in set(range(size)) - names.keys():
        while found[index] in taken:
            found[index] += "_"
    return tuple(found)


def _tokenizer(folder: Path) -> Any:
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        return None
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
