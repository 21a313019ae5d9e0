"""Pairing, warm-up, limits and flags on a fake clock; forced length and gates on real tiny models."""

from __future__ import annotations

import copy
import gc
import math
import shutil
from collections import Counter
from statistics import median

import numpy as np
import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

from nash_search import device, latency, percentiles
from nash_search.config import LatencyBudget, Workload
from nash_search.device import lock
from nash_search.errors import InvalidInput
from nash_search.latency import runtimes, timing, timing_round
from nash_search.latency.runtimes import WrongOutputLength
from nash_search.latency.runtimes.eager import RUNTIME, EagerSession
from nash_search.runtimes import Served
from nash_search.traffic import Request, Traffic

WORKLOAD = Workload(input_tokens=5, output_tokens=4)


def test_every_sample_is_paired_with_a_dense_call_in_abba_order(fake):
    run, runtime, _ = fake()
    found = run({"a": 0.005}, pairs=4)["a"]
    timed = [name for name in runtime.log if not name.startswith("closed")][-8:]
    assert timed == ["dense", "a", "a", "dense", "a", "dense", "dense", "a"]
    assert found.rounds[0].runs_ms == pytest.approx([5.0] * 4)
    assert found.rounds[0].dense_runs_ms == pytest.approx([10.0] * 4)
    assert found.ratio == pytest.approx(0.5) and found.speedup == pytest.approx(2)
    assert found.status == "clean" and not found.fresh


def test_no_order_favours_a_model_and_at_most_four_share_a_dense_call(fake):
    run, runtime, _ = fake()
    names = list("abcdef")
    found = run(dict.fromkeys(names, 0.001), pairs=10)
    timed = [name for name in runtime.log if not name.startswith("closed")][-10 * 8 :]
    assert timed.count("dense") == 20 and all(timed.count(n) == 10 for n in names)
    firsts = {timed[i * 8] for i in range(10)}
    assert firsts >= {"dense", "a", "b", "c", "d"}
    assert set(found) == set(names) and all(len(f.runs_ms) == 10 for f in found.values())


def test_a_drifting_clock_cancels_in_the_paired_ratio(fake):
    run, _, device = fake()
    found = run({"a": lambda _: 0.005 * (1 + device.seconds)}, dense_s=lambda _: 0.010 * (1 + device.seconds), pairs=40)
    assert found["a"].ratio == pytest.approx(0.5, rel=0.01)
    assert max(found["a"].runs_ms) > 1.3 * min(found["a"].runs_ms)


def test_warm_up_ends_when_it_is_stable_and_is_not_in_the_samples(fake):
    run, _, _ = fake()
    found = run({"a": lambda call: 1.0 if call < 4 else 0.005}, pairs=5)["a"]
    assert max(found.runs_ms) == pytest.approx(5.0)
    assert 5 <= found.rounds[0].surroundings["warm_up_sweeps"] <= 10 and found.rounds[0].settled


def test_a_clock_that_never_settles_still_ends_with_a_status(fake):
    run, _, device = fake()
    found = run({"a": lambda call: 0.001 * 1.05**call}, dense_s=0.0001, pairs=20, limit_s=60)["a"]
    assert found.status == "unsettled" and not found.rounds[0].settled
    assert found.rounds[0].surroundings["warm_up_sweeps"] <= timing_round.WARM_UP_MAX
    assert device.seconds <= 1.2 * 60


@pytest.mark.parametrize("details", [False, True])
@pytest.mark.parametrize(("call_s", "growth"), [(0.2, 1.03), (1.0, 1.02), (3.0, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("disturbed", [False, True])
def test_a_slow_clock_that_never_settles_ends_within_its_limit(fake, call_s, growth, disturbed, details):
    """Slower than the limit allows, each call slower than the one before, all disturbed, natural calls 4 x as long."""
    run, runtime, device = fake(retries=5, disturb=lambda call: disturbed)
    runtime.natural_s, runtime.encode_s = 4 * call_s, call_s
    settings = {"pairs": 1000, "limit_s": 60, "details": details}
    found = run({"a": lambda call: call_s * growth**call}, dense_s=call_s, **settings)["a"]
    assert device.seconds <= 1.2 * 60
    assert found.cut_short == (call_s > 0)
    assert found.status == ("zero_durations" if call_s == 0 else "contended" if disturbed else "cut_short")
    assert ("natural_ms" in found.details) <= details


def test_zero_durations_end_with_a_status_and_no_verdict(fake):
    run, _, device = fake()
    found = run({"a": 0.0}, dense_s=0.0, pairs=20)["a"]
    assert found.status == "zero_durations" and math.isnan(found.ratio)
    assert found.verdict(LatencyBudget.parse("50%")) == found.verdict(LatencyBudget.parse(5)) == "ambiguous"
    assert device.calls < 200


def test_when_every_sample_is_disturbed_it_ends_contended_after_five_retries(fake):
    run, _, device = fake(retries=5, disturb=lambda call: True)
    found = run({"a": 0.005}, pairs=8)["a"]
    assert found.status == "contended" and found.contended_share == 1.0
    assert found.rounds[0].surroundings["discarded"] == 8 * 2 * 5
    assert found.rounds[0].surroundings["disturbed_by"] == ["gpu shared"]
    assert found.verdict(LatencyBudget.parse(1000)) == "ambiguous"  # absolute: at best
    assert found.verdict(LatencyBudget.parse("100%")) == "met"  # the ratio stands


def test_all_disturbed_and_slow_ends_within_the_limit(fake):
    run, _, device = fake(retries=5, disturb=lambda call: True)
    found = run({"a": 1.0}, dense_s=1.0, pairs=1000, limit_s=60)["a"]
    assert found.status == "contended" and found.cut_short
    assert device.seconds <= 1.2 * 60


def test_a_disturbed_gpu_sample_is_thrown_away_when_a_retry_is_clean(fake):
    run, _, _ = fake(retries=5, disturb=lambda call: call % 3 == 0)
    found = run({"a": 0.010}, pairs=30)["a"]
    assert found.status == "clean" and found.contended_share == 0 and found.rounds[0].surroundings["discarded"] > 10


def test_on_a_cpu_a_disturbed_sample_is_kept_and_flagged(fake):
    run, _, device = fake(retries=0, disturb=lambda call: call % 2 == 0)
    found = run({"a": 0.010}, pairs=20)["a"]
    assert len(found.runs_ms) == 20 and found.contended_share == 1.0 and found.status == "contended"


@pytest.mark.parametrize(("share", "status"), [(0.02, "clean"), (0.4, "contended")])
def test_where_others_wait_for_a_cpu_the_round_is_contended_though_no_call_shows_it(fake, share, status):
    """Two busy loops on two cores: the kernel may give them one core and us the other."""
    run, _, device = fake()
    device.surroundings = lambda: {"cpu_pressure_s": share * device.seconds}
    found = run({"a": 0.010}, pairs=20)["a"]
    assert found.status == status and found.contended_share == (1.0 if status == "contended" else 0.0)
    reasons = found.rounds[0].surroundings.get("disturbed_by", [])
    assert ("others waited for a cpu" in reasons) == (status == "contended")


def test_the_time_limit_cuts_pairs_and_says_so(fake):
    run, _, device = fake()
    found = run({"a": 1.0}, dense_s=1.0, pairs=1000, limit_s=100)["a"]
    assert found.status == "cut_short" and 10 < len(found.runs_ms) < 1000
    assert device.seconds <= 1.2 * 100


def test_a_model_too_slow_for_the_limit_still_has_one_pair(fake):
    run, _, _ = fake()
    found = run({"a": 5.0, "b": 20.0}, dense_s=10.0, pairs=9, limit_s=1.0)
    assert [len(found[name].runs_ms) for name in "ab"] == [1, 1]
    assert found["a"].ratio == pytest.approx(0.5) and found["a"].status == "cut_short"


def test_rounds_in_process_share_the_limit(fake):
    run, _, device = fake()
    found = run({"a": 1.0}, dense_s=1.0, pairs=1000, rounds=3, limit_s=120)["a"]
    assert len(found.rounds) == 3 and min(len(r.runs_ms) for r in found.rounds) > 3
    assert device.seconds <= 1.2 * 120


def test_details_stand_beside_the_number(fake):
    run, _, _ = fake()
    found = run({"a": 0.005}, pairs=5, details=True)["a"].details
    assert found["encoder_ms"] == pytest.approx(1.0) and found["ms_per_output_token"] == pytest.approx(1.0)
    assert found["natural_ms"] == pytest.approx(2.0) and found["natural_tokens"] == 3
    assert found["peak_memory_bytes"] == 1500 and found["dense"]["encoder_ms"] == pytest.approx(1.0)


def test_another_output_length_is_an_error_not_a_fast_model(fake):
    run, _, _ = fake(tokens=3)
    with pytest.raises(WrongOutputLength, match="output_tokens must be exactly 4, but got 3 generated"):
        run({"a": 0.005})


def test_nothing_is_left_changed(fake):
    run, runtime, _ = fake()
    threads = torch.get_num_threads()
    run({"a": 0.005}, pairs=3)
    assert runtime.log[-2:] == ["closed a", "closed dense"]
    assert gc.isenabled() and torch.get_num_threads() == threads and gc.get_freeze_count() == 0


def t5(**sizes):
    torch.manual_seed(0)
    asked = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4} | sizes
    return T5ForConditionalGeneration(T5Config(**asked, decoder_start_token_id=0)).eval()


def bart():
    torch.manual_seed(0)
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = BartConfig(vocab_size=64, d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, **sizes)
    model = BartForConditionalGeneration(config).eval()
    model.generation_config.update(max_length=9, min_length=2, num_beams=4, temperature=0.7, no_repeat_ngram_size=3)
    return model


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("make", [t5, bart])
def test_a_model_biased_to_end_early_is_timed_at_exactly_n_tokens(make, beams, caplog):
    model = make()
    if make is t5:  # its output layer shouts "end" at every step
        model.lm_head = torch.nn.Linear(32, 64)
        model.config.tie_word_embeddings = False
        torch.nn.init.zeros_(model.lm_head.weight)
    bias = torch.zeros(64)
    bias[model.config.eos_token_id] = 50.0
    if make is t5:
        model.lm_head.bias = torch.nn.Parameter(bias)
    else:
        model.final_logits_bias = bias[None]
    workload = Workload(input_tokens=6, output_tokens=7, batch_size=2, beams=beams)
    session = RUNTIME.build(model, workload, None)
    assert session.generated_tokens(session.generate()) == 7
    assert session.natural() <= 3
    session.close()
    found = latency.measure(model, model, workload, pairs=3)
    assert len(found.runs_ms) == 3 and found.details["natural_tokens"] <= 3


def test_the_models_own_settings_survive_a_timing():
    model = bart().train()
    before = copy.deepcopy(model.generation_config)
    latency.measure(model, bart(), Workload(input_tokens=4, output_tokens=3, attention="eager"), pairs=3)
    assert model.generation_config == before and model.training and model.config._attn_implementation == "sdpa"


def test_timing_warns_of_nothing_and_logs_nothing(caplog):
    session = RUNTIME.build(bart(), Workload(input_tokens=4, output_tokens=3, beams=2), None)
    session.generate()
    assert not caplog.records


def test_a_gated_but_uncut_model_is_as_slow_as_the_dense_one_and_is_warned_about():
    from nash_search.pruner.gates import Gates

    sizes = {"d_model": 64, "d_ff": 256, "d_kv": 16, "num_layers": 4}
    dense, model = t5(**sizes), t5(**sizes)
    gates = Gates(model)
    gates.use(torch.zeros_like(gates.logits_G))
    workload = Workload(input_tokens=12, output_tokens=6, batch_size=16)
    for _ in range(3):  # one look may be 10 % off on a busy machine; a cut model is 30 % off every time
        with gates.attached(model), pytest.warns(timing.NotCut, match="gated or hooked"):
            found = latency.measure(model, dense, workload, pairs=20, details=False)
        assert "cut it before timing" in found.details["warnings"][0]
        if abs(found.ratio - 1) <= 0.1:
            return
    pytest.fail(f"a gated model must take as long as the dense one, but got {found.ratio:.3f} of its time")


def test_a_model_without_sdpa_is_timed_with_the_attention_it_has(monkeypatch):
    model = t5()
    model.set_attn_implementation("eager")
    monkeypatch.setattr(type(model), "_supports_sdpa", False)
    found = latency.measure(model, model, WORKLOAD, pairs=3)
    assert found.details["attention"] == "eager"
    with pytest.raises(InvalidInput, match="attention must be one that T5ForConditionalGeneration has, but got nope"):
        latency.measure(model, model, WORKLOAD.model_copy(update={"attention": "nope"}), pairs=3)


def test_masked_weights_are_warned_about():
    model = t5()
    for block in model.encoder.block:
        block.layer[-1].DenseReluDense.wo.weight.data[:, ::2] = 0
    with pytest.warns(timing.NotCut, match="masked, not cut"):
        latency.measure(model, t5(), WORKLOAD, pairs=3, details=False)


def test_a_model_in_another_precision_is_timed_as_a_copy():
    model = t5()
    found = latency.measure(model, t5(), Workload(input_tokens=4, output_tokens=3, dtype="bfloat16"), pairs=3)
    assert next(model.parameters()).dtype == torch.float32
    assert found.fingerprint["dtype"] == "bfloat16"


def test_timing_owns_the_device_and_lets_it_go(monkeypatch):
    seen = []

    def spying(*args, **kwargs):
        seen.append(lock.held("cpu"))
        return time_round(*args, **kwargs)

    time_round = timing.time_round
    monkeypatch.setattr(timing, "time_round", spying)
    latency.measure(t5(), t5(), WORKLOAD, pairs=3, details=False)
    assert seen == ["exclusive"] and lock.held("cpu") == "free"


def test_a_timing_waits_for_the_device_longer_than_it_may_take_itself(monkeypatch):
    asked = []
    guard = device.timing_guard
    monkeypatch.setattr(device, "timing_guard", lambda *given: (asked.append(given), guard(*given))[1])
    latency.measure(t5(), t5(), WORKLOAD, pairs=3, details=False, limit_s=5)
    latency.measure(t5(), t5(), WORKLOAD, pairs=3, details=False, limit_s=5, wait_s=7)
    assert asked == [("cpu", None), ("cpu", 7)]


def test_a_shorter_decoder_is_measurably_faster():
    dense = t5(num_layers=6)
    short = t5(num_layers=6, num_decoder_layers=1)
    found = latency.measure(short, dense, Workload(input_tokens=4, output_tokens=8), pairs=20)
    assert found.ratio < 0.8
    assert found.median_ms == median(found.runs_ms)
    assert found.details["encoder_ms"] < found.median_ms and found.details["peak_memory_bytes"] > 0


def test_latency_survives_its_own_json(fake):
    run, _, _ = fake()
    found = run({"a": 0.005}, pairs=3, details=True)["a"]
    assert type(found).model_validate_json(found.model_dump_json()) == found


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_compiled_generation_is_a_recorded_choice_and_leaves_the_model_alone():
    model = t5(num_layers=1)
    workload = Workload(input_tokens=4, output_tokens=4, runtime="compile")
    found = latency.measure(model, model, workload, pairs=5, details=False)
    assert found.fingerprint["compile_mode"] == "default" and found.fingerprint["runtime"] == "compile"
    assert len(found.runs_ms) == 5 and "forward" not in vars(model)


def test_a_runtime_that_cannot_run_here_is_named(monkeypatch):
    monkeypatch.setitem(runtimes.RUNTIMES, "onnxruntime", Served(words="x", module="nash_search.latency.nowhere"))
    with pytest.raises(
        InvalidInput, match=r"runtime must be one that runs here, but got onnxruntime \(not in this ver"
    ):
        runtimes.runtime_of(WORKLOAD.model_copy(update={"runtime": "onnxruntime"}))
    monkeypatch.setitem(runtimes.RUNTIMES, "onnxruntime", Served(words="x", module="a_missing_package.runtime"))
    with pytest.raises(InvalidInput, match="needs a_missing_package, which is not installed"):
        runtimes.runtime_of(WORKLOAD.model_copy(update={"runtime": "onnxruntime"}))


def test_a_round_of_traffic_times_each_request_with_its_own_lengths_next_to_dense(monkeypatch):
    served = Traffic.counted(Counter({Request(3, 4): 20, Request(5, 9): 19, Request(8, 30): 1}), "log")
    workload = WORKLOAD.model_copy(update={"traffic": served, "batch_size": 1})
    asked = []
    run = EagerSession.generate

    def spied(session):
        asked.append(
            (session.model.config.num_decoder_layers, session.workload.input_tokens, run(session).shape[1] - 1)
        )
        return run(session)

    monkeypatch.setattr(EagerSession, "generate", spied)
    found = latency.measure(t5(num_decoder_layers=1), t5(num_decoder_layers=2), workload, pairs=10, turn=4)
    drawn = [tuple(r) for r in served.drawn(10, turn=4)]
    timed = asked[-20:]
    assert [lengths for layers, *lengths in timed if layers == 1] == [list(pair) for pair in drawn]
    assert all({a[0], b[0]} == {1, 2} and a[1:] == b[1:] for a, b in zip(timed[::2], timed[1::2], strict=True))
    assert {width for _, width, _ in asked[:-20]} == {width for width, _ in drawn}, (
        "no length is met for the first time"
    )
    assert len(found.runs_ms) == 10 and found.status != "cut_short" and found.workload.traffic == served
    assert found.median_ms == pytest.approx(np.percentile(found.runs_ms, 50))
    assert found.at(95).ratio == percentiles.ratio((found.runs_ms,), (found.rounds[0].dense_runs_ms,), 95)


READ = {
    "eager": lambda session: session.inputs.mask_BL.sum(1).tolist(),
    "ctranslate2": lambda session: list(map(len, session.rows)),
    "onnxruntime": lambda session: session.mask_BS.sum(1).tolist(),
}
"""Tokens of each row, as a session reads it."""


@pytest.mark.parametrize("runtime", READ)
def test_a_batch_of_requests_is_read_by_its_lengths_and_written_until_its_longest(runtime):
    if runtime != "eager":
        pytest.importorskip(runtime)
    served = Traffic.counted(Counter({Request(2, 3): 5, Request(4, 9): 3, Request(7, 5): 2}), "log")
    workload = WORKLOAD.model_copy(update={"traffic": served, "batch_size": 3, "runtime": runtime})
    calls, model, engine = workload.calls(4, 0), t5(), runtimes.runtime_of(workload)
    assert any(len(set(call.row_tokens)) > 1 for call in calls)
    served_by = model if runtime == "eager" else engine.converted(model, calls[0])
    for call in calls:
        session = engine.build(served_by, call, None)
        assert tuple(READ[runtime](session)) == (call.row_tokens or (call.input_tokens,) * 3)
        assert session.generated_tokens(session.generate()) == call.output_tokens
        session.close()


def test_a_traffic_smaller_than_a_round_is_timed_once_whole():
    served = Traffic.counted(Counter({Request(3, 4): 2, Request(5, 6): 1}), "log")
    workload = WORKLOAD.model_copy(update={"traffic": served, "batch_size": 1})
    found = latency.measure(t5(), t5(), workload, pairs=10, details=False)
    assert len(found.runs_ms) == 3 and found.status != "cut_short"
