"""A smaller vocabulary changes nothing about the tokens that stay, in any family, saved and loaded too."""

import pytest
import torch
from tiny import KINDS as ALL_KINDS
from tiny import VOCABULARY, batch_of, logits_of, model_of, some_kept

from nash_search.errors import InvalidInput
from nash_search.pruner import cut, load, save, trim_vocabulary
from nash_search.pruner.vocabulary import named_ids

KINDS = tuple(kind for kind in ALL_KINDS if kind not in ("whisper", "t5gemma2"))
"""Families that read text, and nothing else."""
EXACT = 1e-6


def kept_of(model, every: int = 2) -> list[int]:
    return sorted({*range(0, model.config.vocab_size, every), *named_ids(model)})


def renumbered(ids: torch.Tensor, kept: list[int]) -> torch.Tensor:
    """The same tokens under their new numbers; -100 stays."""
    new = torch.full((VOCABULARY,), -1)
    new[torch.tensor(kept)] = torch.arange(len(kept))
    return torch.where(ids < 0, ids, new[ids.clamp(min=0)])


def batch_within(kept: list[int]) -> dict[str, torch.Tensor]:
    """A batch whose every token is kept."""
    batch, tokens = batch_of(), torch.tensor([i for i in kept if 3 <= i < VOCABULARY - 1])
    for name in ("input_ids", "labels"):
        ids = batch[name]
        batch[name] = torch.where(ids >= 3, tokens[ids % len(tokens)], ids)
    return batch


def assert_same_logits(model, trimmed, kept):
    batch = batch_within(kept)
    now = batch | {name: renumbered(batch[name], kept) for name in ("input_ids", "labels")}
    before, after = logits_of(model, batch)[..., kept], logits_of(trimmed, now)
    assert (before - after).abs().max() <= EXACT * max(1.0, float(before.abs().max()))


@pytest.mark.parametrize("untied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_of_kept_tokens_stay(kind, untied, tmp_path):
    model = model_of(kind, untied=untied)
    kept = kept_of(model)
    original = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trimmed = trim_vocabulary(model, kept)
    assert trimmed.config.vocab_size == len(kept) == trimmed.get_input_embeddings().num_embeddings
    assert (trimmed.get_output_embeddings().weight is trimmed.get_decoder().embed_tokens.weight) == (not untied)
    assert_same_logits(model, trimmed, kept)
    assert model.config.vocab_size == VOCABULARY
    assert all(torch.equal(original[name], tensor) for name, tensor in model.state_dict().items())
    save(trimmed, tmp_path / "m")
    assert_same_logits(model, load(tmp_path / "m"), kept)


@pytest.mark.parametrize("kind", ["t5", "marian", "umt5"])
def test_a_narrow_model_is_trimmed_too(kind):
    model = model_of(kind)
    narrow = cut(model, *some_kept(model))
    kept = kept_of(narrow)
    assert_same_logits(narrow, trim_vocabulary(narrow, kept), kept)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "m2m_100"])
def test_every_id_that_a_config_names_is_renumbered(kind):
    last = VOCABULARY - 1  # Marian pads with the last token and starts from it
    model = model_of(kind)
    settings = {"pad_token_id": last, "decoder_start_token_id": last, "eos_token_id": 5, "forced_eos_token_id": 5}
    for config in (model.config, model.get_encoder().config, model.get_decoder().config):
        for name, value in settings.items():
            setattr(config, name, value)
    model.generation_config.update(
        **settings | {"eos_token_id": [5, 7], "forced_bos_token_id": 9},
        bad_words_ids=[[last], [11, 13], [4, 10]],
        suppress_tokens=[4, 13],
        sequence_bias=[[[4, 10], 1.5], [[13], -2.0]],
    )
    kept = kept_of(model)
    assert {5, 7, 9, last} <= set(kept) and not {11, 13} & set(kept)
    trimmed = trim_vocabulary(model, kept)
    config, generation = trimmed.config, trimmed.generation_config
    assert config.pad_token_id == config.decoder_start_token_id == len(kept) - 1
    assert config.eos_token_id == kept.index(5)
    assert generation.eos_token_id == [kept.index(5), kept.index(7)]
    assert generation.forced_eos_token_id == kept.index(5) and generation.forced_bos_token_id == kept.index(9)
    assert generation.bad_words_ids == [[len(kept) - 1], [kept.index(4), kept.index(10)]]
    assert generation.suppress_tokens == [kept.index(4)]
    assert generation.sequence_bias == [[[kept.index(4), kept.index(10)], 1.5]]
    assert model.generation_config.bad_words_ids == [[last], [11, 13], [4, 10]]
    assert trimmed.get_decoder().config.pad_token_id == config.pad_token_id


@pytest.mark.parametrize("kind", ["t5", "bart", "marian"])
def test_the_same_words_are_generated_where_the_lost_tokens_never_won(kind):
    model = model_of(kind)
    batch = batch_of(batch=8)
    rows = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    length = {"max_new_tokens": 12, "do_sample": False}
    written = model.generate(**rows, **length)
    kept = sorted({*named_ids(model), *written.flatten().tolist(), *rows["input_ids"].flatten().tolist()})
    assert len(kept) < VOCABULARY
    rows["input_ids"] = renumbered(rows["input_ids"], kept)
    assert torch.equal(trim_vocabulary(model, kept).generate(**rows, **length), renumbered(written, kept))


def test_what_cannot_be_trimmed_is_refused_in_one_line():
    model = model_of("t5")
    for kept in ([], [1, 0], [0, 0, 1], [0, 1, VOCABULARY]):
        with pytest.raises(InvalidInput, match="kept_ids must be one or more increasing ids below 40"):
            trim_vocabulary(model, kept)
    with pytest.raises(InvalidInput, match="every id that the model's config names, but got none of \\[1\\]"):
        trim_vocabulary(model, [0, 2, 3])
    for kind in ("whisper", "t5gemma2"):
        with pytest.raises(InvalidInput, match="must read text alone"):
            trim_vocabulary(model_of(kind), list(range(10)))
    counted = model_of("m2m_100")
    counted.config.pad_token_id = counted.generation_config.pad_token_id = 4
    with pytest.raises(InvalidInput, match="pad_token_id must keep its number"):
        trim_vocabulary(counted, [1, 2, 4, 5])
    sides = model_of("marian")
    sides.config.share_encoder_decoder_embeddings = False
    with pytest.raises(InvalidInput, match="share one vocabulary"):
        trim_vocabulary(sides, kept_of(sides))
