"""Trimmed to the tokens of train, a tokenizer says the same about every text made of them."""

from __future__ import annotations

import json
import random

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import MBartTokenizer, NllbTokenizer, PreTrainedTokenizerFast, RobertaTokenizer, T5Tokenizer

from nash_search.errors import InvalidInput
from nash_search.tasks.scratch_tokenizer import train_tokenizer
from nash_search.tasks.task import Examples
from nash_search.tasks.vocabulary import kept_tokens, lost_tokens, trim_tokenizer

SPECIAL = ["<pad>", "</s>", "<unk>"]
SYLLABLES = "ba ke li mo nu rä st tru ðe wo xi yo pre est ing ly '".split()


def words(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 4))) for _ in range(count)]


def texts(seed: int, count: int, pool: list[str]) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(pool, k=draw.randint(1, 6))) for _ in range(count)]


POOL = words(0, 400)
EVERYTHING = texts(1, 3000, POOL) + ["Q & A: 24 %, naïve Żółw", "日本語 のか"] * 5
TRAIN = texts(2, 150, POOL[:60])
OTHER = texts(3, 600, POOL[:60]) + texts(4, 300, POOL)


def split(sources: list[str]) -> Examples:
    references = [[text, text.upper()[:9]] for text in sources]
    return Examples(sources=sources, references=references, inputs=[[]] * len(sources), labels=[[]] * len(sources))


def scratch_bpe():
    return train_tokenizer({"vocabulary": 500}, EVERYTHING)


def wrapped(backend):
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", backend.token_to_id("</s>"))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def byte_bpe():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<s>", *SPECIAL], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(EVERYTHING, trainer)
    return wrapped(backend)


def affixed_bpe():
    """With a mark on inner parts and on last ones."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##", end_of_word_suffix="</w>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=SPECIAL,
        continuing_subword_prefix="##",
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    backend.train_from_iterator(EVERYTHING, trainer)
    return wrapped(backend)


def unigram_backend():
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(EVERYTHING, trainer)
    return backend


def unigram():
    return wrapped(unigram_backend())


def wordpiece():
    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=SPECIAL, show_progress=False)
    backend.train_from_iterator(EVERYTHING, trainer)
    return wrapped(backend)


def word_level():
    backend = Tokenizer(models.WordLevel(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.train_from_iterator(EVERYTHING, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))
    return wrapped(backend)


def t5():
    return T5Tokenizer(vocab=[tuple(piece) for piece in json.loads(unigram_backend().to_str())["model"]["vocab"]])


def bart():
    model = json.loads(byte_bpe().backend_tokenizer.to_str())["model"]
    return RobertaTokenizer(vocab=model["vocab"], merges=[tuple(m) for m in model["merges"]])


def mbart():
    """Its special tokens come first, its language codes last; sources and targets end differently."""
    pieces = json.loads(unigram_backend().to_str())["model"]["vocab"][len(SPECIAL) :]
    first = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    return MBartTokenizer(vocab=first + [tuple(p) for p in pieces], src_lang="en_XX", tgt_lang="ro_RO")


def nllb():
    model = json.loads(scratch_bpe().backend_tokenizer.to_str())["model"]
    first = ["<s>", "<pad>", "</s>", "<unk>"]
    tokens = [*first, *(token for token in model["vocab"] if token not in first)]
    merges = [tuple(m) for m in model["merges"]]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return NllbTokenizer(vocab=vocabulary, merges=merges, src_lang="eng_Latn", tgt_lang="deu_Latn")


MAKERS = [scratch_bpe, byte_bpe, affixed_bpe, unigram, wordpiece, word_level, t5, bart, mbart, nllb]


@pytest.fixture(scope="module", params=MAKERS, ids=lambda maker: maker.__name__)
def trimmed(request):
    tokenizer = request.param()
    kept = kept_tokens(tokenizer, split(TRAIN))
    return tokenizer, kept, trim_tokenizer(tokenizer, kept)


def encoded(tokenizer, sources):
    return tokenizer(sources)["input_ids"] + tokenizer(text_target=sources)["input_ids"]


def test_texts_of_kept_tokens_get_the_same_tokens(trimmed, tmp_path):
    tokenizer, kept, small = trimmed
    assert len(small) == len(kept) < len(tokenizer)
    new = {old: i for i, old in enumerate(kept)}
    within = [text for text in TRAIN + OTHER if set(sum(encoded(tokenizer, [text]), [])) <= set(kept)]
    assert len(within) >= len(TRAIN) + 100 and set(TRAIN) <= set(within)
    small.save_pretrained(tmp_path)
    for reader in (small, type(small).from_pretrained(tmp_path)):
        assert encoded(reader, within) == [[new[i] for i in row] for row in encoded(tokenizer, within)]
    words = [tokenizer.decode(row) for row in encoded(tokenizer, within)]
    assert [small.decode(row) for row in encoded(small, within)] == words


def test_special_and_added_tokens_stay_and_no_path_is_left_behind(trimmed, tmp_path):
    tokenizer, kept, small = trimmed
    assert small.special_tokens_map == tokenizer.special_tokens_map
    for token in (*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()):
        assert small.convert_tokens_to_ids(token) == kept.index(tokenizer.convert_tokens_to_ids(token))
    small.save_pretrained(tmp_path)
    assert "/tmp" not in (tmp_path / "tokenizer_config.json").read_text()


def test_other_texts_are_still_spelled(trimmed):
    tokenizer, kept, small = trimmed
    found = lost_tokens(tokenizer, small, kept, split(OTHER))
    assert 0 < found.dropped < found.tokens and 0 < found.changed < found.texts
    if tokenizer.backend_tokenizer.model.__class__.__name__ != "WordLevel":
        assert found.unknown == 0
    assert lost_tokens(tokenizer, small, kept, split(TRAIN)).document()["dropped_share"] == 0


def test_nothing_is_kept_for_the_sake_of_other_splits(trimmed):
    tokenizer, kept, _ = trimmed
    assert kept == kept_tokens(tokenizer, split(TRAIN[::-1]))
    more = kept_tokens(tokenizer, split(TRAIN + OTHER))
    assert set(kept) < set(more)
    last = len(tokenizer) + 7
    assert kept_tokens(tokenizer, split(TRAIN), also=[last]) == [*kept, last]


def test_scripts_that_train_does_not_use_go_and_its_own_stay():
    tokenizer = scratch_bpe()
    assert {"か", "の", "Q"} <= set(tokenizer.get_vocab())
    small = trim_tokenizer(tokenizer, kept_tokens(tokenizer, split(TRAIN)))
    assert "か" not in small.get_vocab() and {"Q", "Ż", "4"} <= set(small.get_vocab())
    kana = trim_tokenizer(tokenizer, kept_tokens(tokenizer, split([*TRAIN, "の"])))
    assert "か" in kana.get_vocab() and "日" not in kana.get_vocab()


def test_a_tokenizer_without_a_fast_form_is_refused():
    from transformers import ByT5Tokenizer

    with pytest.raises(InvalidInput, match="fast form .*but got a ByT5Tokenizer"):
        kept_tokens(ByT5Tokenizer(), split(TRAIN))
