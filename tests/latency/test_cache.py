"""What was timed before is used only for exactly its question, on the machine it was timed on."""

from __future__ import annotations

import json
import warnings
from types import SimpleNamespace

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from nash_search.config import Workload
from nash_search.device import CpuDevice
from nash_search.latency import cache as caches
from nash_search.latency.cache import CacheWarning, LatencyCache
from nash_search.latency.runtimes import fingerprint
from nash_search.latency_record import Latency, Round
from nash_search.traffic import Request, Traffic

WORKLOAD = Workload(input_tokens=5, output_tokens=4)
FOUND = fingerprint(CpuDevice(), WORKLOAD)
OTHERS = {"runtime": "compile", "dtype": "bfloat16", "device": "cuda:0", "attention": "eager", "quantize": "int8"}
OTHERS |= {"traffic": Traffic.counted({Request(3, 4): 9}, "log"), "row_tokens": (3,)}


def small(**sizes):
    asked = {"vocab_size": 16, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 2, "num_heads": 2} | sizes
    return T5ForConditionalGeneration(T5Config(**asked, decoder_start_token_id=0))


MODELS = {"a": small(num_decoder_layers=1), "b": small()}
DENSE = small(num_layers=3)


class Here:
    """The cache on a machine whose fingerprint and dense latency a test sets; `timed` says what was timed."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.fingerprint, self.dense_ms, self.cut_short = folder, FOUND, 10.0, False
        self.timed = []
        monkeypatch.setattr(caches.timing, "measure_many", self._measure_many)
        monkeypatch.setattr(caches.runtimes, "fingerprint", lambda device, workload: self.fingerprint)
        monkeypatch.setattr(caches.devices, "resolve", lambda name: None)

    def _measure_many(self, candidates, dense, workload, *, pairs, limit_s, details):
        self.timed.append(set(candidates))
        own = [self.dense_ms * f for f in (0.999, 1.0, 1.001)] * 4
        one = Round(runs_ms=tuple(own), dense_runs_ms=tuple(own))
        made = Latency(rounds=(one,), workload=workload, fingerprint=self.fingerprint, cut_short=self.cut_short)
        return dict.fromkeys(candidates, made)

    def __call__(self, models=MODELS, dense=DENSE, workload=WORKLOAD):
        """Ask; returns the names of the candidates that were timed for it."""
        self.timed.clear()
        cache = LatencyCache(self.folder)
        found = cache.measure_many(models, dense, caches.shapes_of(dense), workload, pairs=4, limit_s=9)
        assert list(found) == list(models)
        remembered = {name for name, latency in found.items() if latency.details.get("remembered")}
        timed = set().union(*(names - {"dense"} for names in self.timed))
        assert timed == set(models) - remembered
        return timed


@pytest.fixture
def here(tmp_path, monkeypatch):
    asking = Here(tmp_path / "known", monkeypatch)
    assert asking() == {"a", "b"}
    return asking


def test_the_same_question_is_answered_again_with_only_the_dense_model_timed(here):
    assert here() == set()
    assert here.timed == [{"dense"}]


@pytest.mark.parametrize("name", sorted(Workload.model_fields))
def test_every_workload_field_changed_alone_is_a_miss(here, name):
    old = getattr(WORKLOAD, name)
    changed = WORKLOAD.model_copy(update={name: OTHERS[name] if name in OTHERS else old + 1})
    assert changed != WORKLOAD
    assert here(workload=changed) == {"a", "b"}


@pytest.mark.parametrize("name", sorted(set(FOUND) - {"hash"}))
def test_every_fingerprint_field_changed_alone_is_a_miss(here, name):
    old = FOUND[name]
    other = {"KMP_X": "1"} if isinstance(old, dict) else f"{old}x" if isinstance(old, str) else old + 1
    here.fingerprint = FOUND | {name: other}
    assert here() == {"a", "b"}
    here.fingerprint = FOUND
    assert here() == set()


def test_a_fingerprint_holds_everything_that_a_field_test_above_should_change():
    named = {"device", "memory_gib", "capability", "machine", "cores", "affinity", "python", "torch", "transformers"}
    assert named | {"environment", "threads", "dtype", "attention", "runtime", "quantize", "protocol"} <= set(FOUND)
    assert fingerprint(CpuDevice(), WORKLOAD)["hash"] == FOUND["hash"]
    assert fingerprint(CpuDevice(), WORKLOAD.model_copy(update={"threads": 2}))["hash"] != FOUND["hash"]


def test_every_block_of_the_model_and_of_the_dense_reference_counts(here):
    for block in range(2):
        narrow = small()
        ffn = narrow.encoder.block[block].layer[-1].DenseReluDense
        ffn.wo.weight = torch.nn.Parameter(ffn.wo.weight[:, :3])
        assert here(models={"b": narrow}) == {"b"}
        assert here(models=MODELS, dense=narrow) == {"a", "b"}
    assert here() == set()


@pytest.mark.parametrize("changed", [{"num_heads": 4, "d_kv": 2}, {"dense_act_fn": "gelu"}])
def test_what_no_tensor_shows_counts_too(here, changed):
    assert here(models={"b": small(**changed)}) == {"b"}


def test_generation_settings_that_cost_time_count(here):
    model = small()
    model.generation_config.no_repeat_ngram_size = 3
    assert here(models={"b": model}) == {"b"}


def test_where_a_model_was_loaded_from_does_not_count(here, tmp_path):
    small().save_pretrained(tmp_path)
    assert here(models={"b": T5ForConditionalGeneration.from_pretrained(tmp_path)}) == set()


def test_another_protocol_is_a_miss(here, monkeypatch):
    monkeypatch.setattr(caches, "PROTOCOL", 999)
    assert here() == {"a", "b"}


def test_only_what_is_missing_is_timed(here):
    assert here(models=MODELS | {"c": small(num_layers=1)}) == {"c"}
    assert here.timed == [{"dense"}, {"c"}]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: "\udcff",
        lambda text: text.replace("10.0", "9.0", 1),
        lambda text: text.replace('"vocab_size": 16', '"vocab_size": 17', 1),
    ],
)
def test_corrupt_entries_are_misses_with_one_warning(here, damage):
    for path in here.folder.glob("*.json"):
        path.write_text(damage(path.read_text()), errors="surrogateescape")
    with pytest.warns(CacheWarning, match="cannot be read or was altered; measuring instead") as caught:
        assert here() == {"a", "b"}
    assert len(caught) == 1
    assert here() == set()


def test_a_foreign_entry_is_a_miss(here):
    paths = sorted(here.folder.glob("*.json"))
    paths[0].write_bytes(paths[1].read_bytes())
    with pytest.warns(CacheWarning, match="answers another question"):
        assert len(here()) == 1


@pytest.mark.parametrize(
    ("entry", "reason"),
    [({"latency": {"seconds": 1}}, "of another version"), ({"key": 1}, "another question")],
)
def test_an_entry_of_another_version_is_a_miss(here, entry, reason):
    path = sorted(here.folder.glob("*.json"))[0]
    entry = {"key": json.loads(path.read_text())["key"]} | entry
    path.write_text(json.dumps(entry | {"sha256": caches._checksum(entry)}))
    with pytest.warns(CacheWarning, match=reason):
        assert len(here()) == 1


@pytest.mark.parametrize(("dense_ms", "stale"), [(10.0, False), (10.6, False), (9.4, False), (12.0, True), (8.0, True)])
def test_a_drifted_dense_reference_makes_entries_stale(here, dense_ms, stale):
    """One round's interval is 4 % wide to either side; 3 % beyond it is the limit."""
    here.dense_ms = dense_ms
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert here() == ({"a", "b"} if stale else set())
    assert len(caught) == stale
    assert here() == set(), "what was timed after the drift is known from then on"


def test_what_is_not_whole_is_not_kept(tmp_path, monkeypatch):
    asking = Here(tmp_path, monkeypatch)
    asking.cut_short = True
    assert asking() == asking() == {"a", "b"}


def test_a_real_timing_is_remembered_sample_by_sample(tmp_path):
    def ask():
        cache = LatencyCache(tmp_path)
        return cache.measure_many(MODELS, DENSE, caches.shapes_of(DENSE), WORKLOAD, pairs=5, limit_s=20)

    first = ask()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.json")} == {0o600}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)  # on a busy machine the dense model may have drifted
        again = ask()
    for name in MODELS:
        if again[name].details.get("remembered"):
            assert again[name].rounds == first[name].rounds


def test_a_probe_asks_the_cache(monkeypatch, tmp_path):
    from nash_search.config import Architecture, SearchConfig
    from nash_search.trial import nash_evaluator as benches

    asked = SimpleNamespace(folder=None, names=[])

    def spy(self, candidates, dense, dense_shapes, workload, *, pairs, limit_s, again):
        asked.folder, asked.names, asked.again = self.folder, list(candidates), again
        return dict.fromkeys(candidates, "a latency")

    monkeypatch.setattr(LatencyCache, "measure_many", spy)
    evaluator = benches.NashEvaluator(SearchConfig())
    evaluator.__dict__ |= {"teacher": DENSE, "_dense_served": DENSE, "_workload": WORKLOAD}
    shapes = [Architecture(encoder_sparsity_pct=s, decoder_layers=1) for s in (0, 50)]
    assert evaluator.probe(shapes, 9.0, tmp_path) == dict.fromkeys(shapes, "a latency")
    assert asked.folder == tmp_path and asked.names == [a.slug for a in shapes] and not asked.again
    evaluator.probe(shapes, 9.0, tmp_path, again=True)
    assert asked.again


def test_what_cannot_be_right_is_timed_again_and_replaced(monkeypatch, tmp_path):
    cache, times = LatencyCache(tmp_path), iter((3.0, 7.0))

    def measure_many(models, dense, workload, **settings):
        ms = next(times)
        return {
            name: Latency(rounds=(Round(runs_ms=(ms,), dense_runs_ms=(9.0,)),), workload=workload) for name in models
        }

    monkeypatch.setattr(caches.timing, "measure_many", measure_many)
    some = dict(list(MODELS.items())[:1])
    for _ in range(2):
        taken = cache.measure_many(some, DENSE, {}, WORKLOAD, pairs=1, limit_s=9, again=True)
    (kept,) = tmp_path.glob("*.json")
    assert [x.median_ms for x in taken.values()] == [7.0] and "7.0" in kept.read_text()
