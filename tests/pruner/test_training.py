"""The training loop on a model whose every update is known in closed form."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tiny import KINDS, model_of

from nash_search.families import family_of
from nash_search.layouts import setting
from nash_search.pruner import training
from nash_search.pruner.state_file import StateFile
from nash_search.pruner.training import Group, Optimization, Watch, linear_decay, train


class Toy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one = torch.nn.Parameter(torch.zeros(1))
        self.other = torch.nn.Parameter(torch.zeros(1))


def updates(model, groups, slopes=(1.0, 1.0), **options):
    """Both parameters after every step of a loss that falls with `slopes` along them."""
    seen = []
    train(
        model,
        loss=lambda batch, step: -(slopes[0] * model.one + slopes[1] * model.other).sum(),
        batches=lambda step: {"x": torch.zeros(1)},
        optimization=Optimization(
            groups=groups,
            after_step=lambda step: seen.append((float(model.one.detach()), float(model.other.detach()))),
        ),
        **options,
    )
    return torch.tensor([(0.0, 0.0), *seen]).diff(dim=0)


def test_scheduled_groups_decay_to_zero_and_the_others_keep_their_rate():
    model = Toy()
    groups = [Group(params=[model.one], lr=0.1), Group(params=[model.other], lr=0.1, scheduled=False, maximize=True)]
    moved = updates(model, groups, steps=5)
    assert moved[:, 0].tolist() == pytest.approx([0.1, 0.08, 0.06, 0.04, 0.02], rel=1e-4)  # Adam on a constant slope
    assert moved[:, 1].tolist() == pytest.approx([-0.1] * 5, rel=1e-4)
    assert [linear_decay(4, 2)(step) for step in range(5)] == [0.5, 1.0, 1.0, 0.5, 0.0]


def test_only_clipped_groups_count_in_the_norm_and_are_clipped():
    model, norms = Toy(), []
    groups = [Group(params=[model.one], lr=0.1), Group(params=[model.other], lr=0.1, clipped=False)]
    model.one.register_post_accumulate_grad_hook(lambda p: norms.append(p))

    def after_step(step):
        norms.append((float(model.one.grad), float(model.other.grad)))

    train(
        model,
        loss=lambda batch, step: -(30 * model.one + 400 * model.other).sum(),
        batches=lambda step: {"x": torch.zeros(1)},
        steps=1,
        optimization=Optimization(groups=groups, clip=2.0, after_step=after_step),
    )
    assert norms[-1] == pytest.approx((-2.0, -400.0), rel=1e-4)


def test_every_step_has_its_own_noise_and_the_callers_is_left_alone():
    model, noise = Toy(), []

    def loss(batch, step):
        noise.append(float(torch.rand(1)))
        return model.one.sum()

    state, moves = torch.get_rng_state(), Optimization(groups=[Group(params=[model.one], lr=0.1)])
    for _ in range(2):
        train(model, loss=loss, batches=lambda step: {}, steps=4, optimization=moves)
    assert torch.equal(torch.get_rng_state(), state)
    assert noise[:4] == noise[4:] and len(set(noise)) == 4


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only where a test says so."""
    now = SimpleNamespace(s=0.0)
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: now.s))
    return now


@pytest.mark.parametrize(("save_s", "gap_steps"), [(0.1, 20), (4.0, 80)])
def test_saves_cost_a_twentieth_of_the_training_and_are_charged(save_s, gap_steps, clock, tmp_path):
    class Slow(StateFile):
        def write(self, header, tensors):
            written.append(header["step"])
            clock.s += save_s

    def loss(batch, step):
        clock.s += 1.0
        return model.one.sum()

    model, written = Toy(), []
    state = Slow(path=tmp_path / "state.safetensors", question="q", every_s=20.0)
    moves, watch = Optimization(groups=[Group(params=[model.one], lr=0.1)]), Watch(rungs=[190])
    done = train(model, loss=loss, batches=lambda step: {}, steps=190, optimization=moves, watch=watch, state=state)
    assert written == [20, *range(20 + gap_steps, 190, gap_steps), 190]  # the first as asked; the last rung only once
    assert done.seconds == pytest.approx(190 + save_s * len(written))


def test_no_gradient_outlives_its_step():
    model, moved = Toy(), torch.nn.Parameter(torch.ones(1))
    held = []

    def on_rung(step):
        held.append([p.grad for p in (*model.parameters(), moved)])

    train(
        model,
        loss=lambda batch, step: (model.one * model.other * moved).sum(),
        batches=lambda step: {},
        steps=4,
        optimization=Optimization(groups=[Group(params=list(model.parameters()), lr=0.1)], moved_after=[moved]),
        watch=Watch(rungs=[2, 4], on_rung=on_rung),
    )
    assert held == [[None] * 3] * 2
    assert [p.grad for p in (*model.parameters(), moved)] == [None] * 3


@pytest.mark.parametrize("amx", [True, False])
@pytest.mark.parametrize("wide", [True, False])
def test_left_open_it_multiplies_in_bfloat16_where_the_device_has_units_and_the_model_is_wide(monkeypatch, amx, wide):
    model, cpu = model_of("t5"), torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(training, "WIDE", model.config.d_model + (0 if wide else 1))
    assert training.in_bf16("auto", model, cpu) == (amx and wide)
    assert training.in_bf16("bf16", model, cpu) and not training.in_bf16("fp32", model, cpu)


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_says_how_wide_it_is(kind):
    model = model_of(kind)
    width = setting(model.config, family_of(model).layout.width_key)
    assert model.get_input_embeddings().embedding_dim == width > 0
