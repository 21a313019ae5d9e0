"""A proposal is the best free feasible point by Optuna's own acquisition: chance replaces none."""

import math

import numpy as np
import optuna
import pytest
from optuna.samplers import GPSampler, TPESampler
from optuna.samplers._gp import sampler as gp_sampler
from optuna.samplers._tpe.sampler import _split_trials, default_gamma_multiobjective

from nash_search.config import SearchSpace
from nash_search.search import sampler as samplers
from nash_search.storage.space import architecture_of, distributions, params_of
from tests.synthetic_evaluator import quality_of, share_of

SPACE = SearchSpace(encoder_sparsity_pct=(0, 80, 10), decoder_layers=(1, 2, 3, 4))
EVERY = SPACE.architectures()


def study_of(architectures):
    study = optuna.create_study(directions=["minimize", "maximize"])
    for a in architectures:
        values = [100 * share_of(a), quality_of(a)]
        study.add_trial(
            optuna.trial.create_trial(values=values, params=params_of(a), distributions=distributions(SPACE))
        )
    return study


def proposed(name, study, free, seed=0, planned=None):
    study.sampler = samplers.Proposals(name, seed, SPACE, free, planned, alone=True)
    return architecture_of(study.ask(fixed_distributions=distributions(SPACE)).params)


def moving():
    return {name: d for name, d in distributions(SPACE).items() if not d.single()}


def parzen_scores(study, free):
    """Log l(x) - log g(x) of each free point, from Optuna's own estimators."""
    plain = TPESampler(multivariate=True, n_startup_trials=0)
    trials = study.get_trials()
    below, above = (
        plain._build_parzen_estimator(study, moving(), some, handle_below=first)
        for some, first in zip(
            _split_trials(study, trials, default_gamma_multiobjective(len(trials))), (True, False), strict=True
        )
    )
    rows = {n: np.array([d.to_internal_repr(params_of(a)[n]) for a in free]) for n, d in moving().items()}
    return below.log_pdf(rows) - above.log_pdf(rows)


def gaussian_scores(study, free, seed, monkeypatch):
    """Log expected hypervolume improvement of each free point, from Optuna's own acquisition function."""
    seen = []

    def optimised(acqf, **given):
        seen.append(acqf)
        return np.zeros(acqf.search_space.dim), 0.0

    with monkeypatch.context() as patched:
        patched.setattr(gp_sampler.optim_mixed, "optimize_acqf_mixed", optimised)
        study.sampler = GPSampler(seed=seed, n_startup_trials=1, deterministic_objective=True)
        study.tell(study.ask(fixed_distributions=moving()), state=optuna.trial.TrialState.FAIL)
    (acqf,) = seen
    points = acqf.search_space.get_normalized_params([None] * len(free), [params_of(a) for a in free])
    return np.array([float(acqf.eval_acqf_no_grad(point[None])[0]) for point in points])


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("decided", [2, 5, 12, 30])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_best_free_point_by_the_samplers_own_acquisition_is_proposed(decided, seed, monkeypatch):
    order = np.random.default_rng(seed).permutation(len(EVERY))
    taken, free = [EVERY[i] for i in order[:decided]], [EVERY[i] for i in order[decided:]]
    study = study_of(taken)
    scores = parzen_scores(study, free)
    assert scores[free.index(proposed("tpe", study_of(taken), free, seed))] == pytest.approx(scores.max())
    scores = gaussian_scores(study, free, seed, monkeypatch)
    assert scores[free.index(proposed("gp", study_of(taken), free, seed))] == pytest.approx(scores.max(), abs=1e-6)


@pytest.mark.parametrize("name", ["gp", "tpe"])
@pytest.mark.parametrize("left", [2, 3])
def test_chance_decides_nothing_when_little_is_left(name, left):
    taken, free = EVERY[left:], EVERY[:left]
    found = {proposed(name, study_of(taken), free, seed) for seed in range(4)}
    assert len(found) == 1 and found <= set(free)


def test_without_a_finished_trial_a_gaussian_process_leaves_the_first_word_to_parzen_estimators(monkeypatch):
    monkeypatch.setattr(samplers.np.random, "default_rng", lambda *a: pytest.fail("left to chance"))
    for name in ("gp", "tpe"):
        assert proposed(name, study_of([]), EVERY) in EVERY


def test_many_trials_are_left_to_parzen_estimators(monkeypatch):
    taken, free = EVERY[:6], EVERY[6:]
    assert proposed("gp", study_of(taken), free) != proposed("tpe", study_of(taken), free)
    monkeypatch.setattr(samplers, "GP_MOST", 5)
    assert proposed("gp", study_of(taken), free) == proposed("tpe", study_of(taken), free)


def test_depths_with_gaps_are_proposed_too():
    space = SPACE.model_copy(update={"decoder_layers": (1, 2, 4)})
    every = space.architectures()
    study = optuna.create_study(directions=["minimize", "maximize"])
    for name in ("gp", "tpe"):
        study.sampler = samplers.Proposals(name, 0, space, every, None)
        asked = study.ask(fixed_distributions=distributions(space))
        found = architecture_of(asked.params)
        assert found in every
        study.tell(asked, [100 * share_of(found), quality_of(found)])
        every = [a for a in every if a != found]


@pytest.mark.slow
def test_a_study_goes_on_as_the_undisturbed_one_would_have(rehearse, tmp_path):
    def front(results):
        study = optuna.load_study(study_name="s", storage=f"sqlite:///{results}/s/study.db")
        return [(t.params, t.values) for t in study.trials]

    rehearse(trials=6, sampler="gp", results=tmp_path / "parts")
    rehearse(trials=7, sampler="gp", results=tmp_path / "parts")
    rehearse(trials=7, sampler="gp", results=tmp_path / "whole")
    assert front(tmp_path / "parts") == front(tmp_path / "whole")
    assert len(front(tmp_path / "whole")) == 8 and math.isfinite(front(tmp_path / "whole")[-1][1][0])
