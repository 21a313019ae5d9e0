"""A model that says what it is told to."""

from __future__ import annotations


class Parrot:
    """A "model" that answers each row with the tokens it is told to."""

    generation_config = None

    def __init__(self, answer):
        import torch

        self._answer = answer
        self._weight = torch.nn.Parameter(torch.zeros(1))
        self.training = False

    def parameters(self):
        yield self._weight

    def eval(self):
        return self

    def train(self, mode=True):
        return self

    def generate(self, input_ids, attention_mask, **settings):
        import torch

        rows = [self._answer(ids[mask.bool()].tolist()) for ids, mask in zip(input_ids, attention_mask, strict=True)]
        longest = max(map(len, rows))
        return torch.tensor([row + [0] * (longest - len(row)) for row in rows])
