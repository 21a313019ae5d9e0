"""A cached latency answers exactly its question, or is a miss."""

from __future__ import annotations

import json
import warnings

import pytest

from nash_search.config import Workload
from nash_search.device import CpuDevice
from nash_search.latency import cache as caches
from nash_search.latency.cache import CacheWarning, LatencyCache, key
from nash_search.latency.runtimes import fingerprint
from nash_search.records import Latency, Round

WORKLOAD = Workload(input_tokens=5, output_tokens=4)
SHAPES = {"class": "T5", "parameters": {"encoder.block.0.wo": [8, 4], "encoder.block.1.wo": [8, 4]}, "decoding": {}}
FOUND = fingerprint(CpuDevice(), WORKLOAD)
OTHERS = {"runtime": "compile", "dtype": "bfloat16", "device": "cuda:0", "attention": "eager", "quantize": "int8"}


def latency(dense_ms=10.0, ms=5.0):
    rounds = [Round(runs_ms=(ms,) * 3, dense_runs_ms=(dense_ms * f,) * 3) for f in (0.999, 1.0, 1.001)]
    return Latency(rounds=tuple(rounds), workload=WORKLOAD, fingerprint=FOUND)


@pytest.fixture
def stored(tmp_path):
    cache = LatencyCache(tmp_path / "cache")
    cache.put(key(FOUND, WORKLOAD, SHAPES, SHAPES), latency())
    return cache


def test_the_same_question_is_a_hit_also_for_another_process(stored):
    again = LatencyCache(stored.folder)
    assert again.get(key(dict(FOUND), WORKLOAD, dict(SHAPES), dict(SHAPES))) == latency()


@pytest.mark.parametrize("name", sorted(Workload.model_fields))
def test_every_workload_field_changed_alone_is_a_miss(stored, name):
    old = getattr(WORKLOAD, name)
    changed = WORKLOAD.model_copy(update={name: OTHERS[name] if isinstance(old, str) else old + 1})
    assert changed != WORKLOAD
    assert stored.get(key(FOUND, changed, SHAPES, SHAPES)) is None


@pytest.mark.parametrize("name", sorted(set(FOUND) - {"hash"}))
def test_every_fingerprint_field_changed_alone_is_a_miss(stored, name):
    old = FOUND[name]
    changed = FOUND | {
        name: {"KMP_X": "1"} if isinstance(old, dict) else f"{old}x" if isinstance(old, str) else old + 1
    }
    assert stored.get(key(changed, WORKLOAD, SHAPES, SHAPES)) is None


def test_every_block_and_the_dense_reference_count(stored):
    for block in SHAPES["parameters"]:
        narrow = SHAPES | {"parameters": SHAPES["parameters"] | {block: [8, 3]}}
        assert stored.get(key(FOUND, WORKLOAD, narrow, SHAPES)) is None
        assert stored.get(key(FOUND, WORKLOAD, SHAPES, narrow)) is None


def test_another_protocol_is_a_miss(stored, monkeypatch):
    monkeypatch.setattr(caches, "PROTOCOL", 999)
    assert stored.get(key(FOUND, WORKLOAD, SHAPES, SHAPES)) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace("5.0", "4.0", 1),
        lambda text: text.replace('"T5"', '"T6"', 1),
    ],
)
def test_corrupt_entries_are_misses_with_one_warning(stored, damage):
    path = next(stored.folder.glob("*.json"))
    path.write_text(damage(path.read_text()))
    with pytest.warns(CacheWarning, match="measuring instead") as caught:
        assert stored.get(key(FOUND, WORKLOAD, SHAPES, SHAPES)) is None
        assert stored.get(key(FOUND, WORKLOAD, SHAPES, SHAPES)) is None
    assert len(caught) == 1


def test_an_entry_renamed_to_another_question_is_a_miss(stored):
    other = key(FOUND, WORKLOAD.model_copy(update={"beams": 4}), SHAPES, SHAPES)
    next(stored.folder.glob("*.json")).rename(stored._path(other))
    with pytest.warns(CacheWarning, match="another question"):
        assert stored.get(other) is None


def test_an_entry_of_another_version_is_a_miss(stored):
    asked = key(FOUND, WORKLOAD, SHAPES, SHAPES)
    entry = {"key": json.loads(json.dumps(asked)), "latency": {"seconds": 1}}
    stored._path(asked).write_text(json.dumps(entry | {"sha256": caches._checksum(entry)}))
    with pytest.warns(CacheWarning, match="another version"):
        assert stored.get(asked) is None


@pytest.mark.parametrize(("dense_ms", "stale"), [(10.0, 0), (10.2, 0), (9.8, 0), (11.0, 1), (9.0, 1)])
def test_a_drifted_dense_reference_makes_old_entries_stale(stored, dense_ms, stale):
    narrow = SHAPES | {"parameters": {}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert stored.put(key(FOUND, WORKLOAD, narrow, SHAPES), latency(dense_ms)) == stale
    assert len(caught) == stale
    assert (stored.get(key(FOUND, WORKLOAD, SHAPES, SHAPES)) is None) == bool(stale)
    assert stored.get(key(FOUND, WORKLOAD, narrow, SHAPES)) is not None


def test_drift_on_another_machine_says_nothing_about_this_one(stored):
    elsewhere = FOUND | {"cores": 999}
    assert stored.put(key(elsewhere, WORKLOAD, SHAPES, SHAPES), latency(99.0)) == 0
    assert stored.get(key(FOUND, WORKLOAD, SHAPES, SHAPES)) is not None


def test_the_fingerprint_hash_follows_every_field():
    assert fingerprint(CpuDevice(), WORKLOAD)["hash"] == FOUND["hash"]
    assert fingerprint(CpuDevice(), WORKLOAD.model_copy(update={"threads": 2}))["hash"] != FOUND["hash"]
    assert {"threads", "dtype", "attention", "runtime", "quantize", "protocol", "device", "torch"} <= set(FOUND)


def test_shapes_see_widths_depth_and_decoding_settings():
    from transformers import T5Config, T5ForConditionalGeneration

    def small(**sizes):
        config = T5Config(vocab_size=16, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2, **sizes)
        return T5ForConditionalGeneration(config)

    model = small()
    assert caches.shapes_of(model) == caches.shapes_of(small())
    assert caches.shapes_of(model) != caches.shapes_of(small(num_decoder_layers=1))
    model.generation_config.no_repeat_ngram_size = 3
    assert caches.shapes_of(model) != caches.shapes_of(small())
    assert json.dumps(caches.shapes_of(model))
