"""Hard-concrete gates on encoder heads and FFN neurons (Louizos et al. 2018, arXiv 1712.01312).

    u ~ U(0,1)    v = sigmoid((log u - log(1-u) + a) / beta)    z = clip(v*(zeta-gamma) + gamma, 0, 1)
    P(z = 0) = sigmoid(beta*log(-gamma/zeta) - a)               evaluation gate: v = sigmoid(a)

All gates of a model are one vector, heads of every block first and then neurons, so that a step draws
them with one call and blocks may differ in size. A gate multiplies the columns of the output projection
it feeds (`W_out * z`). That gives the same numbers as gating the projection's input, is cheaper when there are
more tokens than columns, and is the very product that the cut folds in. Only gates that differ from example to
example multiply that input. Shapes: _B batch, _G gates, _C columns of output projections.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from nash_search.config import PruningRecipe
from nash_search.families import family_of
from nash_search.modeling_nash import block_parts, encoder_blocks
from nash_search.pruner.sparsity import Units
from nash_search.pruner.surgery import encoder_parameters, head_parameters, neuron_parameters

GAMMA, ZETA, BETA = -0.1, 1.1, 2 / 3
OPEN = 4.0
"""Initial logit: P(z=0) = 0.4 %, and the evaluation gate is exactly 1."""
LIMIT = 4.605
"""Logits stay within ± this, so that no gate is ever out of reach."""
SHUT_AT = BETA * math.log(-GAMMA / ZETA)
"""P(z=0) = sigmoid(SHUT_AT - a)."""


class Gates(nn.Module):
    """One gate per encoder head and per FFN neuron of a model.

    Args:
        model: the model whose encoder is gated; nothing is attached until `attached`.
        heads: False leaves every head alone (only neurons have gates).
    """

    share_G: torch.Tensor
    """Each gate's part of the encoder's attention and FFN weights."""
    columns_C: torch.Tensor
    """The gate of each column of the gated output projections."""

    def __init__(self, model: Any, *, heads: bool = True) -> None:
        super().__init__()
        blocks = encoder_blocks(model)
        parts = [block_parts(block) for block in blocks]
        self.heads = [part.heads for part in parts] if heads else []
        self.neurons = [part.neurons for part in parts]
        share: list[torch.Tensor] = []
        columns: list[torch.Tensor] = []
        first = 0
        for block, count in zip(blocks, self.heads, strict=False):
            share.append(torch.full((count,), float(head_parameters(block))))
            columns.append(torch.arange(first, first + count).repeat_interleave(block_parts(block).head_width))
            first += count
        for block, count in zip(blocks, self.neurons, strict=True):
            share.append(torch.full((count,), float(neuron_parameters(block))))
            columns.append(torch.arange(first, first + count))
            first += count
        device = next(model.parameters()).device
        self.register_buffer("share_G", (torch.cat(share) / encoder_parameters(model)).to(device))
        self.register_buffer("columns_C", torch.cat(columns).to(device))
        self.logits_G = nn.Parameter(torch.full((first,), OPEN, device=device))
        self.widths = [len(c) for c in columns]
        self._rows: tuple[torch.Tensor, ...] = ()
        self.use_evaluation()

    def sample(self) -> torch.Tensor:
        """One random draw of every gate, with gradient (Louizos et al., eq. 10 and 11)."""
        noise_G = torch.logit(torch.rand_like(self.logits_G), eps=1e-6)
        v_G = torch.sigmoid((noise_G + self.logits_G) / BETA)
        return torch.clamp(v_G * (ZETA - GAMMA) + GAMMA, 0.0, 1.0)

    def evaluation(self) -> torch.Tensor:
        """The gates without noise (Louizos et al., eq. 13)."""
        return torch.clamp(torch.sigmoid(self.logits_G) * (ZETA - GAMMA) + GAMMA, 0.0, 1.0)

    def shut_probability(self) -> torch.Tensor:
        """P(z = 0) of every gate (one minus a term of Louizos et al., eq. 12)."""
        return torch.sigmoid(SHUT_AT - self.logits_G)

    def expected_sparsity(self) -> torch.Tensor:
        """Expected fraction of the encoder's weights removed."""
        return (self.share_G * self.shut_probability()).sum()

    def undecided_share(self) -> float:
        """Share of gates with P(z=0) between 0.1 and 0.9."""
        shut_G = self.shut_probability()
        return float(((shut_G > 0.1) & (shut_G < 0.9)).float().mean())

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep the logits where the gates can still move; after every optimizer step."""
        self.logits_G.clamp_(-LIMIT, LIMIT)

    def draw(self) -> None:
        """Use a fresh random draw in the attached model's next forward."""
        self.use(self.sample())

    @torch.no_grad()
    def use_evaluation(self) -> None:
        """Use the evaluation gates in the attached model."""
        self.use(self.evaluation())

    def use(self, gates_G: torch.Tensor) -> None:
        """Use these gates in the attached model; with shape (B,G), each example of the batch its own."""
        self._rows = gates_G[..., self.columns_C].split(self.widths, dim=-1)

    def per_block(self, values_G: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """A value per gate, split into (heads, neurons), each one tensor per block."""
        split = list(values_G.split(self.heads + self.neurons))
        return split[: len(self.heads)], split[len(self.heads) :]

    @contextmanager
    def attached(self, model: Any) -> Iterator[None]:
        """While open, the model's output projections are multiplied by the gates in use."""
        parts = [block_parts(block) for block in encoder_blocks(model)]
        linears = [part.attention.get_submodule(part.attention_out) for part in parts][: len(self.heads)]
        linears += [getattr(part.ffn, part.ffn_out) for part in parts]
        for index, linear in enumerate(linears):
            linear.forward = partial(self._gated_linear, index, linear)
        try:
            yield
        finally:
            for linear in linears:
                del linear.forward

    def _gated_linear(self, index: int, linear: nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
        row = self._rows[index]
        if row.dim() == 2:
            return nn.functional.linear(hidden * row.unsqueeze(1), linear.weight, linear.bias)
        return nn.functional.linear(hidden, linear.weight * row, linear.bias)


def gates_of(model: Any, recipe: PruningRecipe) -> Gates:
    """Gates on all that may go: heads stay where they must, and where uniform widths are to keep the model stock."""
    family = family_of(model)
    stock = recipe.widths == "uniform" and family.layout.encoder_ffn_key is not None
    return Gates(model, heads=not stock and not family.heads_stay)


def units_of(model: Any, gates: Gates, scores_G: torch.Tensor) -> Units:
    """What `sparsity.choose` chooses from: a model's heads and neurons with one score per gate."""
    blocks = encoder_blocks(model)
    heads, neurons = gates.per_block(scores_G.detach().cpu())
    return Units(
        head_scores=heads,
        neuron_scores=neurons,
        head_parameters=[head_parameters(block) for block in blocks],
        neuron_parameters=[neuron_parameters(block) for block in blocks],
        total_parameters=encoder_parameters(model),
    )
