"""Which decoder blocks a student keeps.

`uniform` (NASH's, Ko et al. 2023): S = { ((L-1)*l) // (n-1) : l = 0..n-1 }, in integers, because floats drop
the last block for e.g. L=16, n=12. n = 1 keeps block 0, n = L is the identity.

`scored`: the blocks that, alone and untrained, stay closest to the teacher,

    S = argmin KL(teacher || decoder of S)   on a few hundred training examples,

over all subsets where there are few (C(6,3) = 20, C(12,3) = 220 decoder passes), else by removing the
cheapest block again and again. `low` and `high`, the first and the last blocks, are there to be compared
with.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from nash_search import loading
from nash_search.errors import InvalidInput
from nash_search.families import family_of
from nash_search.pruner.placing import Batch

SELECTIONS: tuple[str, ...] = ("uniform", "scored", "low", "high")
EXAMPLES = 256
"""Training examples that candidates are scored on (whole batches)."""
SUBSETS = 256
"""Beyond so many subsets, blocks are removed one at a time."""


def selected_blocks(
    total: int, kept: int, selection: str = "uniform", score: Callable[[Sequence[int]], float] | None = None
) -> tuple[int, ...]:
    """Indices of the `kept` of `total` decoder blocks, increasing.

    Args:
        total: decoder blocks there are.
        kept: decoder blocks to keep.
        selection: one of `SELECTIONS`.
        score: what `scored` minimises, a function of the indices (`DecoderScore`).

    Raises:
        InvalidInput: when `kept` is not between 1 and `total`, or the selection is unknown or lacks a score.
    """
    if not 1 <= kept <= total:
        raise InvalidInput(f"decoder_layers must be between 1 and {total}, but got {kept}")
    if selection not in SELECTIONS:
        raise InvalidInput(f"decoder_selection must be one of {', '.join(SELECTIONS)}, but got {selection}")
    if kept == total:
        return tuple(range(total))
    if selection == "scored":
        if score is None:
            raise InvalidInput("decoder_selection scored must be given data to score on, but got none")
        return _scored(total, kept, score)
    if selection in ("low", "high"):
        return tuple(range(kept) if selection == "low" else range(total - kept, total))
    if kept == 1:
        return (0,)
    return tuple(((total - 1) * i) // (kept - 1) for i in range(kept))


def _scored(total: int, kept: int, score: Callable[[Sequence[int]], float]) -> tuple[int, ...]:
    if math.comb(total, kept) <= SUBSETS:
        return min(itertools.combinations(range(total), kept), key=score)
    left = tuple(range(total))
    while len(left) > kept:
        left = min((left[:i] + left[i + 1 :] for i in range(len(left))), key=score)
    return left


class ElasticDecoder:
    """A model's decoder that runs with whichever of its blocks are in use.

    Args:
        model: changed in place until `restore`.
    """

    def __init__(self, model: Any) -> None:
        self._model, self._family = model, family_of(model)
        family = self._family
        self._blocks = list(family.decoder_blocks(model))
        self._lent: list[Any] = []
        if family.first_block_has_bias:  # whichever block comes first computes the position bias
            first, *others = [family.decoder_attentions(block)[0] for block in self._blocks]
            for attention in others:
                attention.has_relative_attention_bias = True
                attention.relative_attention_bias = first.relative_attention_bias
            self._lent = others

    def use(self, blocks: Sequence[int]) -> None:
        """Run with these blocks, in this order."""
        kept = nn.ModuleList(self._blocks[index] for index in blocks)
        self._family.use_decoder_blocks(self._model, kept)

    def restore(self) -> None:
        """The model as it was: all blocks, the position bias in the first."""
        self.use(range(len(self._blocks)))
        for attention in self._lent:
            attention.has_relative_attention_bias = False
            del attention.relative_attention_bias


class DecoderScore:
    """Mean KL of a teacher to itself with only some decoder blocks; the encoder runs once per batch.

    Args:
        teacher: a supported model; not changed.
        data: step -> batch.
        device: where the teacher lives.
    """

    @torch.no_grad()
    def __init__(self, teacher: Any, data: Callable[[int], Batch], device: torch.device | str = "cpu") -> None:
        from nash_search.pruner.distillation import forward, source_of

        self._model = loading.copied(teacher).eval()
        self._decoder = ElasticDecoder(self._model)
        self._seen: list[tuple[Batch, Any, torch.Tensor]] = []
        examples = step = 0
        while examples < EXAMPLES:
            batch = {name: tensor.to(device) for name, tensor in data(step).items()}
            encoded = self._model.get_encoder()(**source_of(batch))
            self._seen.append((batch, encoded, forward(teacher, batch)[batch["labels"] != -100]))
            examples, step = examples + len(batch["labels"]), step + 1

    @torch.no_grad()
    def __call__(self, blocks: Sequence[int]) -> float:
        """KL(teacher || teacher with these decoder blocks), mean over batches."""
        from nash_search.pruner.distillation import divergence, forward

        self._decoder.use(blocks)
        losses = [
            divergence(forward(self._model, batch, encoder_outputs=encoded)[batch["labels"] != -100], logits_NV)
            for batch, encoded, logits_NV in self._seen
        ]
        return float(torch.stack(losses).mean())
