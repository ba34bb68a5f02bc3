"""Hooks: randomness that does not depend on the past, clipping, averaging, speed."""

import logging
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from detectron2.engine import AMPTrainer, HookBase, SimpleTrainer
from detectron2.utils import comm
from mimdet.engine.hooks import (
    EMA,
    GradientClipping,
    LossNormalizer,
    RepeatableRandomness,
    Throughput,
)


class Noisy(nn.Module):
    """Its loss, and with it the gradient, is a random number times its only weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.register_buffer("seen", torch.zeros(()))
        self.drawn = []

    def forward(self, batch) -> dict[str, torch.Tensor]:
        self.drawn.append((batch, torch.rand(1).item(), np.random.rand()))
        self.seen += 1
        return {"loss": 10 * self.weight.sum()}


class Loader:
    """Batches that are made of its seed and the iteration."""

    dataset_size, seed, start = 64, None, 0

    def set_start(self, iteration: int) -> None:
        self.start = iteration

    def __iter__(self):
        return ((self.seed, k) for k in range(self.start, 100))


def trainer_of(*hooks: HookBase, model=None, loader=None) -> SimpleTrainer:
    model = model or Noisy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = SimpleTrainer(model, loader or [0] * 100, optimizer)
    trainer.register_hooks(hooks)
    return trainer


# --- Randomness -----------------------------------------------------------------------------------


def test_a_resumed_run_draws_what_it_would_have_drawn():
    np.random.seed(3)
    whole, loader = Noisy(), Loader()
    first = trainer_of(RepeatableRandomness(loader), model=whole, loader=loader)
    first.train(0, 6)
    torch.rand(7), np.random.rand(7)  # another past
    rest, loader = Noisy(), Loader()
    second = trainer_of(RepeatableRandomness(loader), model=rest, loader=loader)
    second.load_state_dict({**first.state_dict(), "iteration": 3})
    second.train(4, 6)
    assert rest.drawn == whole.drawn[4:]
    assert len(set(whole.drawn)) == 6
    assert [k for (_, k), *_ in rest.drawn] == [4, 5]


def test_ranks_draw_different_numbers(monkeypatch):
    drawn = []
    for rank in range(2):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        hook = RepeatableRandomness([])
        hook.load_state_dict({"seed": 1})
        hook.trainer = trainer_of()
        hook.before_step()
        drawn.append(torch.rand(1).item())
    assert drawn[0] != drawn[1]


def test_a_loader_that_cannot_start_anywhere_is_left_alone():
    trainer_of(RepeatableRandomness([0] * 5)).train(0, 2)


# --- Clipping -------------------------------------------------------------------------------------


def test_gradients_are_scaled_down_to_the_norm_and_the_norm_is_stored():
    trainer = trainer_of(GradientClipping(2.0))
    trainer.train(0, 1)
    gradient = trainer.model.weight.grad  # four times 10 has the norm 20
    torch.testing.assert_close(gradient, torch.full((4,), 1.0), rtol=1e-5, atol=0)
    assert trainer.storage.history("grad_norm").latest() == pytest.approx(20)


@pytest.mark.lite
def test_in_mixed_precision_the_gradient_is_clipped_without_the_loss_scale():
    model = Noisy()
    trainer = AMPTrainer(
        model,
        [0] * 100,
        torch.optim.SGD(model.parameters(), lr=0.1),
        precision=torch.bfloat16,
        grad_scaler=torch.amp.GradScaler("cpu", init_scale=1024.0),
    )
    trainer.register_hooks([GradientClipping(2.0)])
    trainer.train(0, 1)
    torch.testing.assert_close(model.weight.data, torch.full((4,), 0.9), rtol=1e-5, atol=0)
    assert trainer.storage.history("grad_norm").latest() == pytest.approx(20)


def test_an_infinite_norm_only_measures():
    trainer = trainer_of(GradientClipping(math.inf))
    trainer.train(0, 1)
    assert trainer.model.weight.grad.tolist() == [10] * 4
    assert trainer.storage.history("grad_norm").latest() == pytest.approx(20)


@pytest.mark.parametrize("norm", [0, -1.0, float("nan")])
def test_a_norm_that_is_not_positive_is_refused(norm):
    with pytest.raises(ValueError, match="train.clip_grad.max_norm must be positive, got"):
        GradientClipping(norm)


# --- Averaging ------------------------------------------------------------------------------------


def test_the_average_moves_by_the_rest_of_the_decay():
    model = Noisy()
    ema = EMA(model, 0.75)
    nn.init.constant_(model.weight, 2.0)  # as a checkpoint does, after the hook was made
    trainer_of(ema, model=model).train(0, 2)
    # weights 2 -> 1 -> 0: 0.75 * 2 + 0.25 * 1 = 1.75, then 0.75 * 1.75 + 0.25 * 0
    torch.testing.assert_close(ema.averaged.weight.detach(), torch.full((4,), 1.3125))
    assert not ema.averaged.training


def test_the_average_goes_on_after_a_resume():
    whole = Noisy()
    expected = EMA(whole, 0.75)
    trainer_of(expected, model=whole).train(0, 4)
    model = Noisy()
    first = trainer_of(EMA(model, 0.75), model=model)
    first.train(0, 2)
    resumed = Noisy()
    resumed.load_state_dict(model.state_dict())
    ema = EMA(resumed, 0.75)
    second = trainer_of(ema, model=resumed)
    second.load_state_dict(first.state_dict())
    second.train(2, 4)
    torch.testing.assert_close(ema.averaged.weight, expected.averaged.weight)


@pytest.mark.parametrize("decay", [0, 1, 1.5])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match=r"train.ema.decay must be in \(0, 1\), got"):
        EMA(Noisy(), decay)


# --- The normaliser of losses ---------------------------------------------------------------------


class Normalised(Noisy):
    """Divides its loss by an average over past batches, as RetinaNet does."""

    loss_normalizer = 100.0

    def forward(self, batch) -> dict[str, torch.Tensor]:
        self.loss_normalizer = 0.9 * self.loss_normalizer + 0.1
        return super().forward(batch)


@pytest.mark.parametrize("wrap", [lambda model: model, nn.Sequential])
def test_a_resumed_run_goes_on_with_the_loss_normaliser_and_weights_alone_do_not(wrap):
    model, other = wrap(Normalised()), wrap(Normalised())
    first = trainer_of(LossNormalizer(model, 2), model=model)
    first.train(0, 2)
    (value,) = first.state_dict()["hooks"]["LossNormalizer"].values()
    assert value == pytest.approx(0.9 * (0.9 * 100 + 0.1) + 0.1)
    other.load_state_dict(model.state_dict())
    hook = LossNormalizer(other, 2)
    assert set(hook.state_dict().values()) == {100.0}
    trainer_of(hook, model=other).load_state_dict(first.state_dict())
    assert set(hook.state_dict().values()) == {value}


def test_each_rank_goes_on_with_its_own_loss_normaliser(monkeypatch):
    monkeypatch.setattr(comm, "all_gather", lambda own: [own, {"": own[""] + 100}])
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    model = Noisy()
    hook, states = LossNormalizer(model, 2), []
    for iteration in range(5):
        model.loss_normalizer = iteration
        hook.trainer = SimpleNamespace(iter=iteration, max_iter=5)
        hook.after_step()
        states.append(hook.state_dict()[""])
    assert states == [0, [1, 101], 2, [3, 103], [4, 104]]
    for rank, processes, expected in ((0, 2, 3), (1, 2, 103), (1, 4, 3)):
        monkeypatch.setattr(comm, "get_world_size", lambda n=processes: n)
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        hook.load_state_dict({"": states[3]})
        assert model.loss_normalizer == expected


def test_a_model_without_a_loss_normaliser_has_nothing_in_the_checkpoint():
    model = Noisy()
    assert "hooks" not in trainer_of(LossNormalizer(model, 2), model=model).state_dict()


# --- Speed ----------------------------------------------------------------------------------------


def test_the_speed_is_stored_and_told_once(monkeypatch, caplog):
    clock = iter(range(1000))
    monkeypatch.setattr("mimdet.engine.hooks.time.perf_counter", lambda: next(clock))
    loader = Loader()
    trainer = trainer_of(Throughput(8, loader, report_after=3), loader=loader)
    with caplog.at_level(logging.INFO, logger="mimdet.engine.hooks"):
        trainer.train(0, 6)
    speeds = trainer.storage.history("[metric]images_per_second").values()
    assert len(speeds) == 6 and all(speed > 0 for speed, _ in speeds)
    (message,) = [r.message for r in caplog.records if r.name == "mimdet.engine.hooks"]
    assert message.startswith("0:00:") and " left for 2 of 6 iterations at " in message
    assert "; an epoch of 64 images takes 0:00:" in message
    assert message.endswith("training is 0.8 epochs")


def test_the_speed_of_a_loader_of_unknown_length_is_told_without_epochs(caplog):
    with caplog.at_level(logging.INFO, logger="mimdet.engine.hooks"):
        trainer_of(Throughput(8, [0] * 9, report_after=1)).train(0, 3)
    (message,) = [r.message for r in caplog.records if r.name == "mimdet.engine.hooks"]
    assert "epoch" not in message and "left for 1 of 3 iterations" in message
