"""A trial from start to end: exact sparsity, exact resume, rungs, refusals before any training."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from tiny import batch_of, logits_of, model_of

from nash_search.config import Architecture, PruningRecipe
from nash_search.errors import InvalidInput
from nash_search.pruner import Stopped, TeacherOutputs, largest_sparsity_pct, prune, run, shapes_of, shorten

RECIPE = PruningRecipe(narrow_steps=12, tune_steps=4, rungs=4, hidden_weight=0.01, gate_learning_rate=0.2)
ARCHITECTURE = Architecture(encoder_sparsity_pct=40, decoder_layers=2)


def data(step):
    return batch_of(seed=step)


def same_weights(one, other):
    a, b = one.state_dict(), other.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


class Killed(BaseException):
    pass


class KillAt:
    """A step guard that dies at its n-th step."""

    def __init__(self, steps):
        self.left = steps

    def __call__(self):
        return self

    def __enter__(self):
        self.left -= 1
        if self.left < 0:
            raise Killed

    def __exit__(self, *_):
        return None


@pytest.mark.parametrize("kind", ["t5", "bart", "whisper"])
def test_a_trial_ends_at_its_architecture_and_leaves_the_teacher_alone(kind):
    teacher = model_of(kind)
    before = copy.deepcopy(teacher.state_dict())
    rungs = []
    state = torch.get_rng_state()
    batches = partial(batch_of, kind=kind)
    pruned = run(teacher, ARCHITECTURE, RECIPE, batches, on_rung=lambda step, model: rungs.append(step))
    assert torch.equal(torch.get_rng_state(), state)
    assert pruned.shapes == shapes_of(pruned.model)
    assert pruned.shapes.decoder_blocks == (0, 3)
    assert pruned.sparsity_expected == pytest.approx(0.4, abs=0.02)
    assert pruned.sparsity_counted == pytest.approx(0.4, abs=0.005)
    assert set(pruned.pruning) == {"undecided_share", "loss_before_hardening", "loss_after_hardening"}
    assert {name: stage["steps"] for name, stage in pruned.stages.items()} == {"narrow": 12, "tune": 4}
    assert rungs == [4, 8, 12, 16]
    assert not pruned.model.training
    after = teacher.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any("forward" in vars(module) for module in pruned.model.modules())


def test_no_sparsity_trains_all_steps_on_the_shortened_model():
    pruned = run(model_of("t5"), Architecture(encoder_sparsity_pct=0, decoder_layers=1), RECIPE, data)
    assert {name: stage["steps"] for name, stage in pruned.stages.items()} == {"tune": 16}
    assert pruned.sparsity_counted == pruned.sparsity_expected == 0
    assert type(pruned.model).__name__ == "T5ForConditionalGeneration"


@pytest.mark.parametrize(
    "change", [{"narrowing": "magnitude"}, {"narrowing": "fisher"}, {"gate_init": "fisher"}, {"multiplier": "ascent"}]
)
def test_every_way_to_narrow_hits_the_sparsity_in_the_same_number_of_steps(change):
    pruned = run(model_of("t5"), ARCHITECTURE, RECIPE.model_copy(update=change), data)
    assert pruned.sparsity_counted == pytest.approx(0.4, abs=0.005)
    assert sum(stage["steps"] for stage in pruned.stages.values()) == 16


def test_scored_blocks_are_kept_through_a_resume(tmp_path):
    architecture = Architecture(encoder_sparsity_pct=40, decoder_layers=2, decoder_selection="scored")
    whole = run(model_of("bart"), architecture, RECIPE, data)
    assert whole.shapes.decoder_blocks == shapes_of(shorten(model_of("bart"), 2, "scored", data)).decoder_blocks
    for kill_at in (8, 6):
        with pytest.raises(Killed):
            run(model_of("bart"), architecture, RECIPE, data, step_guard=KillAt(kill_at), folder=tmp_path)
    resumed = run(model_of("bart"), architecture, RECIPE, data, folder=tmp_path)
    assert resumed.shapes == whole.shapes
    assert same_weights(whole.model, resumed.model)


def test_uniform_widths_leave_bart_stock_and_t5_even():
    recipe = RECIPE.model_copy(update={"widths": "uniform", "width_multiple": 4})
    pruned = run(model_of("bart"), Architecture(encoder_sparsity_pct=30, decoder_layers=2), recipe, data)
    assert type(pruned.model).__name__ == "BartForConditionalGeneration"
    assert pruned.shapes.encoder_heads == (4, 4, 4)
    assert len(set(pruned.shapes.encoder_neurons)) == 1 and pruned.shapes.encoder_neurons[0] % 4 == 0
    pruned = run(model_of("t5"), ARCHITECTURE, recipe, data)
    assert len(set(pruned.shapes.encoder_heads)) == len(set(pruned.shapes.encoder_neurons)) == 1


def test_a_pruned_model_can_be_pruned_again():
    first = run(model_of("t5"), ARCHITECTURE, RECIPE, data)
    second = run(first.model, Architecture(encoder_sparsity_pct=20, decoder_layers=1), RECIPE, data)
    assert second.sparsity_counted == pytest.approx(0.2, abs=0.01)
    assert second.shapes.decoder_blocks == (0,)
    assert all(b <= a for a, b in zip(first.shapes.encoder_neurons, second.shapes.encoder_neurons, strict=True))


def test_the_largest_sparsity_is_the_largest_that_is_not_refused():
    model = model_of("t5")
    largest = largest_sparsity_pct(model, RECIPE)
    recipe = RECIPE.model_copy(update={"narrowing": "magnitude"})
    run(model, Architecture(encoder_sparsity_pct=largest, decoder_layers=1), recipe, data)
    with pytest.raises(InvalidInput, match="encoder_sparsity_pct must be at most"):
        run(model, Architecture(encoder_sparsity_pct=largest + 2, decoder_layers=1), recipe, data)


def test_same_seed_same_model_and_another_seed_another():
    models = [prune(model_of("t5"), ARCHITECTURE, RECIPE, data, seed=seed) for seed in (0, 0, 1)]
    assert same_weights(models[0], models[1])
    assert not same_weights(models[0], models[2])


def test_speech_trials_share_teacher_outputs_and_hear_every_frame(tmp_path):
    teacher, batches = model_of("whisper"), partial(batch_of, kind="whisper")
    teacher.config.apply_spec_augment = True  # would mask the student's features at random, by numpy's generator
    teacher.config.mask_time_prob, teacher.config.mask_time_length = 0.5, 2
    outputs = TeacherOutputs(folder=tmp_path, k=40)
    models = [prune(teacher, ARCHITECTURE, RECIPE, batches, teacher_outputs=outputs) for _ in range(2)]
    assert same_weights(*models)
    assert len(list(tmp_path.iterdir())) == RECIPE.tune_steps
    assert teacher.config.apply_spec_augment


RESUMES = [
    pytest.param(kill_at, multiplier, every, marks=[] if (multiplier, every) == ("solved", 20.0) else pytest.mark.slow)
    for kill_at in (0, 5, 11, 12, 13, 14, 15)
    for multiplier in ("solved", "ascent")
    for every in (0.0, 20.0)
]


@pytest.mark.parametrize(("kill_at", "multiplier", "save_every_s"), RESUMES)
def test_a_killed_trial_continues_to_the_same_bits(kill_at, multiplier, save_every_s, tmp_path):
    recipe = RECIPE.model_copy(update={"multiplier": multiplier})
    whole = run(model_of("t5"), ARCHITECTURE, recipe, data)
    rungs = []

    def on_rung(step, model):
        rungs.append((step, logits_of(model, batch_of())))

    with pytest.raises(Killed):
        run(
            model_of("t5"),
            ARCHITECTURE,
            recipe,
            data,
            step_guard=KillAt(kill_at),
            on_rung=on_rung,
            folder=tmp_path,
            save_every_s=save_every_s,
        )
    resumed = run(model_of("t5"), ARCHITECTURE, recipe, data, on_rung=on_rung, folder=tmp_path)
    assert same_weights(whole.model, resumed.model)
    assert resumed.shapes == whole.shapes
    assert resumed.pruning == whole.pruning
    assert {n: s["steps"] for n, s in resumed.stages.items()} == {"narrow": 12, "tune": 4}
    assert [step for step, _ in rungs] == [4, 8, 12, 16]
    again = run(model_of("t5"), ARCHITECTURE, recipe, data, on_rung=on_rung, folder=tmp_path)
    assert same_weights(whole.model, again.model)
    assert len(rungs) == 4
    another = run(model_of("t5"), ARCHITECTURE, recipe, data, seed=3, folder=tmp_path)
    assert not same_weights(whole.model, another.model)


def test_a_rung_can_end_the_trial():
    with pytest.raises(Stopped) as stopped:
        run(model_of("t5"), ARCHITECTURE, RECIPE, data, on_rung=lambda step, model: step >= 8)
    assert stopped.value.step == 8
    assert stopped.value.stages["narrow"]["steps"] == 8


def test_a_loss_that_is_not_finite_ends_the_trial():
    recipe = RECIPE.model_copy(update={"learning_rate": 1e30, "grad_clip": 1e30})
    with pytest.raises(FloatingPointError, match="loss must be finite, but got"):
        run(model_of("t5"), ARCHITECTURE, recipe, data)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (Architecture(encoder_sparsity_pct=0, decoder_layers=5), "decoder_layers must be between 1 and 4, but got 5"),
        (Architecture(encoder_sparsity_pct=95, decoder_layers=2), "encoder_sparsity_pct must be at most .* but got 95"),
        (
            Architecture(encoder_sparsity_pct=0, decoder_layers=2, decoder_selection="best"),
            "decoder_selection must be one of uniform, scored, but got best",
        ),
    ],
)
def test_what_does_not_fit_the_model_is_refused_before_training(architecture, message):
    def never(step):
        raise AssertionError("a batch was asked for")

    with pytest.raises(InvalidInput, match=message):
        run(model_of("bart"), architecture, RECIPE, never)


def test_progress_counts_over_the_whole_trial():
    seen = []
    run(model_of("t5"), ARCHITECTURE, RECIPE, data, on_progress=lambda *args: seen.append(args[:3]))
    assert seen == sorted(seen, key=lambda report: report[1])
    assert {("narrow", 10, 16), ("narrow", 12, 16), ("tune", 16, 16)} <= set(seen)
