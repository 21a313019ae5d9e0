"""The embedded task: English spelling to phonemes, on the CMU Pronouncing Dictionary.

A word's letters go in, its ARPAbet phonemes without stress digits come out ("pruning" to
"P R UW N IH NG"); all of a word's pronunciations are references. Words are split by a hash of
their spelling into train, validation and sealed test (90/5/5), so that the split never depends
on the order of the file.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from nash_search.tasks.task import Examples

Split = Literal["train", "validation", "test"]
Words = dict[str, list[str]]
"""Spelling to its pronunciations, each a space-joined phoneme string, in the dictionary's order."""

PHONEMES = (
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
).split()
LETTERS = "abcdefghijklmnopqrstuvwxyz"
_LINE = re.compile(r"^([a-z]+)(?:\(\d+\))? ([A-Z0-9 ]+)$")
_STRESS = str.maketrans("", "", "0123456789")


@cache  # a process asks for two or three splits
def dictionary() -> Words:
    """Every word made of letters only, with its distinct stress-free pronunciations."""
    packed = resources.files("nash_search.tasks").joinpath("cmudict.dict.gz").read_bytes()
    words: Words = {}
    for line in gzip.decompress(packed).decode("utf-8").splitlines():
        match = _LINE.match(line.partition("#")[0].strip())
        if match is None:
            continue
        spoken = match[2].translate(_STRESS)
        spoken_before = words.setdefault(match[1], [])
        if spoken not in spoken_before:
            spoken_before.append(spoken)
    return words


def split_of(word: str) -> Split:
    """The split a spelling belongs to: 90 % train, 5 % validation, 5 % sealed test."""
    slot = int(hashlib.sha256(word.encode()).hexdigest()[:8], 16) % 20
    return {0: "validation", 1: "test"}.get(slot, "train")  # type: ignore[return-value]


def words_of(split: Split) -> Words:
    """One split of the dictionary."""
    return {word: spoken for word, spoken in dictionary().items() if split_of(word) == split}


def build_tokenizer() -> PreTrainedTokenizerBase:
    """One token per lower-case letter and one per phoneme; a fast tokenizer any Hugging Face folder can hold."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["<pad>", "</s>", "<unk>", *LETTERS, *PHONEMES]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            # lower case: every letter by itself; upper case: a run is one phoneme
            pre_tokenizers.Split(Regex("[A-Z]+|[^A-Z]"), behavior="isolated"),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )


def teacher_folder() -> Path:
    """The shipped teacher: a Hugging Face folder made by `nash-search finetune --task g2p`."""
    return Path(str(resources.files("nash_search.tasks").joinpath("g2p_teacher")))


def examples_of(
    split: Split, tokenizer: PreTrainedTokenizerBase, count: int | None = None, *, shuffled: bool = True
) -> Examples:
    """One split, encoded; in train a word with k pronunciations is k examples.

    Args:
        split: which.
        tokenizer: encodes both sides.
        count: take the first so many (None: all).
        shuffled: in the order of a hash of the spelling, so that the first are a fair sample; else the dictionary's.
    """
    from nash_search.tasks.kept_tokens import encode_once
    from nash_search.tasks.task import Examples, hash_order

    words = words_of(split)
    if split == "train":
        pairs = [
            (word, [one, *(other for other in spoken if other != one)])
            for word, spoken in words.items()
            for one in spoken
        ]
    else:
        pairs = list(words.items())
    if shuffled:
        pairs = [pairs[i] for i in hash_order([word for word, _ in pairs])]
    pairs = pairs[:count]
    sources = [word for word, _ in pairs]
    return Examples(
        sources=sources,
        references=[spoken for _, spoken in pairs],
        inputs=encode_once(tokenizer, sources, None),
        labels=encode_once(tokenizer, [spoken[0] for _, spoken in pairs], None),
    )
