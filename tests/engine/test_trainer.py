"""The trainer's options: pieces of a batch, mixed precision, and what cannot be."""

import copy

import pytest
import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from detectron2 import engine
from detectron2.engine import AMPTrainer, SimpleTrainer
from detectron2.utils.events import EventStorage
from mimdet.engine.trainer import GradientAccumulation, build_trainer, data_parallel


class Regression(nn.Module):
    """Two losses of a small network, both means over the samples."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 2))
        self.calls = []

    def forward(self, batch: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        self.calls.append(len(batch))
        out = self.layers(torch.stack(batch))
        return {"loss_a": out[:, 0].square().mean(), "loss_b": (out[:, 1] - 1).abs().mean()}


@pytest.fixture
def batch():
    return list(torch.randn(12, 3, generator=torch.Generator().manual_seed(0)))


def run(model: nn.Module, batch: list, iterations: int = 3, **options) -> tuple[list, dict]:
    """Losses of each iteration, and the weights in the end."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = build_trainer(model, [batch] * iterations, optimizer, **options)
    trainer.train(0, iterations)
    names = ("total_loss", "loss_a", "loss_b")
    losses = [[v for v, _ in trainer.storage.history(n).values()] for n in names]
    return losses, model.state_dict()


@pytest.mark.parametrize("steps", [2, 3, 12])
def test_a_batch_in_pieces_trains_as_the_whole_batch(batch, steps):
    torch.manual_seed(0)
    whole = Regression()
    pieces = copy.deepcopy(whole)
    expected_losses, expected = run(whole, batch)
    losses, weights = run(pieces, batch, accumulation_steps=steps)
    assert pieces.calls == [12 // steps] * steps * 3
    for values, expected_values in zip(losses, expected_losses, strict=True):
        assert values == pytest.approx(expected_values, rel=1e-5)
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.lite
def test_a_batch_in_pieces_works_in_bfloat16(batch):
    torch.manual_seed(0)
    whole = Regression()
    pieces = copy.deepcopy(whole)
    options = dict(amp_enabled=True, amp_dtype="bfloat16")
    _, expected = run(whole, batch, **options)
    _, weights = run(pieces, batch, accumulation_steps=3, **options)
    torch.testing.assert_close(weights, expected, rtol=0.02, atol=2e-3)  # 8 bits


@pytest.mark.lite
def test_no_piece_runs_its_backward_pass_in_autocast(batch):
    model, seen = Regression(), []

    def note(gradient: torch.Tensor) -> None:
        seen.append(torch.is_autocast_enabled("cpu"))

    model.layers[2].register_full_backward_hook(lambda module, inputs, outputs: note(outputs[0]))
    run(model, batch, 1, accumulation_steps=3, amp_enabled=True, amp_dtype="bfloat16")
    assert seen == [False] * 3


@pytest.mark.lite
def test_mixed_precision_computes_in_the_type_it_was_given(batch):
    model, types = Regression(), []
    model.layers[0].register_forward_hook(lambda m, i, out: types.append(out.dtype))
    run(model, batch, iterations=1, amp_enabled=True, amp_dtype="bfloat16")
    run(model, batch, iterations=1)
    assert types == [torch.bfloat16, torch.float32]


def test_without_options_the_trainer_is_detectron2s(batch):
    model = Regression()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert type(build_trainer(model, [], optimizer)) is SimpleTrainer
    assert build_trainer(model, [], optimizer).model is model
    amp = build_trainer(model, [], optimizer, amp_enabled=True, amp_dtype="bfloat16")
    assert type(amp) is AMPTrainer and not amp.grad_scaler.is_enabled()


def test_pieces_of_different_length_are_refused(batch):
    model = GradientAccumulation(Regression(), 5, torch.amp.GradScaler("cpu", enabled=False))
    with EventStorage(), pytest.raises(ValueError, match="must divide the batch .* got 5 and 12"):
        model(batch)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(accumulation_steps=0), "train.accumulation_steps must be at least 1, got 0"),
        (
            dict(amp_dtype="half"),
            r"train.amp.dtype must be one of \['auto', 'float16', 'bfloat16'\], got",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    model = Regression()
    with pytest.raises(ValueError, match=message):
        build_trainer(model, [], torch.optim.SGD(model.parameters(), lr=0.1), **options)


def test_a_model_on_the_cpu_is_wrapped_without_a_gpu_on_either_detectron2(monkeypatch):
    given = []
    monkeypatch.setattr(engine, "create_ddp_model", lambda model, **kwargs: given.append(kwargs))
    data_parallel(nn.Linear(1, 1), broadcast_buffers=False)
    data_parallel(nn.Linear(1, 1, device="meta"))  # as any device but the CPU
    assert given == [{"broadcast_buffers": False, "device_ids": None}, {}]


def test_bfloat16_has_a_hook_of_its_own_but_on_the_cpu(monkeypatch):
    class Wrapped(DistributedDataParallel):
        hooks = []

        def __init__(self):
            nn.Module.__init__(self)

        def register_comm_hook(self, state, hook):
            self.hooks.append(hook)

    monkeypatch.setattr(engine, "create_ddp_model", lambda model, **kwargs: Wrapped())
    data_parallel(nn.Linear(1, 1), bf16_compression=True)
    assert Wrapped.hooks == []
    data_parallel(nn.Linear(1, 1, device="meta"), bf16_compression=True)
    assert Wrapped.hooks == [bf16_compress_hook]
