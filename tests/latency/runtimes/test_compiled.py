"""Every model of a process is compiled for itself, and what is timed was compiled before."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo import callback
from torch._dynamo import config as limits
from transformers import T5Config, T5ForConditionalGeneration

from nash_search import latency, loading
from nash_search.config import Workload
from nash_search.errors import InvalidInput
from nash_search.latency import timing_round
from nash_search.latency.runtimes import compiled
from nash_search.latency.runtimes.eager import RUNTIME as EAGER
from nash_search.pruner import shorten
from tests.pruner import tiny

WORKLOAD = Workload(input_tokens=4, output_tokens=3, runtime="compile")


def t5(heads):
    """The number of heads is what the compiler must compile anew for."""
    torch.manual_seed(heads)
    sizes = {"vocab_size": 40, "d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": heads}
    return T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0)).eval()


@pytest.fixture
def captured(monkeypatch):
    """What is captured is run as it is: these tests are about which graphs there are, not about how fast."""
    runs = []

    def backend(graph, _inputs, **_settings):
        def run(*arguments):
            runs.append(graph)
            return graph(*arguments)

        return run

    monkeypatch.setitem(compiled.SETTINGS, "backend", backend)
    torch.compiler.reset()
    yield runs
    torch.compiler.reset()


def check_all_are_compiled(count, runs):
    models = {f"{heads} heads": t5(heads) for heads in range(1, count + 1)}
    sessions = {name: compiled.RUNTIME.build(model, WORKLOAD, None) for name, model in models.items()}
    for name, session in sessions.items():
        runs.clear()
        before = compiled._graphs()
        output = session.generate()
        assert len(runs) == WORKLOAD.output_tokens, f"{name}: every step runs a graph"
        assert compiled._graphs() == before, f"{name}: a timed call compiles nothing"
        session.close()
        plain = EAGER.build(models[name], WORKLOAD.model_copy(update={"runtime": "eager"}), None)
        assert torch.equal(output, plain.generate()), name
        plain.close()


@pytest.mark.slow
def test_more_models_than_the_compiler_keeps_graphs_of_are_all_compiled(captured, monkeypatch):
    with limits.patch(recompile_limit=2):
        check_all_are_compiled(3, captured)


@pytest.mark.slow
def test_the_twelfth_model_of_a_process_is_compiled(captured):
    check_all_are_compiled(12, captured)


@pytest.mark.slow
def test_a_recompilation_in_a_timed_call_is_refused_by_name(captured):
    class Changing(compiled.CompiledSession):
        def _run(self, config):
            if self._ready:  # another shape than the one that was compiled
                self.inputs.ids_BL.data = self.inputs.ids_BL[:, :-1].contiguous()
                self.inputs.mask_BL.data = self.inputs.mask_BL[:, :-1].contiguous()
            return super()._run(config)

    model = t5(2)
    session = Changing(model, WORKLOAD, EAGER.inputs(model, WORKLOAD, None))
    with pytest.raises(InvalidInput, match=r"^enc50-dec1: runtime compile must time .* but got a recompilation"):
        with timing_round.named("enc50-dec1"):
            session.generate()
    session.close()


def test_what_cannot_be_compiled_is_refused_by_name(monkeypatch):
    def broken(_graph, _inputs):
        raise RuntimeError("no compiler here")

    monkeypatch.setitem(compiled.SETTINGS, "backend", broken)
    torch.compiler.reset()
    model = t5(2)
    with pytest.raises(InvalidInput, match="^the dense model: runtime compile must be able to compile T5ForCond"):
        latency.measure(model, model, WORKLOAD, pairs=1, exclusive=False)
    assert not {"forward", "get_compiled_call"} & set(vars(model))
    torch.compiler.reset()


def test_on_cuda_generate_is_handed_the_models_own_compiled_call(captured, monkeypatch):
    monkeypatch.setattr(T5ForConditionalGeneration, "_valid_auto_compile_criteria", lambda *_: True)
    workload = WORKLOAD.model_copy(update={"device": "cuda:0"})
    with limits.patch(recompile_limit=1):
        for heads in (1, 2, 3):
            model = t5(heads)
            session = compiled.CompiledSession(model, workload, EAGER.inputs(model, workload, None))
            captured.clear()
            session.generate()
            assert len(captured) == WORKLOAD.output_tokens - 1, "all steps but the first"
            session.close()
            assert not hasattr(model, "_compiled_call") and "get_compiled_call" not in vars(model)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "beams"), [("t5", 2), ("bart", 1)])
def test_a_session_has_one_cache_and_its_tensors_stay_where_they_are(kind, beams, captured):
    model, call = tiny.model_of(kind), WORKLOAD.model_copy(update={"output_tokens": 5, "beams": beams, "batch_size": 2})
    plain = EAGER.build(model, call.model_copy(update={"runtime": "eager"}), None)
    expected = plain.generate()
    plain.close()
    session = compiled.RUNTIME.build(model, call, None)
    tensors = [tensor for layer in session.cache.layers for tensor in (layer.keys, layer.values)]
    where = [tensor.data_ptr() for tensor in tensors]
    for _ in range(2):
        assert torch.equal(session.generate(), expected)
    now = [tensor.data_ptr() for layer in session.cache.layers for tensor in (layer.keys, layer.values)]
    assert now == where and len(set(where)) == len(where) > 4
    session.close()
    assert not {"forward", "_prepare_static_cache"} & set(vars(model))


@pytest.mark.slow
def test_a_graph_that_is_recorded_in_a_timed_call_is_refused_by_name(captured):
    class Recording(compiled.CompiledSession):
        def _run(self, config):
            with callback.callback_handler.install_callbacks(callback.CallbackTrigger.CUDAGRAPH_RECORDING, "0/0"):
                return super()._run(config)

    model = t5(2)
    session = Recording(model, WORKLOAD, EAGER.inputs(model, WORKLOAD, None))
    with pytest.raises(
        InvalidInput, match=r"must replay recorded CUDA graphs of T5For.* but got 1 recorded in a timed"
    ):
        session.generate()
    session.close()


def test_a_copy_does_not_carry_the_compiled_call_of_the_original():
    teacher = t5(2)
    teacher.get_compiled_call(None)
    assert "_compiled_call" in vars(teacher)
    for copied in (loading.copied(teacher), shorten(teacher, 1), loading.in_precision(teacher, "bfloat16")):
        assert "_compiled_call" not in vars(copied) and "_last_compile_config" not in vars(copied)


def test_a_family_that_a_static_cache_does_not_fit_is_refused_by_name():
    with pytest.raises(InvalidInput, match="runtime must be one without a static cache for led, but got compile"):
        latency.runtimes.runtime_of(WORKLOAD).build(tiny.model_of("led"), WORKLOAD, None)
