"""The requests that a model serves, by their lengths: what a percentile of its latency is one of.

    file or data, any number of requests -> Traffic: at most `MOST` of them, evenly along their lengths
                                              -> each round's own: one by chance out of each of n equal strata

A request's output length is forced, so a model that stops early does not look fast. Rounds draw different requests,
the dense model and the candidates of a round the same ones.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from statistics import median
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator, Field, PlainSerializer

from nash_search.recipes import Frozen

DATA, FIXED = "data", "fixed"
"""Where requests come from, unless it is a file: the user's data; nowhere, since one call of fixed lengths is timed."""
MOST = 1000
"""Requests that are kept; beyond them a percentile would move by less than a thousandth of the traffic."""


class Request(NamedTuple):
    """Tokens in and out of one `generate` call."""

    input_tokens: int
    output_tokens: int


def _read(found: object) -> object:
    return [Request(*map(int, pair.split(">"))) for pair in found.split()] if isinstance(found, str) else found


def _written(requests: tuple[Request, ...]) -> str:
    return " ".join(f"{r.input_tokens}>{r.output_tokens}" for r in requests)


Requests = Annotated[tuple[Request, ...], BeforeValidator(_read), PlainSerializer(_written)]
"""In JSON one line, `12>15 7>9`: a thousand requests would be four thousand lines."""


class Traffic(Frozen):
    """A distribution of requests."""

    source: str
    """The file or the data that they come from."""
    of: int = Field(ge=1)
    """How many requests it holds."""
    requests: Requests = Field(min_length=1)
    """All of them, or `MOST` evenly along their lengths; shortest output first."""

    @classmethod
    def counted(cls, counts: Mapping[Request, int], source: str) -> Traffic:
        """From how often each pair of lengths occurs (a million requests have few pairs)."""
        pairs = sorted(counts, key=lambda r: (r.output_tokens, r.input_tokens))
        ends = list(accumulate(counts[pair] for pair in pairs))
        of = ends[-1]
        kept = min(of, MOST)
        requests = tuple(pairs[bisect_right(ends, int((i + 0.5) * of / kept))] for i in range(kept))
        return cls(source=source, of=of, requests=requests)

    @property
    def median(self) -> Request:
        """Median tokens in and out, each by itself."""
        read, written = zip(*self.requests, strict=True)
        return Request(int(median(read)), int(median(written)))

    def batches(self, count: int, turn: int, size: int) -> tuple[tuple[Request, ...], ...]:
        """One round's batches of `size` requests that meet by chance, as they would at a server.

        Each place in a batch has a stratified sample of its own, so that one round is much like the next.

        Args:
            count: batches of one round.
            turn: which round; the same round always draws the same.
            size: requests of each.
        """
        return tuple(zip(*(self.drawn(count, turn, place) for place in range(size)), strict=True))

    def drawn(self, count: int, turn: int, place: int = 0) -> tuple[Request, ...]:
        """One round's requests, in an order by chance: one out of each of `count` equal strata, or all there are.

        Args:
            count: requests of one round.
            turn: which round; the same round always draws the same.
            place: in a batch; each place draws its own.
        """
        chance, known = random.Random(f"{turn}/{count}/{place}" if place else f"{turn}/{count}"), len(self.requests)
        strata = min(count, known)
        picked = [int((i + chance.random()) * known / strata) for i in range(strata)]
        chance.shuffle(picked)
        return tuple(self.requests[i] for i in picked)
