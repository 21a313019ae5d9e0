"""One architecture, and the grid of those that a search may propose."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from nash_search.errors import InvalidInput
from nash_search.recipes import Frozen

DecoderSelection = Literal["uniform", "scored", "low", "high"]
"""Names of `nash_search.pruner.layer_selection` (a test holds them equal)."""


class Architecture(Frozen):
    """What is kept of the teacher: the point a trial is a function of."""

    encoder_sparsity_pct: int = Field(ge=0, le=95)
    """Percent of the encoder's attention and FFN weights removed (an int, so keys are exact)."""
    decoder_layers: int = Field(ge=1)
    """Decoder blocks kept."""
    decoder_selection: str = "uniform"
    """Which blocks are kept (`nash_search.pruner.layer_selection`)."""

    @property
    def slug(self) -> str:
        """Short name, e.g. `enc30-dec3`; the selection is named unless it is uniform."""
        tail = "" if self.decoder_selection == "uniform" else f"-{self.decoder_selection}"
        return f"enc{self.encoder_sparsity_pct}-dec{self.decoder_layers}{tail}"


class SearchSpace(Frozen):
    """The architectures that may be proposed."""

    encoder_sparsity_pct: tuple[int, int, int] = (0, 80, 10)
    """(low, high, step) in percent; 0 must be on the grid so that the baseline is in the space."""
    decoder_layers: tuple[int, ...] = ()
    """Decoder blocks to try; empty means 1 to the model's own depth."""
    decoder_selection: tuple[DecoderSelection, ...] = ("uniform",)

    @field_validator("encoder_sparsity_pct")
    @classmethod
    def _check_sparsity(cls, value: tuple[int, int, int]) -> tuple[int, int, int]:
        low, high, step = value
        if low > 0 and high <= 95:
            raise ValueError(f"encoder_sparsity_pct must start at 0 (the baseline is in every space), but got {low}")
        if not 0 <= low <= high <= 95:
            raise ValueError(f"encoder_sparsity_pct must be 0 <= low <= high <= 95, but got {low} to {high}")
        if step < 1:
            raise ValueError(f"encoder_sparsity_pct step must be at least 1, but got {step}")
        return value

    @field_validator("decoder_layers")
    @classmethod
    def _check_layers(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        for layers in value:
            if layers < 1:
                raise ValueError(f"decoder_layers must be at least 1, but got {layers}")
        return tuple(sorted(set(value)))

    @field_validator("decoder_selection")
    @classmethod
    def _check_selection(cls, value: tuple[DecoderSelection, ...]) -> tuple[DecoderSelection, ...]:
        if not value:
            raise ValueError("decoder_selection must name at least one strategy, but got none")
        return value

    @property
    def sparsities_pct(self) -> tuple[int, ...]:
        """Every encoder sparsity on the grid, percent, increasing."""
        low, high, step = self.encoder_sparsity_pct
        return tuple(range(low, high + 1, step))

    def filled(self, decoder_layers: int) -> SearchSpace:
        """The space with its depths filled in from the model's number of decoder blocks.

        Raises:
            InvalidInput: when a depth is asked for that the model does not have.
        """
        if not self.decoder_layers:
            return self.model_copy(update={"decoder_layers": tuple(range(1, decoder_layers + 1))})
        most = max(self.decoder_layers)
        if most > decoder_layers:
            raise InvalidInput(f"decoder_layers must be between 1 and {decoder_layers} (the model's), but got {most}")
        return self

    def architectures(self) -> tuple[Architecture, ...]:
        """All points of the space (depth must have been filled in from the model)."""
        return tuple(
            Architecture(encoder_sparsity_pct=s, decoder_layers=n, decoder_selection=d)
            for n in self.decoder_layers
            for s in self.sparsities_pct
            for d in self.decoder_selection
        )
