"""A trial from start to end: exact sparsity, exact resume, rungs, refusals before any training."""

from __future__ import annotations

import copy
from functools import cache, partial

import pytest
import torch
from tiny import batch_of, logits_of, model_of

from nash_search.config import Architecture, PruningRecipe
from nash_search.errors import InvalidInput, NashSearchWarning
from nash_search.pruner import (
    TeacherCache,
    TrainingContext,
    answered,
    cut,
    largest_sparsity_pct,
    prune,
    run,
    shapes_of,
    shorten,
    stages,
)
from nash_search.pruner.distillation import Distillation
from nash_search.pruner.gates import LIMIT, gates_of

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


@pytest.mark.parametrize(
    "kind", ["t5", "bart", *(pytest.param(k, marks=pytest.mark.slow) for k in ("m2m_100", "whisper"))]
)
def test_a_trial_ends_at_its_architecture_and_leaves_the_teacher_alone(kind):
    teacher = model_of(kind)
    before = copy.deepcopy(teacher.state_dict())
    rungs = []
    state = torch.get_rng_state()
    asked = []

    def batches(step):
        asked.append(step)
        return batch_of(step, kind=kind)

    pruned = run(
        teacher, ARCHITECTURE, RECIPE, batches, TrainingContext(on_rung=lambda step, model: rungs.append(step))
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert pruned.shapes == shapes_of(pruned.model)
    assert pruned.shapes.decoder_blocks == (0, 3)
    assert pruned.sparsity_expected == pytest.approx(0.4, abs=0.02)
    assert pruned.sparsity_counted == pytest.approx(0.4, abs=0.005)
    assert set(pruned.pruning) == {"undecided_share", "loss_before_hardening", "loss_after_hardening"}
    assert {name: stage["steps"] for name, stage in pruned.stages.items()} == {"narrow": 12, "tune": 4}
    assert rungs == [4, 8, 12, 16]
    assert asked == [*range(12), 0, 1, 0, 1, 12, 13, 14, 15]  # the loss on both sides of the cut is read on 0 and 1
    assert not pruned.model.training
    after = teacher.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any("forward" in vars(module) for module in pruned.model.modules())


def test_what_hardening_folds_in_is_the_evaluation_gates(monkeypatch):
    """The cut model is the gated one whose removed gates are shut and whose kept ones are soft."""
    seen = []

    def spied(student, *kept, **folded):
        seen.append((copy.deepcopy(student), kept, smaller := cut(student, *kept, **folded)))
        return copy.deepcopy(smaller)

    made = []
    monkeypatch.setattr(stages, "cut", spied)
    monkeypatch.setattr(stages, "gates_of", lambda *args: made.append(gates_of(*args)) or made[-1])
    run(model_of("t5"), ARCHITECTURE, RECIPE, data)
    (student, kept, smaller), gates = seen[0], made[0]
    values_G = gates.evaluation().detach()
    masks_G = [torch.zeros(n).index_fill(0, torch.tensor(k), 1.0) for n, k in zip(
        gates.heads + gates.neurons, [*kept[0], *kept[1]], strict=True)]  # fmt: skip
    masked_G = values_G * torch.cat(masks_G)
    assert int(((masked_G > 0) & (masked_G < 1)).sum()) > 3
    heads, _ = gates.per_block(masked_G)
    assert any(bool(((z > 0) & (z < 1)).any()) for z in heads)
    gates.use(masked_G)
    with gates.attached(student.eval()):
        expected = logits_of(student, batch_of())
    difference = float((logits_of(smaller, batch_of()) - expected).abs().max())
    assert difference <= 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("multiplier", ["solved", pytest.param("ascent", marks=pytest.mark.slow)])
def test_rungs_and_the_loss_before_hardening_see_the_evaluation_gates(multiplier):
    """At rates that move nothing these are exactly 1: the shortened teacher. A draw would not be."""
    still = {name: 1e-9 for name in ("learning_rate", "gate_learning_rate", "multiplier_learning_rate")}
    recipe = RECIPE.model_copy(update=still | {"multiplier": multiplier, "hidden_weight": 0.0})
    teacher, seen = model_of("t5"), []

    def on_rung(step, model):
        seen.append(logits_of(model, batch_of()))

    pruned = run(teacher, ARCHITECTURE, recipe, data, TrainingContext(on_rung=on_rung))
    short = shorten(teacher, 2)
    for logits in seen[:2]:
        assert float((logits - logits_of(short, batch_of())).abs().max()) < 1e-4
    loss = Distillation(short, teacher, (0, 3), recipe, hidden=False).loss
    expected = sum(float(loss(data(step)).detach()) for step in range(2)) / 2
    assert pruned.pruning["loss_before_hardening"] == pytest.approx(expected, abs=1e-4)


def test_ascent_trains_gates_at_a_constant_rate_within_reach(monkeypatch):
    made, groups = [], []
    monkeypatch.setattr(stages, "gates_of", lambda *args: made.append(gates_of(*args)) or made[-1])
    real = stages.train

    def spied(*args, **options):
        optimization = options["optimization"]
        groups.append((optimization.groups, optimization.schedule))
        return real(*args, **options)

    monkeypatch.setattr(stages, "train", spied)
    recipe = RECIPE.model_copy(update={"multiplier": "ascent", "gate_learning_rate": 3.0})
    run(model_of("t5"), ARCHITECTURE, recipe, data)
    assert float(made[0].logits_G.detach().abs().max()) == pytest.approx(LIMIT)
    (weights, of_gates, multipliers), schedule = groups[0]
    assert weights.get("scheduled", True) and weights.get("clipped", True)
    assert not any(group["scheduled"] or group["clipped"] for group in (of_gates, multipliers))
    assert multipliers["maximize"] and not of_gates.get("maximize", False)
    assert [schedule(step) for step in (0, 8, 16)] == [1.0, 0.5, 0.0]  # the weights' rate falls over the whole trial


def test_hidden_states_are_matched_in_stage_2_only():
    for sparsity, same in ((40, False), (0, True)):
        architecture = Architecture(encoder_sparsity_pct=sparsity, decoder_layers=2)
        models = [
            prune(model_of("t5"), architecture, RECIPE.model_copy(update={"hidden_weight": weight}), data)
            for weight in (0.0, 10.0)
        ]
        assert same_weights(*models) is same


def test_a_teacher_in_train_mode_or_half_precision_teaches_without_noise_to_a_full_precision_student():
    teacher = model_of("t5").train()
    assert same_weights(prune(teacher, ARCHITECTURE, RECIPE, data), prune(model_of("t5"), ARCHITECTURE, RECIPE, data))
    assert teacher.training
    half = prune(model_of("t5").bfloat16(), ARCHITECTURE, RECIPE, data)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}


def test_no_sparsity_trains_all_steps_on_the_shortened_model():
    pruned = run(model_of("t5"), Architecture(encoder_sparsity_pct=0, decoder_layers=1), RECIPE, data)
    assert {name: stage["steps"] for name, stage in pruned.stages.items()} == {"tune": 16}
    assert pruned.sparsity_counted == pruned.sparsity_expected == 0
    assert type(pruned.model).__name__ == "T5ForConditionalGeneration"


@pytest.mark.parametrize(
    "change",
    [
        {"narrowing": "magnitude"},
        {"narrowing": "random"},
        {"narrowing": "fisher"},
        {"gate_init": "fisher"},
        {"multiplier": "ascent"},
    ],
)
def test_every_way_to_narrow_hits_the_sparsity_in_the_same_number_of_steps(change):
    pruned = run(model_of("t5"), ARCHITECTURE, RECIPE.model_copy(update=change), data)
    assert pruned.sparsity_counted == pytest.approx(0.4, abs=0.005)
    assert sum(stage["steps"] for stage in pruned.stages.values()) == 16


@pytest.mark.slow
def test_scored_blocks_are_kept_through_a_resume(tmp_path):
    architecture = Architecture(encoder_sparsity_pct=40, decoder_layers=2, decoder_selection="scored")
    whole = run(model_of("bart"), architecture, RECIPE, data)
    assert whole.shapes.decoder_blocks == shapes_of(shorten(model_of("bart"), 2, "scored", data)).decoder_blocks
    for kill_at in (8, 6):
        with pytest.raises(Killed):
            run(
                model_of("bart"),
                architecture,
                RECIPE,
                data,
                TrainingContext(step_guard=KillAt(kill_at), folder=tmp_path),
            )
    resumed = run(model_of("bart"), architecture, RECIPE, data, TrainingContext(folder=tmp_path))
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
    outputs = TeacherCache(folder=tmp_path)
    models = [prune(teacher, ARCHITECTURE, RECIPE, batches, teacher_cache=outputs) for _ in range(2)]
    assert same_weights(*models)
    assert len(list(tmp_path.iterdir())) == RECIPE.tune_steps
    assert teacher.config.apply_spec_augment


# killed inside stage 2 with a state of each step, and behind the cut with the states of the stages alone; the other
# moments are the first step, the last of a stage and the first of the next
RESUMES = [(5, "solved", 0.0), (13, "solved", 20.0)]
RESUMES += [
    pytest.param(kill_at, multiplier, every, marks=pytest.mark.slow)
    for multiplier, every, kills in (
        ("solved", 0.0, (12, 15)),
        ("solved", 20.0, (0, 11, 12)),
        ("ascent", 0.0, (5, 11, 14)),
    )
    for kill_at in kills
]


@cache
def undisturbed(multiplier):
    """The trial that nobody killed, trained once."""
    return run(model_of("t5"), ARCHITECTURE, RECIPE.model_copy(update={"multiplier": multiplier}), data)


@pytest.mark.parametrize(("kill_at", "multiplier", "save_every_s"), RESUMES)
def test_a_killed_trial_continues_to_the_same_bits(kill_at, multiplier, save_every_s, tmp_path):
    recipe, whole = RECIPE.model_copy(update={"multiplier": multiplier}), undisturbed(multiplier)
    rungs = []

    def on_rung(step, model):
        rungs.append((step, logits_of(model, batch_of())))

    with pytest.raises(Killed):
        run(
            model_of("t5"),
            ARCHITECTURE,
            recipe,
            data,
            TrainingContext(step_guard=KillAt(kill_at), on_rung=on_rung, folder=tmp_path, save_every_s=save_every_s),
        )
    resumed = run(model_of("t5"), ARCHITECTURE, recipe, data, TrainingContext(on_rung=on_rung, folder=tmp_path))
    assert same_weights(whole.model, resumed.model)
    assert resumed.shapes == whole.shapes
    assert resumed.pruning == whole.pruning
    assert {n: s["steps"] for n, s in resumed.stages.items()} == {"narrow": 12, "tune": 4}
    assert [step for step, _ in rungs] == [4, 8, 12, 16]
    again = run(model_of("t5"), ARCHITECTURE, recipe, data, TrainingContext(on_rung=on_rung, folder=tmp_path))
    assert same_weights(whole.model, again.model)
    assert len(rungs) == 4


def test_a_finished_trial_of_another_seed_is_not_taken_for_this_one(tmp_path):
    whole = run(model_of("t5"), ARCHITECTURE, RECIPE, data, TrainingContext(folder=tmp_path))
    another = run(model_of("t5"), ARCHITECTURE, RECIPE, data, TrainingContext(seed=3, folder=tmp_path))
    assert not same_weights(whole.model, another.model)


@pytest.mark.parametrize("multiplier", ["solved", pytest.param("ascent", marks=pytest.mark.slow)])
def test_an_attempt_that_ran_out_of_memory_leaves_nothing_in_the_gates(multiplier, monkeypatch):
    recipe = RECIPE.model_copy(update={"multiplier": multiplier})

    def halved(failing):
        """The student of a device whose memory ran out at these calls of the loss."""
        calls = []

        def loss(self, batch):
            calls.append(len(batch["labels"]))
            if len(calls) - 1 in failing:
                raise torch.OutOfMemoryError
            return whole(self, batch)

        monkeypatch.setattr(Distillation, "_loss", loss)
        with pytest.warns(NashSearchWarning):
            model = prune(model_of("t5"), ARCHITECTURE, recipe, partial(batch_of, batch=5))
        assert calls[:3] == [5, 3, 2]
        return model

    whole = Distillation._loss
    # the whole batch, then one half before or after the other half's gradient: taken in four pieces from there on
    assert same_weights(halved({0, 1}), halved({0, 2}))


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
            "decoder_selection must be one of uniform, scored, low, high, but got best",
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
    run(model_of("t5"), ARCHITECTURE, RECIPE, data, TrainingContext(on_progress=lambda *args: seen.append(args[:3])))
    assert seen == sorted(seen, key=lambda report: report[1])
    assert {("narrow", 10, 16), ("narrow", 12, 16), ("tune", 16, 16)} <= set(seen)


@pytest.mark.slow
def test_labels_of_the_teacher_are_its_answers_and_a_resume_hears_the_same(tmp_path):
    teacher = model_of("t5")
    taught = RECIPE.model_copy(update={"labels": "teacher"})
    by_hand = run(teacher, ARCHITECTURE, RECIPE, answered(teacher, data)).model
    whole = run(teacher, ARCHITECTURE, taught, data).model
    assert same_weights(whole, by_hand)
    assert not same_weights(whole, run(teacher, ARCHITECTURE, RECIPE, data).model)
    outputs = TeacherCache(folder=tmp_path / "outputs")
    options = {"folder": tmp_path / "work", "save_every_s": 0, "teacher_cache": outputs}
    with pytest.raises(Killed):
        run(teacher, ARCHITECTURE, taught, data, TrainingContext(step_guard=KillAt(9), **options))
    resumed = run(teacher, ARCHITECTURE, taught, data, TrainingContext(**options)).model
    undisturbed = run(teacher, ARCHITECTURE, taught, data, TrainingContext(teacher_cache=outputs)).model
    assert same_weights(resumed, undisturbed)


def test_a_family_whose_answers_are_no_labels_is_refused_them():
    with pytest.raises(InvalidInput, match="answers must be labels as they are generated, but got mbart"):
        run(model_of("mbart"), ARCHITECTURE, RECIPE.model_copy(update={"labels": "teacher"}), data)
