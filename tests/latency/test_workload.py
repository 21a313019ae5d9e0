"""The workload a request means, and the batch it reads."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from nash_search.config import Workload, WorkloadRequest
from nash_search.errors import InvalidInput
from nash_search.latency import workload as workloads
from nash_search.traffic import Request, Traffic


def test_what_the_user_fixed_wins_and_the_data_fills_the_rest():
    asked = WorkloadRequest(batch_size=3, beams=2)
    found = workloads.resolve(asked, input_tokens=9, output_tokens=7, batch_size=64, beams=1, device="cpu")
    assert found == Workload(batch_size=3, beams=2, input_tokens=9, output_tokens=7, threads=1, dtype="float32")


def test_a_gpu_defaults_to_bf16():
    found = workloads.resolve(WorkloadRequest(), input_tokens=9, output_tokens=7, device="cuda:1")
    assert (found.dtype, found.device) == ("bfloat16", "cuda:1")


def test_eager_refuses_quantized_weights():
    with pytest.raises(InvalidInput, match="quantize must be none for runtime eager, but got int8"):
        workloads.resolve(WorkloadRequest(quantize="int8"), input_tokens=1, output_tokens=1)


def test_random_inputs_are_full_length_ordinary_and_the_same_every_time():
    asked = Workload(batch_size=5, input_tokens=11, output_tokens=1)
    first = workloads.random_inputs(asked, vocabulary=20, pad=0, special={0, 1, 19})
    assert first.ids_BL.shape == (5, 11) and bool(first.mask_BL.all())
    assert not set(first.ids_BL.flatten().tolist()) & {0, 1, 19}
    assert torch.equal(first.ids_BL, workloads.random_inputs(asked, vocabulary=20, pad=0, special={0, 1, 19}).ids_BL)
    with pytest.raises(InvalidInput, match="tokens that are not special"):
        workloads.random_inputs(asked, vocabulary=1, pad=0, special={0})


def test_task_inputs_are_repeated_cut_and_padded():
    asked = Workload(batch_size=3, input_tokens=3, output_tokens=1)
    found = workloads.task_inputs(asked, [[5, 6, 7, 8], [9]], pad=2)
    assert found.ids_BL.tolist() == [[5, 6, 7], [9, 2, 2], [5, 6, 7]]
    assert found.mask_BL.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 1]]
    with pytest.raises(InvalidInput, match="at least one row"):
        workloads.task_inputs(asked, [[]], pad=0)


def test_rows_of_a_padded_batch_are_masked_behind_their_own_lengths():
    asked = Workload(batch_size=3, input_tokens=4, output_tokens=1, row_tokens=(4, 1, 2))
    masks = [[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]]
    found = workloads.random_inputs(asked, vocabulary=9, pad=7, special={7})
    assert found.mask_BL.tolist() == masks and torch.equal(found.ids_BL == 7, found.mask_BL == 0)
    found = workloads.task_inputs(asked, [[5, 6, 5, 6, 5]], pad=7)
    assert found.mask_BL.tolist() == masks and found.ids_BL.tolist() == [[5, 6, 5, 6], [5, 7, 7, 7], [5, 6, 7, 7]]


def test_traffic_gives_its_median_lengths_and_is_refused_where_requests_are_not_taken_as_they_come():
    served = Traffic.counted(Counter({Request(3, 4): 1, Request(9, 8): 1, Request(5, 30): 1}), "log.jsonl")
    call = Workload(input_tokens=1, output_tokens=1)
    found = workloads.of_traffic(call, served)
    assert (found.input_tokens, found.output_tokens, found.traffic) == (5, 8, served)
    with pytest.raises(InvalidInput, match="runtime must take any length .*, but got compile"):
        workloads.of_traffic(call.model_copy(update={"runtime": "compile"}), served)
