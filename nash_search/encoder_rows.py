"""What goes into an encoder, an example a row: token ids (`token_rows`) or features, such as a log-mel spectrogram.

Callers treat both kinds alike: they count rows, pick some of them, and make a batch.

    rows_of(given)     rows of what a caller has: rows, lists of token ids, or what `document` wrote
    rows.batch(pad)    what a model's forward takes: input_ids and attention_mask, or input_features
    document(rows)     as JSON for a job of another process: token ids as they are, features by their file

Another kind of input is a class here and its reader in `tasks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from nash_search.token_rows import Int64, TokenRows

Batch = dict[str, torch.Tensor]
Float32 = np.ndarray[Any, np.dtype[np.float32]]


class EncoderRows(Protocol):
    """Rows of one kind; immutable."""

    @property
    def lengths(self) -> Int64:
        """Positions of the encoder that each row takes."""

    def __len__(self) -> int: ...

    def picked(self, order: Sequence[int]) -> Any:
        """These rows in another order, or some of them."""

    def followed_by(self, more: Any) -> Any:
        """These rows, then others of the same kind."""

    def batch(self, pad: int) -> Batch:
        """All rows as tensors on the CPU, by the names that forward takes; `pad` fills up shorter ones."""


class FeatureRows:
    """Rows of features of one size, (bins, frames) each, in a file that is mapped, never read whole, or in memory."""

    def __init__(self, source: Path | Float32, order: Sequence[int] | Int64, positions: int) -> None:
        """Rows `order` of a NumPy file or array (rows, bins, frames); the encoder makes `positions` of each."""
        self.source, self.positions = source, positions
        self._order = np.asarray(order, dtype=np.int64)
        self._mapped: Any = np.load(source, mmap_mode="r") if isinstance(source, Path) else source

    @property
    def lengths(self) -> Int64:
        """The encoder's positions: as many for every row."""
        return np.full(len(self), self.positions, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._order)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FeatureRows) and self.document() == other.document()

    __hash__ = None  # type: ignore[assignment]

    def picked(self, order: Sequence[int]) -> FeatureRows:
        """These rows in another order, or some of them."""
        return FeatureRows(self.source, self._order[np.asarray(order, dtype=np.int64)], self.positions)

    def followed_by(self, more: FeatureRows) -> FeatureRows:
        """These rows, then others of the same file."""
        if not isinstance(self.source, Path) or more.source != self.source:
            raise ValueError(f"rows must be of one file to be joined, but got {self.source} and {more.source}")
        return FeatureRows(self.source, np.concatenate([self._order, more._order]), self.positions)

    def batch(self, pad: int) -> Batch:
        """All rows, (rows, bins, frames), in float32; none is shorter than another."""
        return {"input_features": torch.from_numpy(self._mapped[self._order].astype(np.float32))}

    def document(self) -> dict[str, Any]:
        """The rows as JSON that `rows_of` reads: feature file, row numbers, encoder positions."""
        if not isinstance(self.source, Path):
            raise ValueError("rows must lie in a file for another process to have them, but got an array")
        return {"features": str(self.source), "rows": self._order.tolist(), "positions": self.positions}


Given = EncoderRows | Sequence[Sequence[int]] | Mapping[str, Any]
"""Rows in any of the forms that they travel in."""


def rows_of(given: Given) -> Any:
    """Rows (`EncoderRows`) of what a caller has."""
    if isinstance(given, TokenRows | FeatureRows):
        return given
    if isinstance(given, Mapping):
        return FeatureRows(Path(given["features"]), given["rows"], given["positions"])
    return TokenRows.of(given)  # type: ignore[arg-type]


def document(given: Given) -> Any:
    """The rows as JSON that `rows_of` reads again, in another process of this machine."""
    rows = rows_of(given)
    return rows.document() if isinstance(rows, FeatureRows) else list(rows)


def on_device(batch: Mapping[str, torch.Tensor], model: Any) -> Batch:
    """A batch where a model lies, features in its precision."""
    first = next(model.parameters())
    return {
        name: tensor.to(first.device, first.dtype) if tensor.is_floating_point() else tensor.to(first.device)
        for name, tensor in batch.items()
    }
