"""What is proposed next: planned architectures first, then the best that Optuna's sampler finds among the free ones.

The space is a small grid of which the probe's table leaves some points and earlier trials take some away. So an
acquisition function is not optimised over the space and hoped to hit a free point: it is evaluated on every free
point, and the best one is proposed.

    gp      log expected hypervolume improvement of Optuna's Gaussian processes; tpe after `GP_MOST` trials
    tpe     log l(x) - log g(x) of Optuna's Parzen estimators

A sampler is made anew for every ask and seeded from (seed, trials decided so far), so a resumed study proposes what
the undisturbed one would have proposed.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator

from nash_search.config import Architecture, SearchSpace, digest
from nash_search.storage.space import distributions, params_of

GP_MOST = 128
"""Most finished trials that a Gaussian process is fitted to; an ask takes 1.4 s of CPU then and grows with the cube."""


def seed_at(seed: int, decided: int) -> int:
    """The sampler's seed for the ask after `decided` decided trials."""
    return int(digest(["ask", seed, decided])[:8], 16)


class FreeTPE(TPESampler):
    """TPE whose candidates are all free points (Optuna draws 24 from l(x), most of them taken on a small grid)."""

    def __init__(self, free: Sequence[Architecture], *, seed: int, alone: bool) -> None:
        """Args as for `Proposals`; the constant liar, which keeps clear of running trials, costs writes."""
        super().__init__(multivariate=True, n_startup_trials=0, seed=seed, constant_liar=not alone)

        # private, but Optuna's own way: "Users can overwrite _ParzenEstimator to customize the TPE behavior"
        # (TPESampler.__init__); a test compares the proposals with Optuna's own estimators
        class Free(_ParzenEstimator):
            def sample(self, rng: np.random.RandomState, size: int) -> dict[str, npt.NDArray[np.float64]]:
                rows = [params_of(a) for a in free]
                space = self._search_space.items()
                return {name: np.array([d.to_internal_repr(row[name]) for row in rows]) for name, d in space}

        self._parzen_estimator_cls = Free


class FreeGP(GPSampler):
    """Gaussian processes whose acquisition is evaluated on all free points (Optuna optimises it over the space)."""

    def __init__(self, free: Sequence[dict[str, Any]], *, seed: int) -> None:
        """`free` are the points that may be proposed, as Optuna's parameters."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            super().__init__(seed=seed, n_startup_trials=1, deterministic_objective=True)
        self._free = list(free)

    # private, but Optuna's own way: "Advanced users can override this method to change the optimization algorithm",
    # though a later version may drop it; a test compares the proposals with Optuna's own acquisition function
    def _optimize_acqf(self, acqf: Any, best_params: Any) -> Any:
        points_FD = acqf.search_space.get_normalized_params([None] * len(self._free), self._free)
        return points_FD[int(np.argmax(acqf.eval_acqf_no_grad(points_FD)))]


class Proposals(BaseSampler):
    """One ask: a planned architecture, or the sampler's best of those that are free."""

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
        """One ask's sampler.

        Args:
            name: as in `SearchConfig.sampler`.
            seed: of this ask.
            space: depths filled in.
            free: feasible and not taken; not empty, unless something is planned.
            planned: what must be proposed (None: the sampler decides).
            alone: no other trial is running, so none must be kept clear of.
        """
        self._name, self._seed, self._alone = name, seed, alone
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
        if self._name == "grid" or len(self._free) == 1:
            return params_of(self._free[0])
        moving = {name: d for name, d in search_space.items() if not d.single()}
        for sampler in self._samplers(study):
            drawn = sampler.sample_relative(study, trial, moving)
            if drawn:
                return {**params_of(self._free[0]), **drawn}  # what does not move is the same in every point
        return params_of(self._free[int(np.random.default_rng(self._seed).integers(len(self._free)))])

    def _samplers(self, study: optuna.Study) -> list[BaseSampler]:
        """Who is asked, in turn: a Gaussian process needs a finished trial, Parzen estimators do without."""
        tpe = FreeTPE(self._free, seed=self._seed, alone=self._alone)
        if self._name == "gp":
            finished = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
            return (
                [tpe] if len(finished) > GP_MOST else [FreeGP([params_of(a) for a in self._free], seed=self._seed), tpe]
            )
        return [tpe] if self._name == "tpe" else []

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Only reached for proposals that somebody enqueued in part."""
        return self._fallback.sample_independent(study, trial, param_name, param_distribution)
