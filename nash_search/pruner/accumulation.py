"""One batch's gradient in as few pieces as the device's memory allows.

    grad L(batch) = sum_i share_i * grad L(piece_i)        share_i: the piece's part of the target tokens

for every loss that is a mean over target tokens plus terms that do not see the batch. A piece that does
not fit is halved and so are all that follow; the optimizer still sees the whole batch. Where a single row does not fit,
the model is made to keep less of it (`relieve`): blocks are computed again in the backward pass.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch

from nash_search.errors import NashSearchWarning
from nash_search.pruner.placing import Batch


@dataclass(kw_only=True)
class Pieces:
    """How many pieces a batch is taken in; grows when memory runs out, never shrinks."""

    count: int = 1
    relieve: Callable[[], bool] = lambda: False
    """Makes the loss take less memory from here on (gradient checkpointing); returns False where it cannot."""

    def backward(self, loss: Callable[[Batch], torch.Tensor], batch: Batch, begin: Callable[[], None]) -> torch.Tensor:
        """Add the batch's gradient to the parameters' and return its loss (detached).

        Args:
            loss: of a piece, a batch of fewer rows.
            batch: tensors whose first dimension is the row.
            begin: called before each attempt: clears gradients, seeds.

        Raises:
            torch.OutOfMemoryError: when a single row does not fit, whatever is kept of it.
        """
        while True:
            begin()
            try:
                return self._attempt(loss, batch)
            except torch.OutOfMemoryError:
                rows = min(len(tensor) for tensor in batch.values())
                relieved = self.count >= rows
                if relieved and not self.relieve():
                    raise
            # outside the handler: its traceback would keep the tensors alive
            torch.cuda.empty_cache()
            if relieved:
                words = "a row does not fit the device's memory: blocks are computed again in the backward pass"
                warnings.warn(words, NashSearchWarning, stacklevel=2)
                continue
            self.count = min(2 * self.count, rows)
            size = -(-rows // self.count)
            words = f"a batch of {rows} rows does not fit the device's memory: taken {size} at a time from here on"
            warnings.warn(words, NashSearchWarning, stacklevel=2)

    def _attempt(self, loss: Callable[[Batch], torch.Tensor], batch: Batch) -> torch.Tensor:
        if self.count == 1:
            value = loss(batch)
            value.backward()
            return value.detach()
        names = list(batch)
        pieces = [
            dict(zip(names, tensors, strict=True))
            for tensors in zip(*(tensor.tensor_split(self.count) for tensor in batch.values()), strict=True)
        ]
        tokens = [int((piece["labels"] != -100).sum()) for piece in pieces]
        total = torch.zeros(())
        for piece, found in zip(pieces, tokens, strict=True):
            value = loss(piece) * (found / sum(tokens))
            value.backward()
            total = total.to(value.device) + value.detach()
        return total
