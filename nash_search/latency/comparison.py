"""Does a serving engine write what PyTorch writes? Every token of at least 64 inputs, before anything is timed.

    greedy, and the workload's beams, to the models' own ends:   eager  t1 t2 t3 </s>
                                                                 engine t1 t2 t3 </s>     else: refused

The first different token is forgiven only where eager itself scores both outputs alike (closer than 1e-3 nats;
sums in another order move a score by about 1e-5): then neither is wrong. Such ties are counted. On the shipped
teacher cut to 16 shapes there was none in 41 000 tokens; without this rule one would still end a search.
This module refuses to know engines.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from nash_search.config import Workload
from nash_search.errors import InvalidInput
from nash_search.latency.eager import RUNTIME as EAGER
from nash_search.latency.workload import random_inputs

INPUTS = 64
TIE = 1e-3
"""Nats; normalised by length where whole beams are compared."""
RANDOM_TOKENS = 24
"""Longest output on random inputs, which a probe compares on for each of its shapes."""
TOGETHER = 16
"""Inputs of one eager batch, sorted by length: padding costs time and changes nothing."""


class Write(Protocol):
    """An engine: token ids of inputs in, token ids of outputs out, laid out as eager's."""

    def __call__(self, rows: Sequence[Sequence[int]], *, beams: int, max_new_tokens: int) -> list[list[int]]: ...


def agreed(
    model: Any,
    write: Write,
    workload: Workload,
    rows: Sequence[Sequence[int]] | None = None,
    **eager_settings: Any,
) -> dict[str, Any]:
    """Compare an engine with the PyTorch model it was made from, on the CPU in float32.

    Args:
        model: the PyTorch model; its generation settings count.
        write: the engine, in float32.
        workload: beams and lengths are taken from it, and the runtime's name.
        rows: token ids of real inputs; filled up to 64 with random ones of lengths up to the workload's.
        eager_settings: generation settings under which eager's beams search as the engine's do.

    Returns:
        `inputs`, `beams` and `ties`, for whoever reads the latency.

    Raises:
        InvalidInput: an output differs; the message names the first such input.
    """
    asked = [list(row) for row in rows or ()][:INPUTS]
    longest = 2 * workload.output_tokens if asked else min(workload.output_tokens, RANDOM_TOKENS)
    asked = sorted(asked + ragged(model, workload, INPUTS - len(asked)), key=len)
    plain = workload.model_copy(update={"device": "cpu", "dtype": "float32", "runtime": "eager", "quantize": "none"})
    torch_model = EAGER.placed(model, plain)
    own_config = torch_model.generation_config
    ties, beams_of = 0, sorted({1, workload.beams})
    for beams in beams_of:
        theirs = _chunked(write, asked, beams, longest)
        try:
            torch_model.generation_config = _with(own_config, eager_settings if beams > 1 else {})
            ours = _chunked(lambda *a, **k: EAGER.tokens(torch_model, *a, **k), asked, beams, longest)
        finally:
            torch_model.generation_config = own_config
        for row, own, other in zip(asked, ours, theirs, strict=True):
            own, other = _ended(own, own_config), _ended(other, own_config)
            if own == other:
                continue
            if not _tied(torch_model, row, own, other, beams):
                raise InvalidInput(
                    f"runtime {workload.runtime} must write what PyTorch writes, but with {beams} beams it got "
                    f"{other} instead of {own} for input {row}"
                )
            ties += 1
    return {"inputs": len(asked), "beams": beams_of, "ties": ties}


def ragged(model: Any, workload: Workload, count: int) -> list[list[int]]:
    """Random rows of ordinary tokens, their lengths spread evenly from 1 to the workload's."""
    if count <= 0:
        return []
    shape = workload.model_copy(update={"batch_size": count})
    found = random_inputs(shape, vocabulary=model.config.vocab_size, special=EAGER.special(model.config))
    lengths = torch.linspace(1, workload.input_tokens, count).round().int().tolist()
    return [row[:length] for row, length in zip(found.ids_BL.tolist(), lengths, strict=True)]


def _chunked(write: Write, rows: Sequence[Sequence[int]], beams: int, longest: int) -> list[list[int]]:
    parts = [rows[start : start + TOGETHER] for start in range(0, len(rows), TOGETHER)]
    return [row for part in parts for row in write(part, beams=beams, max_new_tokens=longest)]


def _with(config: Any, settings: dict[str, Any]) -> Any:

    found = copy.deepcopy(config)
    found.update(**settings)
    return found


def _ended(row: Sequence[int], config: Any) -> list[int]:
    """Without the start token and what follows the first end token."""
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    found = list(row[1:])
    stop = next((index for index, token in enumerate(found) if token in ends), len(found))
    return found[: stop + 1]


def _tied(model: Any, row: Sequence[int], own: list[int], other: list[int], beams: int) -> bool:
    """Whether eager scores both outputs alike: at the first different token, or per token of whole beams."""
    if beams > 1:
        return abs(_scores(model, row, own).mean() - _scores(model, row, other).mean()).item() < TIE
    at = next((i for i, (a, b) in enumerate(zip(own, other, strict=False)) if a != b), None)
    if at is None:  # one of them is the beginning of the other
        return False
    return abs(_scores(model, row, own)[at] - _scores(model, row, other)[at]).item() < TIE


@torch.no_grad()
def _scores(model: Any, row: Sequence[int], output: Sequence[int]) -> torch.Tensor:
    """Log-probability of each token of an output, nats, with the ones before it given."""
    start = model.generation_config.decoder_start_token_id
    ids_T = torch.tensor(output)
    logits_TV = model(
        input_ids=torch.tensor([list(row)]), decoder_input_ids=torch.tensor([[start, *output[:-1]]])
    ).logits[0]
    found: torch.Tensor = logits_TV.float().log_softmax(-1)[torch.arange(len(output)), ids_T]
    return found
