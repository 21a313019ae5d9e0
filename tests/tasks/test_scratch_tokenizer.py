"""A tokenizer from scratch gives every text back."""

from __future__ import annotations

import pytest

from nash_search.errors import InvalidInput


def test_a_tokenizer_from_scratch_gives_every_text_back_after_a_reload(tmp_path):
    from transformers import AutoTokenizer

    from nash_search.tasks.scratch_tokenizer import train_tokenizer

    texts = ["A man, in an orange hat!", "Ein Mann läuft über 20 Straßen.", "two  spaces"] * 5
    first = train_tokenizer({"kind": "bpe", "vocabulary": 120}, texts)
    assert first.backend_tokenizer.to_str() == train_tokenizer({"vocabulary": 120}, texts).backend_tokenizer.to_str()
    first.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    ids = loaded(texts[:2])["input_ids"]
    assert loaded.batch_decode(ids, skip_special_tokens=True) == texts[:2]
    assert (loaded.pad_token_id, loaded.eos_token_id, loaded.unk_token_id) == (0, 1, 2)
    assert ids[0][-1] == 1


@pytest.mark.parametrize("recipe", [{"kind": "unigram"}, {"vocabulary": 3}, {"vocabulary": True}, {"size": 3}])
def test_a_tokenizer_recipe_that_breaks_a_rule_is_refused(recipe):
    from nash_search.tasks.scratch_tokenizer import train_tokenizer

    with pytest.raises(InvalidInput, match=r"teacher\.tokenizer"):
        train_tokenizer(recipe, ["text"])
