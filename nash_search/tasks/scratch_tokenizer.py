"""A tokenizer of its own for a teacher from scratch: BPE over the train split's texts.

One vocabulary for both sides, `<pad>` 0, `</s>` 1, `<unk>` 2; spaces are part of the tokens, so that
decoding gives the text back. The same texts give the same tokenizer, so that a killed `finetune`
goes on with the one it had (unigram training does not promise that).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nash_search.errors import InvalidInput, shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPECIAL = ("<pad>", "</s>", "<unk>")
MOST_TOKENS = 64_000


def train_tokenizer(recipe: Mapping[str, Any], texts: Sequence[str]) -> PreTrainedTokenizerBase:
    """Train what `teacher.tokenizer` describes: `{kind: bpe, vocabulary: N}`.

    Raises:
        InvalidInput: an unknown kind or field, or a vocabulary out of range.
    """
    fields = {"kind": "bpe", "vocabulary": 8000, **recipe}
    unknown = sorted(set(fields) - {"kind", "vocabulary"})
    if unknown:
        raise InvalidInput(f"key must be kind or vocabulary, but got {shown(unknown[0])}", where="teacher.tokenizer")
    kind, size = fields["kind"], fields["vocabulary"]
    if kind != "bpe":
        raise InvalidInput(f"kind must be bpe, but got {shown(kind)}", where="teacher.tokenizer")
    if not isinstance(size, int) or isinstance(size, bool) or not 64 <= size <= MOST_TOKENS:
        what = f"vocabulary must be between 64 and {MOST_TOKENS} tokens, but got {shown(size)}"
        raise InvalidInput(what, where="teacher.tokenizer")
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(individual_digits=True)]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(SPECIAL), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )
