"""How a model writes: what is kept is scored, timed and shipped; what is set is said; what is refused is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from nash_search import generation
from nash_search.errors import InvalidInput
from nash_search.generation import KEPT, REFUSED, SET, resolve

T5 = {"model_type": "t5", "vocab_size": 20, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
BART = T5 | {"model_type": "bart"}

OTHER: dict[str, Any] = {
    "do_sample": True, "temperature": 0.6, "top_k": 10, "top_p": 0.9, "min_p": 0.1, "top_h": 0.5, "typical_p": 0.5,
    "epsilon_cutoff": 1e-3, "eta_cutoff": 1e-3, "num_return_sequences": 3, "return_dict_in_generate": True,
    "output_attentions": True, "output_hidden_states": True, "output_scores": True, "output_logits": True,
    "max_time": 1e-6, "use_cache": False, "cache_implementation": "static", "cache_config": {"nbits": 4},
    "max_cache_len": 64, "prefill_chunk_size": 2, "low_memory": True, "compile_config": {"mode": "default"},
    "continuous_batching_config": {"block_size": 8}, "is_assistant": True, "num_assistant_tokens": 5,
    "num_assistant_tokens_schedule": "heuristic_transient", "assistant_confidence_threshold": 0.1,
    "assistant_early_exit": 1, "assistant_lookbehind": 3, "assistant_ensemble_weight": 0.5, "target_lookbehind": 3,
    "prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 3, "speculation_type": "dflash", "use_mtp": True,
    "diversity_penalty": 0.5, "disable_compile": "yes",
}  # fmt: skip
"""A value of each setting of SET that a search changes."""

KEEPING: dict[str, Any] = {
    "min_length": 5, "min_new_tokens": 5, "num_beams": 3, "early_stopping": "never", "length_penalty": 3.0,
    "repetition_penalty": 1.8, "encoder_repetition_penalty": 2.5, "no_repeat_ngram_size": 1,
    "encoder_no_repeat_ngram_size": 1, "bad_words_ids": [[5], [6, 7]], "renormalize_logits": True,
    "remove_invalid_values": True, "exponential_decay_length_penalty": [2, 1.5],
    "suppress_tokens": list(range(2, 60)), "begin_suppress_tokens": list(range(2, 60)),
    "sequence_bias": [[[70], 30.0]], "forced_bos_token_id": 9, "forced_eos_token_id": [1], "eos_token_id": [1, 70],
    "decoder_start_token_id": 4, "pad_token_id": 0, "bos_token_id": 3, "max_length": 5, "max_new_tokens": 4,
}  # fmt: skip
"""A value of each setting of KEPT that a model may have."""

WRONG: dict[str, Any] = {
    "max_length": 0, "max_new_tokens": "8", "min_length": -1, "min_new_tokens": 1.5, "num_beams": True,
    "early_stopping": "soon", "length_penalty": "long", "repetition_penalty": 0, "encoder_repetition_penalty": -1,
    "no_repeat_ngram_size": -3, "encoder_no_repeat_ngram_size": None, "bad_words_ids": [[99]],
    "renormalize_logits": 1, "remove_invalid_values": "yes", "exponential_decay_length_penalty": 1.5,
    "suppress_tokens": 4, "begin_suppress_tokens": ["a"], "sequence_bias": {"a": 1}, "forced_bos_token_id": 20,
    "forced_eos_token_id": [20], "pad_token_id": -1, "bos_token_id": "a", "eos_token_id": 99,
    "decoder_start_token_id": [0, 1],
}  # fmt: skip


def test_every_setting_of_transformers_stands_in_one_table() -> None:
    from transformers import GenerationConfig

    known = {name for name in vars(GenerationConfig()) if not name.startswith("_")} - {"transformers_version"}
    assert known <= {*KEPT, *SET, *REFUSED}
    assert len({*KEPT, *SET, *REFUSED}) == len(KEPT) + len(SET) + len(REFUSED)
    assert set(OTHER) == set(SET) and set(KEEPING) == set(KEPT) == set(WRONG)


@pytest.mark.parametrize("name", SET)
def test_what_a_search_sets_is_said(name: str) -> None:
    found = resolve(T5, {name: OTHER[name], **T5})
    assert found.settings[name] == SET[name][0] and len(found.changed) == 1
    assert found.changed[0].startswith(f"{name} ") and " -> " in found.changed[0]
    for neutral in SET[name]:
        kept = resolve(T5, {name: neutral, **T5})
        assert kept.settings[name] == neutral and not kept.changed


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"{name} in generation_config.json must be left out"):
        resolve(T5, {name: 2, **T5})
    with pytest.raises(InvalidInput, match=f"{name} in config.json must be left out"):
        resolve({name: 2, **T5}, None)
    assert not resolve(T5, {name: None, **T5}).changed


@pytest.mark.parametrize("name", KEPT)
def test_a_value_of_another_kind_is_refused_by_name(name: str) -> None:
    if WRONG[name] is not None:
        with pytest.raises(InvalidInput, match=f"{name} in generation_config.json must be"):
            resolve(T5, T5 | {name: WRONG[name]})
    beams = {"num_beams": 4} if name in ("early_stopping", "length_penalty") else {}
    given = T5 | beams | {name: KEEPING[name]}
    assert resolve(T5 | {"vocab_size": 99}, given).settings[name] == KEEPING[name]


def test_settings_that_contradict_one_another_are_repaired_or_refused() -> None:
    one = resolve(T5, T5 | {"num_beams": 1, "early_stopping": True, "length_penalty": 2.0})
    assert one.changed == ("early_stopping true -> none", "length_penalty 2.0 -> none")
    several = {"num_beams": 4, "early_stopping": True, "length_penalty": 2.0, "no_repeat_ngram_size": 3}
    legacy = resolve(T5 | several, None)
    assert not legacy.changed and {name: legacy.settings[name] for name in several} == several
    assert resolve(T5 | several, T5).settings.get("num_beams") is None, "a folder's generation_config.json counts alone"
    with pytest.raises(InvalidInput, match="forced_eos_token_id in .* must not be one of suppress_tokens"):
        resolve(T5, T5 | {"forced_eos_token_id": 1, "suppress_tokens": [1, 2]})


def test_how_outputs_begin_and_end_is_known_or_refused() -> None:
    def without(config: dict[str, Any], *names: str) -> dict[str, Any]:
        return {name: value for name, value in config.items() if name not in names}

    start = "decoder_start_token_id"
    assert resolve(T5, without(T5, start)).changed == (f"{start} none -> 0",)
    assert resolve(without(T5 | {"pad_token_id": 3}, start), {}).settings[start] == 3, "T5 begins with its padding"
    for stored in ({}, None):
        with pytest.raises(InvalidInput, match=f"must name {start}"):
            resolve(without(BART, start), stored)
    assert resolve(BART | {"model_type": "mbart", start: None}, {"bos_token_id": 5}).settings[start] == 5
    assert resolve(T5, without(T5, "eos_token_id")).changed == ("eos_token_id none -> 1",)


# -- with models ----------------------------------------------------------------------------------------


ROWS = [[5, 9, 14, 30, 1], [40, 8, 1], [22, 23, 24, 25, 26, 1]]


ONE_FAMILY = pytest.mark.parametrize(
    "model_folder", ["t5", pytest.param("bart", marks=pytest.mark.slow)], indirect=True
)
"""The other in the slow suite; Marian's settings are BART's."""


def changed(folder: Path, target: Path, **settings: Any) -> Path:
    shutil.copytree(folder, target)
    file = target / generation.FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return target


def written(model: Any, **settings: Any) -> list[list[int]]:
    import torch

    width = max(map(len, ROWS))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in ROWS])
    return model.generate(ids, attention_mask=(ids != 0).long(), **settings).tolist()


@ONE_FAMILY
def test_what_is_kept_is_scored_timed_and_shipped_alike(model_folder: Path, tmp_path: Path) -> None:
    """Each setting by itself, against transformers' own generate under the stored settings."""
    from transformers import AutoModelForSeq2SeqLM

    from nash_search import pruner
    from nash_search.config import Workload
    from nash_search.latency.runtimes.eager import RUNTIME, forced_config

    workload = Workload(input_tokens=6, output_tokens=12, batch_size=3)
    plain = written(AutoModelForSeq2SeqLM.from_pretrained(model_folder), max_new_tokens=12)
    told = set()
    for name, value in KEEPING.items():
        with_beams = {"num_beams": 3} if name in ("early_stopping", "length_penalty") else {}
        given = changed(model_folder, tmp_path / name, **{name: value}, **with_beams)
        longest = {} if name in ("max_length", "max_new_tokens") else {"max_new_tokens": 12}
        expected = written(AutoModelForSeq2SeqLM.from_pretrained(given), **longest)
        model = pruner.load(given)
        exported = AutoModelForSeq2SeqLM.from_pretrained(pruner.save(model, tmp_path / "export"))
        fresh = RUNTIME.load(str(given), workload)
        assert written(model, **longest) == written(exported, **longest) == written(fresh, **longest) == expected, name
        if expected != plain:
            told.add(name)
        if name not in ("max_length", "max_new_tokens", "min_length", "min_new_tokens", "num_beams"):
            timed = getattr(forced_config(model, workload), name)
            assert timed == getattr(exported.generation_config, name) is not None, name
    assert told >= {"max_new_tokens", "decoder_start_token_id", "forced_bos_token_id", "no_repeat_ngram_size"}


@ONE_FAMILY
def test_what_is_set_leaves_one_text_that_exports_write(model_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM

    from nash_search import pruner

    expected = written(pruner.load(model_folder), max_new_tokens=8)
    model = pruner.load(changed(model_folder, tmp_path / "changed", **OTHER))
    exported = AutoModelForSeq2SeqLM.from_pretrained(pruner.save(model, tmp_path / "export"))
    assert written(model, max_new_tokens=8) == written(exported, max_new_tokens=8) == expected


@pytest.mark.parametrize("model_folder", ["t5"], indirect=True)  # other families must name it
def test_a_start_that_only_generation_knows_is_trained_with(model_folder: Path, tmp_path: Path) -> None:
    import torch

    from nash_search import pruner

    given = changed(model_folder, tmp_path / "given")
    for file in ("config.json", generation.FILE):
        stored = json.loads((given / file).read_text())
        (given / file).write_text(json.dumps({k: v for k, v in stored.items() if k != "decoder_start_token_id"}))
    ids = torch.tensor(ROWS[:1])
    whole, mended = pruner.load(model_folder), pruner.load(given)
    assert torch.equal(mended(input_ids=ids, labels=ids).loss, whole(input_ids=ids, labels=ids).loss)
    assert written(mended, max_new_tokens=8) == written(whole, max_new_tokens=8)


def test_padding_and_end_come_from_the_tokenizer_where_the_model_names_none(model_folder: Path) -> None:
    import torch

    from nash_search import pruner
    from nash_search.tasks import exported, models

    model = pruner.load(model_folder)
    words = models.load_tokenizer(models.vet(model_folder))
    exported.complete(model, words)
    for config in (model.config, model.generation_config):
        config.pad_token_id = config.eos_token_id = None
    exported.complete(model, words)
    assert (model.config.pad_token_id, model.generation_config.eos_token_id) == (0, 1)
    labels = torch.tensor([[5, 1, -100]])
    assert torch.isfinite(model(input_ids=torch.tensor(ROWS[:1]), labels=labels).loss)
    words.pad_token = model.config.pad_token_id = model.generation_config.pad_token_id = None
    with pytest.raises(InvalidInput, match="model or tokenizer must name pad_token_id"):
        exported.complete(model, words)
