"""Greedy and beam search in numpy over any decoder that takes one token per row and returns logits.

What Hugging Face's `generate` writes, token for token (its beam search of version 5), without its machinery:
an engine that only multiplies matrices brings no loop of its own. Beams are needed besides greedy decoding: Opus-MT
models are published to decode with several, and the latency of greedy decoding would be another call's.

R rows of the decoder (inputs times beams), B inputs, K beams, C candidates, V tokens, T new tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from nash_search.errors import InvalidInput
from nash_search.latency.runtimes.conversion import Settings, not_followed, settings_of

NEVER = np.float32(-np.inf)
WORST = np.float32(-1e9)
"""Score of a beam that is not there."""
Array = Any
"""A numpy array; its letters say its shape."""


class Rules(Settings):
    """The model's settings, and those that only these loops follow."""

    suppressed: tuple[int, ...] = ()
    early_stopping: bool | str = False


class Decoder(Protocol):
    """One encoded batch, decoded step by step."""

    def step(self, tokens_R: Array) -> Array:
        """Logits (R, V) after each row's next token."""

    def reorder(self, rows_R: Array) -> None:
        """Row i goes on from what row `rows_R[i]` has been."""


def rules_of(model: Any, runtime: str) -> Rules:
    """The model's generation settings, as far as the loops here follow them.

    Raises:
        InvalidInput: a setting that changes tokens and is not followed.
    """
    own = model.generation_config
    unfollowed = not_followed(model, "no_repeat_ngram_size")
    if own.repetition_penalty not in (None, 1.0):
        unfollowed.append("repetition_penalty")
    if any(len(row) > 1 for row in own.bad_words_ids or []):
        unfollowed.append("bad_words_ids of several tokens")
    if unfollowed:
        raise InvalidInput(f"generation settings must be ones that runtime {runtime} follows, but got {unfollowed[0]}")
    settings = settings_of(model)
    bad = [row[0] for row in own.bad_words_ids or [] if row[0] not in settings["ends"]]
    return Rules(
        **settings,
        suppressed=tuple(sorted({*bad, *(own.suppress_tokens or [])})),
        early_stopping=own.early_stopping or False,
    )


def search(decoder: Decoder, rules: Rules, inputs: int, beams: int, longest: int, shortest: int | None = None) -> Array:
    """New tokens behind the start token, (B, 1 + T), padded behind the end.

    Args:
        decoder: the encoded batch, `inputs` times `beams` rows.
        rules: the model's settings.
        inputs: B.
        beams: K.
        longest: new tokens at most.
        shortest: new tokens at least (None: the model's own); `longest` forces the length exactly.
    """
    least = rules.shortest if shortest is None else shortest
    if beams == 1:
        return _greedy(decoder, rules, inputs, longest, least)
    return _beam_search(decoder, rules, inputs, beams, longest, least)


def _allowed(scores_RV: Array, rules: Rules, at: int, longest: int, least: int) -> Array:
    """Scores of new token number `at` (from 0) with what must not or must come; changes its argument."""
    if at < least:
        scores_RV[:, list(rules.ends)] = NEVER
    if rules.suppressed:
        scores_RV[:, list(rules.suppressed)] = NEVER
    for token, due in ((rules.first, at == 0), (rules.last, at == longest - 1)):
        if token is not None and due:
            scores_RV[:] = NEVER
            scores_RV[:, token] = 0
    return scores_RV


def _greedy(decoder: Decoder, rules: Rules, inputs: int, longest: int, least: int) -> Array:
    written_BT = np.full((inputs, longest + 1), rules.pad, np.int64)
    written_BT[:, 0] = rules.start
    ended_B = np.zeros(inputs, bool)
    for at in range(longest):
        logits_BV = _allowed(decoder.step(written_BT[:, at]), rules, at, longest, least)
        written_BT[:, at + 1] = np.where(ended_B, rules.pad, logits_BV.argmax(-1))
        ended_B |= np.isin(written_BT[:, at + 1], rules.ends)
        if ended_B.all():
            return written_BT[:, : at + 2]
    return written_BT


def _beam_search(decoder: Decoder, rules: Rules, inputs: int, beams: int, longest: int, least: int) -> Array:
    """GenerationMixin._beam_search of transformers 5, in its own order of events."""
    eager_end, power = rules.early_stopping is True, rules.length_penalty
    keep = max(2, 1 + len(rules.ends)) * beams
    fill = rules.pad or rules.ends[0]  # eager's own slip: its beams never fill with token 0
    running_BKT = np.full((inputs, beams, longest + 1), fill, np.int64)
    running_BKT[:, :, 0] = rules.start
    finished_BKT = running_BKT.copy()
    scores_BK = np.full((inputs, beams), WORST)
    scores_BK[:, 0] = 0  # all beams begin alike: only the first may speak
    best_BK, lengths_BK = np.full((inputs, beams), WORST), np.zeros((inputs, beams), int)
    ended_BK, open_B1 = np.zeros((inputs, beams), bool), np.ones((inputs, 1), bool)
    for at in range(longest):
        log_RV = _allowed(_log_softmax(decoder.step(running_BKT[:, :, at].reshape(-1))), rules, at, longest, least)
        total_BC = (log_RV.reshape(inputs, beams, -1) + scores_BK[:, :, None]).reshape(inputs, -1)
        chosen_BC = _largest(total_BC, keep)
        top_BC, from_BC = np.take_along_axis(total_BC, chosen_BC, 1), chosen_BC // log_RV.shape[-1]
        texts_BCT = np.take_along_axis(running_BKT, from_BC[:, :, None], 1)
        texts_BCT[:, :, at + 1] = chosen_BC % log_RV.shape[-1]
        done_BC = np.isin(texts_BCT[:, :, at + 1], rules.ends) | (at == longest - 1)
        # the running beams: the best that go on
        goes_on_BC = top_BC + done_BC * WORST
        next_BK = _largest(goes_on_BC, beams)
        running_BKT = np.take_along_axis(texts_BCT, next_BK[:, :, None], 1)
        scores_BK = np.take_along_axis(goes_on_BC, next_BK, 1)
        rows_BK = np.take_along_axis(from_BC, next_BK, 1)
        # the finished ones: of the best K candidates, those that ended, against those that ended before
        done_BC[:, beams:] = False
        final_BC = top_BC / np.float32((at + 1) ** power)
        final_BC = final_BC + (ended_BK.all(1, keepdims=True) & eager_end) * WORST + ~open_B1 * WORST + ~done_BC * WORST
        merged_BM = np.concatenate([best_BK, final_BC], 1)
        winner_BK = _largest(merged_BM, beams)
        finished_BKT = np.take_along_axis(np.concatenate([finished_BKT, texts_BCT], 1), winner_BK[:, :, None], 1)
        best_BK = np.take_along_axis(merged_BM, winner_BK, 1)
        new_lengths = np.concatenate([lengths_BK, np.full((inputs, keep), at + 1)], 1)
        lengths_BK = np.take_along_axis(new_lengths, winner_BK, 1)
        ended_BK = np.take_along_axis(np.concatenate([ended_BK, done_BC], 1), winner_BK, 1)
        # can what still runs become better than the worst that ended?
        reach = longest if rules.early_stopping == "never" and power > 0 else at + 1
        worst_BK = np.where(ended_BK, best_BK.min(1, keepdims=True), WORST)
        open_B1 &= (scores_BK[:, :1] / np.float32(reach**power) > worst_BK).any(1, keepdims=True)
        if not open_B1.any() or (eager_end and ended_BK.all()):
            break
        decoder.reorder((rows_BK + beams * np.arange(inputs)[:, None]).reshape(-1))
    return finished_BKT[:, 0, : 1 + int(lengths_BK[:, 0].max())]


def _log_softmax(logits_RV: Array) -> Array:
    shifted_RV = logits_RV - logits_RV.max(-1, keepdims=True)
    return shifted_RV - np.log(np.exp(shifted_RV).sum(-1, keepdims=True))


def _largest(values_BC: Array, count: int) -> Array:
    """Indices of the largest, best first."""
    if count < values_BC.shape[1]:
        some = np.argpartition(-values_BC, count - 1, axis=1)[:, :count]
    else:
        some = np.broadcast_to(np.arange(values_BC.shape[1]), values_BC.shape)
    order = np.argsort(-np.take_along_axis(values_BC, some, 1), axis=1, kind="stable")
    return np.take_along_axis(some, order, 1)


def padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Array, Array]:
    """Token ids (B, S) and which of them are real."""
    width = max(len(row) for row in rows)
    ids_BS = np.array([[*row, *[pad] * (width - len(row))] for row in rows], np.int64)
    mask_BS = np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows], np.int64)
    return ids_BS, mask_BS
