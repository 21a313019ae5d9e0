"""Requests by their lengths: kept few, drawn by strata, the same for the same round."""

from __future__ import annotations

from collections import Counter

from nash_search.config import Workload
from nash_search.traffic import MOST, Request, Traffic

MANY = Counter({Request(i % 40 + 1, i % 90 + 1): 1 + i % 7 for i in range(3600)})
TRAFFIC = Traffic.counted(MANY, "log.jsonl")


def test_a_million_requests_are_kept_as_a_thousand_along_their_lengths() -> None:
    big = Traffic.counted(Counter({pair: 1000 * count for pair, count in MANY.items()}), "log.jsonl")
    assert len(big.requests) == MOST and big.of == 1000 * TRAFFIC.of > 1_000_000
    written = sorted(pair.output_tokens for pair, count in MANY.items() for _ in range(count))
    kept = sorted(r.output_tokens for r in big.requests)
    for share in (0.05, 0.5, 0.95, 0.99):
        assert abs(kept[int(share * MOST)] - written[int(share * len(written))]) <= 1


def test_a_round_draws_one_request_of_each_stratum_and_always_the_same() -> None:
    drawn = TRAFFIC.drawn(50, turn=3)
    assert drawn == TRAFFIC.drawn(50, turn=3) != TRAFFIC.drawn(50, turn=4)
    order = {request: i for i, request in enumerate(sorted(MANY, key=lambda r: (r.output_tokens, r.input_tokens)))}
    written = sorted(drawn, key=lambda r: order[r])
    for i, request in enumerate(written):
        low, high = TRAFFIC.requests[20 * i], TRAFFIC.requests[20 * i + 19]
        assert order[low] <= order[request] <= order[high]
    few = Traffic.counted(Counter({Request(3, 4): 2, Request(5, 6): 1}), "few")
    assert sorted(few.drawn(50, turn=0)) == [Request(3, 4), Request(3, 4), Request(5, 6)]


def test_a_batch_is_filled_by_chance_and_padded_as_a_server_pads_it():
    drawn = TRAFFIC.batches(50, turn=3, size=4)
    assert drawn == TRAFFIC.batches(50, turn=3, size=4) and [b[0] for b in drawn] == list(TRAFFIC.drawn(50, turn=3))
    for place in range(4):  # each has one request out of each stratum, next to others by chance
        written = sorted(batch[place].output_tokens for batch in drawn)
        strata = [TRAFFIC.requests[20 * i].output_tokens for i in range(50)]
        assert all(low <= found for low, found in zip(strata, written, strict=True))
    assert len({tuple(b[place].output_tokens for b in drawn) for place in range(4)}) == 4
    served = Workload(input_tokens=4, output_tokens=5, batch_size=4, traffic=TRAFFIC)
    for call, batch in zip(served.calls(50, 3), drawn, strict=True):
        read, written = zip(*batch, strict=True)
        assert (call.input_tokens, call.output_tokens, call.row_tokens) == (max(read), max(written), read)
        assert call.traffic is None and call.batch_size == 4
    few = served.model_copy(update={"traffic": Traffic.counted(Counter({Request(3, 4): 2}), "few")})
    assert few.calls(9, 0) == (Workload(input_tokens=3, output_tokens=4, batch_size=4),) * 2
    assert served.longer > served.model_copy(update={"batch_size": 1}).longer > 1.0 == call.longer
    assert (few.units, few.calls(9, 0)[0].units) == ("batches", "pairs")


def test_a_workload_says_its_traffic_in_one_line_and_a_call_of_fixed_lengths_says_what_it_always_did() -> None:
    call = Workload(input_tokens=4, output_tokens=5)
    assert "traffic" not in call.model_dump(mode="json") and call.calls(40, 0) == (call,)
    served = call.model_copy(update={"traffic": Traffic.counted(Counter({Request(3, 4): 2}), "few")})
    assert served.model_dump(mode="json")["traffic"] == {"source": "few", "of": 2, "requests": "3>4 3>4"}
    assert Workload.model_validate_json(served.model_dump_json()) == served
    assert served.calls(9, 0) == (Workload(input_tokens=3, output_tokens=4),) * 2
