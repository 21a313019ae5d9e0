"""What is proposed next: planned architectures first, then Optuna's sampler inside the staircase.

A real Optuna sampler that wraps another one. It is made anew for every ask and seeded from (seed, trials
decided so far), so a resumed study proposes what the undisturbed one would have proposed. A suggestion that
is infeasible or already taken is drawn again; when the inner sampler insists, one of the remaining
architectures is drawn at random. This module refuses to know files, records and processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from nash_search.config import Architecture, SearchSpace, digest

DRAWS = 3
"""How often the inner sampler may suggest something taken before chance decides."""


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


def seed_at(seed: int, decided: int) -> int:
    """The sampler's seed for the ask after `decided` decided trials."""
    return int(digest(["ask", seed, decided])[:8], 16)


class OneFit(TPESampler):
    """TPE that fits once per ask: within an ask nothing is learned, so `again` draws from the same two densities."""

    _densities: tuple[Any, Any]

    def _compute_acquisition_func(self, samples: dict[str, Any], below: Any, above: Any) -> Any:
        self._densities = below, above
        return super()._compute_acquisition_func(samples, below, above)

    def again(self, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """What `sample_relative` would say next, without reading the study and fitting anew."""
        below, above = self._densities
        samples = below.sample(self._rng.rng, self._n_ei_candidates)
        best = self._compare(samples, self._compute_acquisition_func(samples, below, above))
        return {name: d.to_external_repr(best[name]) for name, d in search_space.items()}


def inner_sampler(name: str, seed: int, *, alone: bool = False) -> BaseSampler | None:
    """The Optuna sampler of this name (None: chance or the grid decide).

    Args:
        name: as in `SearchConfig.sampler`.
        seed: of this ask.
        alone: no other trial is running, so none must be kept clear of (the constant liar costs writes).
    """
    if name == "tpe":
        return OneFit(multivariate=True, n_startup_trials=5, seed=seed, constant_liar=not alone)
    if name == "nsga2":
        return NSGAIISampler(population_size=10, seed=seed)
    if name == "gp":
        return GPSampler(seed=seed, n_startup_trials=5, deterministic_objective=True)
    return None


class Proposals(BaseSampler):
    """One ask: a planned architecture, or a suggestion from those that are still free."""

    def __init__(
        self,
        name: str,
        seed: int,
        space: SearchSpace,
        free: Sequence[Architecture],
        planned: Architecture | None,
        *,
        alone: bool = False,
    ) -> None:
        self._inner = inner_sampler(name, seed, alone=alone)
        self._grid = name == "grid"
        self._rng = np.random.default_rng(seed)
        self._space = distributions(space)
        self._free = list(free)
        self._planned = planned
        self._fallback = RandomSampler(seed=seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Always the whole space: proposals are drawn jointly."""
        return self._space

    def sample_relative(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The proposal, complete."""
        if self._planned is not None:
            return params_of(self._planned)
        if self._grid:
            return params_of(self._free[0])
        free = set(self._free)
        moving = {name: d for name, d in search_space.items() if not d.single()}
        fixed = {name: _only(d) for name, d in search_space.items() if d.single()}
        for draw in range(DRAWS if self._inner and moving else 0):
            if draw and isinstance(self._inner, OneFit):
                drawn = self._inner.again(moving)
            else:
                drawn = cast(BaseSampler, self._inner).sample_relative(study, trial, moving)
            if not drawn:  # not enough observations yet
                break
            found = architecture_of({**fixed, **drawn})
            if found is not None and found in free:
                return params_of(found)
        return params_of(self._free[int(self._rng.integers(len(self._free)))])

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Only reached for proposals that somebody enqueued in part."""
        return self._fallback.sample_independent(study, trial, param_name, param_distribution)


def _only(distribution: BaseDistribution) -> Any:
    """The one value of a single-valued distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, IntDistribution)
    return distribution.low
