"""One training that all trials share: what it runs is what is cut, resumable, and a trial from it only tunes."""

from __future__ import annotations

import copy
import functools
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tiny import batch_of, model_of

from nash_search.config import Architecture, PruningRecipe
from nash_search.errors import InvalidInput
from nash_search.pruner import Supernet, TrainingContext, answered, run, shapes_of, train_supernet
from nash_search.pruner import supernet as module
from nash_search.pruner.distillation import forward
from nash_search.pruner.gates import gates_of
from nash_search.pruner.layer_selection import ElasticDecoder

RECIPE = PruningRecipe(narrow_steps=6, tune_steps=4, batch_size=4, narrowing="shared", rungs=2)
ARCHITECTURES = [
    Architecture(encoder_sparsity_pct=s, decoder_layers=n, decoder_selection="scored")
    for n in (1, 2, 4)
    for s in (0, 40, 70)
]


def data_of(kind):
    return lambda step: batch_of(step, kind=kind)


def shared_of(kind, **given):
    """Trained anew: for a test that says how, or that looks at two of them."""
    return train_supernet(model_of(kind), ARCHITECTURES, RECIPE, data_of(kind), TrainingContext(**given))


@functools.cache
def shared_once(kind):
    """Trained once, for tests that only read it."""
    return shared_of(kind)


@pytest.mark.parametrize(
    "kind", ["t5", "bart", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("umt5", "m2m_100", "t5gemma"))]
)
def test_what_a_step_runs_is_what_a_trial_is_cut_to(kind):
    """Masks and swapped blocks compute exactly the architecture that `student` cuts out."""
    shared, batch = shared_once(kind), batch_of(kind=kind)
    elastic = copy.deepcopy(shared.model)
    gates, decoder = gates_of(elastic, RECIPE), ElasticDecoder(elastic)
    for architecture in ARCHITECTURES:
        student, taken = shared.student(architecture, RECIPE)
        assert len(taken["blocks"]) == architecture.decoder_layers == len(shapes_of(student).decoder_blocks)
        decoder.use(taken["blocks"])
        gates.use(module._open(elastic, gates, shared.scores_G, architecture.encoder_sparsity_pct, RECIPE))
        with torch.no_grad(), gates.attached(elastic):
            expected = forward(elastic, batch)
        with torch.no_grad():
            found = forward(student, batch)
        assert float((found - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))
    assert len({shapes_of(shared.student(a, RECIPE)[0]) for a in ARCHITECTURES}) == len(ARCHITECTURES)


def test_the_teacher_stays_and_the_shared_model_has_its_shape():
    teacher = model_of("t5")
    before = copy.deepcopy(teacher.state_dict())
    shared = train_supernet(teacher, ARCHITECTURES, RECIPE, data_of("t5"))
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert {n: t.shape for n, t in shared.model.state_dict().items()} == {n: t.shape for n, t in before.items()}
    assert any(not torch.equal(before[name], tensor) for name, tensor in shared.model.state_dict().items())
    assert not any("forward" in vars(part) for part in shared.model.modules())
    assert shared.steps == 6 and shared.seconds > 0


class Killed(BaseException):
    """Stands for kill -9."""


@pytest.mark.slow
def test_a_killed_shared_training_goes_on_to_the_same_bits(tmp_path):
    whole = shared_once("t5")

    entered = []

    @contextmanager
    def guard():
        entered.append(None)
        if len(entered) == 5:  # one for the scores, three steps
            raise Killed
        yield

    asked = {"folder": tmp_path, "save_every_s": 0, "step_guard": guard}
    with pytest.raises(Killed):
        shared_of("t5", **asked)
    again = shared_of("t5", **asked)
    assert len(entered) == 5 + 1 + 3  # the scores again, then the steps that were missing
    state, expected = again.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in state.items())


def test_saved_and_loaded_it_gives_the_same_students(tmp_path):
    shared = shared_once("bart")
    assert Supernet.load(tmp_path / "shared") is None
    shared.save(tmp_path / "shared")
    again = Supernet.load(tmp_path / "shared")
    assert again is not None and again.blocks == shared.blocks and again.seconds == shared.seconds
    for architecture in ARCHITECTURES[:5]:
        mine, theirs = (s.student(architecture, RECIPE)[0] for s in (shared, again))
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))


def test_a_trial_from_it_only_tunes_and_resumes_to_the_same_bits(tmp_path: Path):
    shared, rungs = shared_once("t5"), []
    told = TrainingContext(seed=3, on_rung=lambda s, m: rungs.append(s) and None)
    whole = run(model_of("t5"), ARCHITECTURES[4], RECIPE, data_of("t5"), told, shared=shared)
    assert {name: stage["steps"] for name, stage in whole.stages.items()} == {"tune": 4}
    assert rungs == [2, 4]
    assert whole.sparsity_counted == pytest.approx(0.4, abs=0.005) and whole.sparsity_expected is None

    def once(step):
        if step == 2 and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            raise Killed
        return batch_of(step, kind="t5")

    kept = TrainingContext(seed=3, folder=tmp_path, save_every_s=0)
    with pytest.raises(Killed):
        run(model_of("t5"), ARCHITECTURES[4], RECIPE, once, kept, shared=shared)
    again = run(model_of("t5"), ARCHITECTURES[4], RECIPE, once, kept, shared=shared)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True))


def test_shared_narrowing_needs_the_shared_model_and_covers_what_it_was_trained_for():
    with pytest.raises(InvalidInput, match="narrowing shared must be given the shared model"):
        run(model_of("t5"), ARCHITECTURES[4], RECIPE, data_of("t5"))
    gates = RECIPE.model_copy(update={"narrowing": "gates"})
    with pytest.raises(InvalidInput, match="nothing else may be"):
        run(model_of("t5"), ARCHITECTURES[4], gates, data_of("t5"), shared=shared_once("t5"))
    uniform = Architecture(encoder_sparsity_pct=40, decoder_layers=2)
    with pytest.raises(InvalidInput, match="must cover the architecture"):
        run(model_of("t5"), uniform, RECIPE, data_of("t5"), shared=shared_once("t5"))


@pytest.mark.slow
def test_labels_of_the_teacher_are_what_the_shared_training_hears():
    teacher, recipe = model_of("t5"), RECIPE.model_copy(update={"labels": "teacher"})
    told = train_supernet(teacher, ARCHITECTURES, recipe, data_of("t5")).model.state_dict()
    by_hand = train_supernet(teacher, ARCHITECTURES, RECIPE, answered(teacher, data_of("t5"))).model.state_dict()
    from_data = shared_once("t5").model.state_dict()
    assert all(torch.equal(told[name], tensor) for name, tensor in by_hand.items())
    assert not all(torch.equal(told[name], tensor) for name, tensor in from_data.items())
