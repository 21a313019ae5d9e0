"""Token ids of many texts in one flat array: four bytes a token, where a list of lists takes about forty.

    flat    [3 8 1 | 5 1 | 9 9 2 1]     int32
    starts  [0 3 5 9]                   row i is flat[starts[i]:starts[i + 1]]

It reads as the list of lists it replaces, and pads a batch without a Python loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import torch

Int32 = np.ndarray[Any, np.dtype[np.int32]]
Int64 = np.ndarray[Any, np.dtype[np.int64]]
Bool = np.ndarray[Any, np.dtype[np.bool_]]


class TokenRows(Sequence[list[int]]):
    """Rows of token ids; immutable."""

    def __init__(self, flat: Int32, starts: Int64) -> None:
        self._flat, self._starts = flat, starts

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]]) -> TokenRows:
        """The rows, read once and one by one."""
        if isinstance(rows, TokenRows):
            return rows
        parts, lengths = [np.empty(0, np.int32)], [0]
        for row in rows:
            parts.append(np.asarray(row, dtype=np.int32))
            lengths.append(len(row))
        return cls(np.concatenate(parts), np.cumsum(lengths, dtype=np.int64))

    @classmethod
    def joined(cls, parts: Sequence[TokenRows]) -> TokenRows:
        """The rows of each part, one part after the other."""
        lengths = [part.lengths for part in parts]
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate([np.empty(0, np.int64), *lengths]))])
        return cls(np.concatenate([np.empty(0, np.int32), *(part.ids for part in parts)]), starts)

    @property
    def lengths(self) -> Int64:
        """Tokens of each row."""
        return np.diff(self._starts)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self._flat.nbytes + self._starts.nbytes

    @property
    def ids(self) -> Int32:
        """All tokens of these rows: a slice shares its array with the rows it was taken from."""
        return self._flat[self._starts[0] : self._starts[-1]]

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> TokenRows: ...
    def __getitem__(self, index: int | slice) -> list[int] | TokenRows:
        if isinstance(index, slice):
            first, last, step = index.indices(len(self))
            if step != 1:
                return self.picked(range(first, last, step))
            return TokenRows(self._flat, self._starts[first : max(first, last) + 1])
        row = range(len(self))[index]
        found: list[int] = self._flat[self._starts[row] : self._starts[row + 1]].tolist()
        return found

    def __iter__(self) -> Iterator[list[int]]:
        return (self[row] for row in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TokenRows):
            return np.array_equal(self.lengths, other.lengths) and np.array_equal(self.ids, other.ids)
        return isinstance(other, list) and list(self) == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"TokenRows({len(self)} rows, {len(self.ids)} tokens)"

    def picked(self, order: Sequence[int]) -> TokenRows:
        """These rows in another order, or some of them."""
        return TokenRows.of(self._flat[self._starts[row] : self._starts[row + 1]] for row in order)  # type: ignore[misc]

    def padded(self, rows: Int64, pad: int) -> tuple[Int64, Bool]:
        """Some rows as one array, padded to the longest of them, and which entries are real.

        Args:
            rows: which, N of them.
            pad: what stands where a row has ended.

        Returns:
            Two arrays of shape (N, longest row).
        """
        starts, lengths = self._starts[rows], self._starts[rows + 1] - self._starts[rows]
        column = np.arange(max(1, int(lengths.max())))
        real = column < lengths[:, None]
        padded = np.full(real.shape, pad, dtype=np.int64)
        padded[real] = self._flat[(starts[:, None] + column)[real]]
        return padded, real

    def followed_by(self, more: TokenRows) -> TokenRows:
        """These rows, then others."""
        return TokenRows.joined([self, more])

    def batch(self, pad: int) -> dict[str, torch.Tensor]:
        """All rows as a model's forward takes them: input_ids and attention_mask, (rows, longest row)."""
        ids, real = self.padded(np.arange(len(self)), pad)
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(real.astype(np.int64))}
