"""A speech model writes text: a time stamp, which would end `generate`'s segment or never end the call, is not one."""

import pytest
import torch

from nash_search import pruner
from nash_search.config import Workload
from nash_search.latency.runtimes import parity
from nash_search.latency.runtimes.eager import RUNTIME
from nash_search.writing import written
from tests.speech import listening, tokenizer_of, write_model

STAMPS, STAMP = 101, "<|0.40|>"
"""As many as a window of 2 s has."""


def id_of(token):
    return tokenizer_of(STAMPS).convert_tokens_to_ids(token)


def fond_of(model, token):
    """A model that gives `token` the highest score at every step, whatever it hears."""
    with torch.no_grad():
        norm = model.get_decoder().layer_norm
        norm.weight.zero_()
        norm.bias.copy_(100 * model.get_input_embeddings().weight[token])
    return model


@pytest.fixture
def model(tmp_path):
    folder = write_model(tmp_path / "model", stamps=STAMPS)
    return fond_of(listening(pruner.load(folder)), id_of(STAMP)).eval()


def test_time_stamps_alone_make_generate_listen_again_and_again(model):
    """What `written` is for: were this to fail, transformers would have mended it."""
    heard = torch.zeros(1, 8, 200)
    again = model.generate(heard, max_new_tokens=6, min_new_tokens=6)
    assert again.shape[1] > 6


@pytest.mark.parametrize("beams", [1, 3])
def test_no_time_stamp_is_written_and_the_call_is_one(model, beams):
    stamps = model.generation_config.no_timestamps_token_id + 1
    found = written(model, {"input_features": torch.randn(2, 8, 200)}, max_new_tokens=6, num_beams=beams)
    assert found.shape[1] <= 6 and int(found.max()) < stamps


@pytest.mark.parametrize("stamp", [STAMP, "<|0.00|>"])  # of two stamps of 0 s, generate never comes back
def test_a_timed_call_has_exactly_the_asked_tokens_whatever_the_model_would_write(model, stamp):
    workload = Workload(batch_size=2, input_tokens=100, output_tokens=6)
    session = RUNTIME.build(fond_of(model, id_of(stamp)), workload, None)
    assert session.generated_tokens(session.generate()) == 6
    assert session.natural() <= 4 * 6
    session.close()


def test_ctranslate2_writes_none_either(model):
    runtime = pytest.importorskip("nash_search.latency.runtimes.ctranslate2").RUNTIME
    workload = Workload(runtime="ctranslate2", batch_size=2, input_tokens=100, output_tokens=6)
    rows = parity.random_rows(model, workload, 4)
    served = runtime.build(model, workload, rows)  # refuses what does not write PyTorch's tokens
    assert served.generated_tokens(served.generate()) == 6
