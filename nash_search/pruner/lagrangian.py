"""What holds the expected sparsity s to a target t_k = s* * min(1, k/K) while gates train.

`Ascent` is NASH's (Ko et al. 2023, after Wang et al. 2020, arXiv 1910.04732):

    L_s = l1*(s - t) + l2*(s - t)^2,  multipliers by gradient ascent, l2 >= 0.

It needs thousands of steps and rates that fit the scale of the task's loss: in 150 steps it ends anywhere
between 6 % and 88 % where 50 % was asked.

`Solved` finds the one multiplier l >= 0 that meets s >= t_{k+1} exactly, after every step:

    a <- a - clamp(eta*m/sqrt(v) + l * share*p*(1-p)/sqrt(v), +- MOVE*eta)        p = P(z=0)

with m, v the moments of the task's gradient, as in Adam: the gradient of task + l*s in Adam's metric. Neither the
scale of the task's loss nor the number of steps has to be known for it.
"""

from __future__ import annotations

import torch
from torch import nn

from nash_search.pruner.gates import SHUT_AT, Gates

MEAN_DECAY, SQUARE_DECAY = 0.9, 0.99
MOVE = 5.0
"""A logit moves at most this many gate learning rates in one step."""
GRID = 64


def ramped_target(sparsity: float, step: int, ramp_steps: float) -> float:
    """The target t_k at optimizer step k, a fraction."""
    return sparsity * min(1.0, step / max(1.0, ramp_steps))


class Ascent(nn.Module):
    """The Lagrange multipliers l1 and l2, trained by ascent from 0."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(2, device=device))

    def penalty(self, expected: torch.Tensor, target: float) -> torch.Tensor:
        """L_s for an expected sparsity and a target, both fractions."""
        gap = expected - target
        return self.values[0] * gap + self.values[1] * gap * gap

    @torch.no_grad()
    def clamp(self) -> None:
        """l2 >= 0; after every optimizer step."""
        self.values[1].clamp_(min=0.0)


class Solved:
    """Moves a model's gates along the task's gradient under the exact multiplier."""

    def __init__(self, gates: Gates, learning_rate: float) -> None:
        self.gates, self.learning_rate = gates, learning_rate
        self.mean_G = torch.zeros_like(gates.share_G)
        self.square_G = torch.zeros_like(gates.share_G)

    def state(self) -> dict[str, torch.Tensor]:
        """The tensors that a resumed stage needs; restored in place."""
        return {"logits": self.gates.logits_G.data, "mean": self.mean_G, "square": self.square_G}

    @torch.no_grad()
    def step(self, step: int, target: float) -> None:
        """One update from the gradient in `logits_G.grad`, which is then dropped.

        Args:
            step: 0 for the first (bias correction).
            target: sparsity to reach with this step, a fraction.
        """
        logits_G, share_G = self.gates.logits_G, self.gates.share_G
        gradient_G = logits_G.grad
        assert gradient_G is not None
        self.mean_G.lerp_(gradient_G, 1 - MEAN_DECAY)
        self.square_G.lerp_(gradient_G.square(), 1 - SQUARE_DECAY)
        scale_G = (self.square_G / (1 - SQUARE_DECAY ** (step + 1))).sqrt()
        scale_G = scale_G + 1e-3 * scale_G.mean() + 1e-12
        task_G = self.learning_rate * self.mean_G / (1 - MEAN_DECAY ** (step + 1)) / scale_G
        shut_G = torch.sigmoid(SHUT_AT - logits_G)
        shrink_G = share_G * shut_G * (1 - shut_G) / scale_G
        limit = MOVE * self.learning_rate

        def moved(multiplier: torch.Tensor) -> torch.Tensor:
            return logits_G - (task_G + multiplier * shrink_G).clamp(-limit, limit)

        def first_reaching(multipliers_M: torch.Tensor) -> torch.Tensor:
            """Index of the least multiplier that meets the target (the last one if none does), (1,)."""
            shut_MG = torch.sigmoid(SHUT_AT - moved(multipliers_M[:, None]))
            reached_M = (shut_MG * share_G).sum(1) >= target
            reached_M[-1] = True
            return reached_M.int().argmax(0, keepdim=True)  # a 0-dim index would be read by the host

        # s grows with l: bracket it on a logarithmic grid, then on a linear one; nothing leaves the device
        most = limit / shrink_G.max().clamp_min(1e-30)
        grid_M = torch.cat([most.new_zeros(1), most * torch.logspace(-4, 9, GRID - 1, device=most.device)])
        high = first_reaching(grid_M)
        low_high = grid_M[torch.cat([(high - 1).clamp_min(0), high])]
        fine_M = torch.lerp(low_high[0], low_high[1], torch.linspace(0, 1, GRID, device=most.device))
        multiplier = fine_M[first_reaching(fine_M)]
        logits_G.copy_(moved(multiplier))
        self.gates.clamp()
        logits_G.grad = None
