"""Does a serving engine write what PyTorch writes? Every token of at least 64 inputs, before anything is timed.

    greedy, and the workload's beams, to the models' own ends:   eager  t1 t2 t3 </s>
                                                                 engine t1 t2 t3 </s>     else: refused

The first different token is forgiven only where eager itself scores both outputs alike (closer than 1e-3 nats;
sums in another order move a score by about 1e-5): then neither is wrong. Such ties are counted. On the shipped
teacher cut to 16 shapes there was none in 41 000 tokens; without this rule one would still end a search.

An engine whose beam search ends by another rule than Hugging Face's may find other outputs (`exact_beams=False`).
Greedy search is still compared token for token, which holds the conversion; beams are then judged by what both search
for: PyTorch's own score of an output. Over the real inputs the engine's may be worse by `GAP` nats per token at most,
and no output may break a setting of the model. Random inputs, which a timing alone asks for, are not judged: what a
model of random weights writes there ends at its limit, where searches differ most. How many outputs differ is told, so
that their quality is compared too (`trial/deployment.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from nash_search.config import Workload
from nash_search.encoder_rows import EncoderRows, FeatureRows, Given, rows_of
from nash_search.errors import InvalidInput
from nash_search.families import FRAMES_PER_POSITION
from nash_search.latency.runtimes.eager import RUNTIME as EAGER
from nash_search.latency.workload import random_inputs
from nash_search.token_rows import TokenRows

INPUTS = 64
TIE = 1e-3
"""Nats; normalised by length where whole beams are compared."""
GAP = 0.02
"""Nats per token that an engine's beams may score worse than PyTorch's, in the mean over real inputs."""
RANDOM_TOKENS = 24
"""Longest output on random inputs, which a probe compares on for each of its shapes."""
TOGETHER = 16
"""Inputs of one eager batch, sorted by length: padding costs time and changes nothing."""


class Write(Protocol):
    """An engine: inputs in, token ids of outputs out, laid out as eager's."""

    def __call__(self, rows: Any, *, beams: int, max_new_tokens: int) -> list[list[int]]: ...


def agreed(
    model: Any,
    write: Write,
    workload: Workload,
    rows: Given | None = None,
    *,
    exact_beams: bool = True,
) -> dict[str, Any]:
    """Compare an engine with the PyTorch model it was made from, on the CPU in float32.

    Args:
        model: the PyTorch model; its generation settings count.
        write: the engine, in float32.
        workload: beams and lengths are taken from it, and the runtime's name.
        rows: real inputs; filled up to 64 with random ones, texts of lengths up to the workload's.
        exact_beams: the engine's beams search as eager's do; else differing outputs are judged by score.

    Returns:
        `inputs`, `beams` and `ties`, for whoever reads the latency; where outputs of beams differ, `differing` (how
        many) and `score_gap` (nats per token by which PyTorch scores the engine's worse, in the mean over real inputs).

    Raises:
        InvalidInput: an output differs (the message names the first such input), or scores worse than it may.
    """
    given = rows_of(rows or ())
    given = given.picked(range(min(INPUTS, len(given))))
    parts = [part for part in (given, random_rows(model, workload, INPUTS - len(given))) if len(part)]
    longest = 2 * workload.output_tokens if len(given) else min(workload.output_tokens, RANDOM_TOKENS)
    torch_model = EAGER.placed(model, workload.in_pytorch(device="cpu"))
    longest = min(longest, EAGER.longest(torch_model) or longest)
    ties, beams_of, apart = 0, sorted({1, workload.beams}), dict[str, Any]()
    for beams in beams_of:
        differing, judged = 0, list[tuple[EncoderRows, list[int], list[int]]]()
        for one, number, own, other in _written(torch_model, write, parts, beams, longest):
            if own == other:
                continue
            if _tied(torch_model, one, own, other, beams):
                ties += 1
            elif beams > 1 and not exact_beams:
                differing += 1
                judged += [(one, own, other)] * (parts[number] is given)
            else:
                raise InvalidInput(
                    f"runtime {workload.runtime} must write what PyTorch writes, but with {beams} beams it got "
                    f"{other} instead of {own} for input {_named(one)}"
                )
        if differing:
            gap = _gap(torch_model, judged, longest, len(given))
            if not gap <= GAP:
                raise InvalidInput(
                    f"runtime {workload.runtime} must find outputs that PyTorch scores at most {GAP} nats per token "
                    f"below its own, but with {beams} beams got {gap:.3g}, as in {judged[0][2]} instead of "
                    f"{judged[0][1]} for input {_named(judged[0][0])}"
                )
            apart = {"differing": differing, "score_gap": gap}
    return {"inputs": sum(map(len, parts)), "beams": beams_of, "ties": ties, **apart}


def ragged(model: Any, workload: Workload, count: int) -> list[list[int]]:
    """Random rows of ordinary tokens, their lengths spread evenly from 1 to the workload's."""
    if count <= 0:
        return []
    shape = workload.model_copy(update={"batch_size": count, "row_tokens": ()})
    config = model.config
    found = random_inputs(shape, vocabulary=config.vocab_size, pad=0, special=EAGER.special(config))
    lengths = torch.linspace(1, workload.input_tokens, count).round().int().tolist()
    return [row[:length] for row, length in zip(found.ids_BL.tolist(), lengths, strict=True)]


def random_rows(model: Any, workload: Workload, count: int) -> EncoderRows:
    """Random inputs of the model's kind: texts of several lengths (`ragged`), or sounds of its window."""
    if not EAGER.is_speech(model):
        return TokenRows.of(ragged(model, workload, count))
    positions = model.config.max_source_positions
    return loud_rows(max(0, count), model.config.num_mel_bins, positions)


def loud_rows(count: int, bins: int, positions: int) -> FeatureRows:
    """Features of which each row is loud in bins of its own: noise alone would all sound alike to a model."""
    generator = torch.Generator().manual_seed(0)
    loud = torch.randn(count, bins, 1, generator=generator)
    noise = torch.randn(count, bins, FRAMES_PER_POSITION * positions, generator=generator)
    return FeatureRows((loud + 0.1 * noise).numpy(), range(count), positions)


def _written(
    model: Any, write: Write, parts: Sequence[EncoderRows], beams: int, longest: int
) -> Iterator[tuple[EncoderRows, int, list[int], list[int]]]:
    """Each input, where it comes from, and what eager and the engine write for it, up to the end."""
    for number, part in enumerate(parts):
        order = np.argsort(part.lengths, kind="stable").tolist()
        for start in range(0, len(order), TOGETHER):
            some = order[start : start + TOGETHER]
            rows, asked = part.picked(some), {"beams": beams, "max_new_tokens": longest}
            ours, theirs = EAGER.tokens(model, rows, **asked), write(rows, **asked)
            for index, own, other in zip(some, ours, theirs, strict=True):
                yield part.picked([index]), number, *(ended(model, found, longest) for found in (own, other))


def ended(model: Any, row: Sequence[int], longest: int | None = None) -> list[int]:
    """An output without its start token and what follows its first end token.

    A model that hears returns neither start nor end: it has ended where it wrote fewer tokens than `longest`.
    """
    config, is_speech = model.generation_config, EAGER.is_speech(model)
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    found = list(row if is_speech else row[1:])
    stop = next((index for index, token in enumerate(found) if token in ends), len(found))
    if is_speech and stop == len(found) and longest is not None and stop < longest:
        return [*found, ends[0]]
    return found[: stop + 1]


def _tied(model: Any, row: EncoderRows, own: list[int], other: list[int], beams: int) -> bool:
    """Whether eager scores both outputs alike: at the first different token, or per token of whole beams."""
    if beams > 1:
        return abs(_scores(model, row, own).mean() - _scores(model, row, other).mean()).item() < TIE
    at = next((i for i, (a, b) in enumerate(zip(own, other, strict=False)) if a != b), None)
    if at is None:  # one of them is the beginning of the other
        return False
    return abs(_scores(model, row, own)[at] - _scores(model, row, other)[at]).item() < TIE


def _gap(model: Any, judged: Sequence[tuple[Any, Any, Any]], longest: int, inputs: int) -> float:
    """Nats per token by which outputs other than PyTorch's own score below them, spread over so many inputs."""
    each = [objective(model, row, own, longest) - objective(model, row, other, longest) for row, own, other in judged]
    return sum(each) / max(1, inputs)


def objective(model: Any, row: Given, output: Sequence[int], longest: int) -> float:
    """What PyTorch's beam search looks for the most of: log-probability over length to the power of `length_penalty`.

    Args:
        model: the PyTorch model; its generation settings count.
        row: the input, as a single row.
        output: new token ids, the end with them.
        longest: new tokens at most; a token forced there costs nothing.

    Returns:
        Nats per token where `length_penalty` is 1; minus infinity for an output that the settings forbid.
    """
    own = model.generation_config
    if _forbidden(own, output, longest):
        return -math.inf
    scores_T = _scores(model, row, output)
    if own.forced_bos_token_id is not None:
        scores_T[0] = 0
    if own.forced_eos_token_id is not None and len(output) == longest:
        scores_T[-1] = 0
    penalty = 1.0 if own.length_penalty is None else own.length_penalty
    return float(scores_T.sum()) / float(len(output) ** penalty)


def _forbidden(own: Any, output: Sequence[int], longest: int) -> bool:
    """Whether an output breaks a setting: tokens that must not or must come, n-grams twice, an end too early."""
    ends = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    bad = [list(ids) for ids in own.bad_words_ids or [] if list(ids) not in [[end] for end in ends]]
    bad += [[token] for token in own.suppress_tokens or []]
    size, found = own.no_repeat_ngram_size or 0, list(output)
    grams = [tuple(found[i : i + size]) for i in range(len(found) - size + 1)] if size else []
    least = max(own.min_new_tokens or 0, (own.min_length or 0) - 1)
    return (
        any(found[i : i + len(ids)] == ids for ids in bad for i in range(len(found)))
        or len(set(grams)) < len(grams)
        or (own.forced_bos_token_id is not None and found[:1] != [own.forced_bos_token_id])
        or any(token in ends for token in found[:least])
        or (own.forced_eos_token_id is not None and len(found) == longest and found[-1] not in ends)
    )


@torch.no_grad()
def _scores(model: Any, row: Given, output: Sequence[int]) -> torch.Tensor:
    """Log-probability of each token of an output, nats, with the ones before it given."""
    batch, prompt = rows_of(row).batch(model.config.pad_token_id or 0), EAGER.prompt(model)
    ids_T = torch.tensor(output)
    logits_TV = model(**batch, decoder_input_ids=torch.tensor([[*prompt, *output[:-1]]])).logits[0, len(prompt) - 1 :]
    found: torch.Tensor = logits_TV.float().log_softmax(-1)[torch.arange(len(output)), ids_T]
    return found


def _named(row: EncoderRows) -> str:
    """A single row as errors name it: its token ids, or what it is."""
    return str(row[0]) if isinstance(row, TokenRows) else "of features"
