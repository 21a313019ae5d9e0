"""The search space and its architectures in Optuna's words, as the study's rows keep them."""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from nash_search.config import Architecture, SearchSpace


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """The search space in Optuna's words (percent as ints: float steps would poison exact keys)."""
    low, high, step = space.encoder_sparsity_pct
    layers = space.decoder_layers
    contiguous = layers == tuple(range(layers[0], layers[-1] + 1))
    return {
        "encoder_sparsity_pct": IntDistribution(low, high - (high - low) % step, step=step),
        "decoder_layers": IntDistribution(layers[0], layers[-1]) if contiguous else CategoricalDistribution(layers),
        "decoder_selection": CategoricalDistribution(space.decoder_selection),
    }


def params_of(architecture: Architecture) -> dict[str, Any]:
    """An architecture as Optuna parameters."""
    return architecture.model_dump(mode="json")


def architecture_of(params: dict[str, Any]) -> Architecture | None:
    """Optuna parameters as an architecture; None when a killed ask left only some of them."""
    return Architecture(**params) if set(params) == set(Architecture.model_fields) else None
