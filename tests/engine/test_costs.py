"""Where the time of an iteration goes."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from detectron2.engine import HookBase, SimpleTrainer
from mimdet.engine.costs import Costs

SECONDS = {"data": 1.0, "forward": 2.0, "backward": 3.0, "optimizer": 4.0}


class Clock:
    """Goes on only where the test lets something take time."""

    now = 0.0

    def take(self, part):
        self.now += SECONDS[part]


CLOCK = Clock()


class SlowBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        CLOCK.take("backward")
        return gradient


class Model(nn.Linear):
    def forward(self, batch):
        CLOCK.take("forward")
        return {"loss": SlowBackward.apply(super().forward(torch.ones(1))).sum()}


class SlowOptimizer(torch.optim.SGD):
    def step(self, closure=None):
        CLOCK.take("optimizer")


class CallsTheModel(HookBase):
    """As an evaluation does."""

    def __init__(self, model):
        self._model = model

    def after_step(self):
        self._model(None)


def batches():
    for _ in itertools.count():
        CLOCK.take("data")
        yield None


class Event:
    """Of a GPU that needs no time of its own."""

    def __init__(self, enable_timing: bool):
        assert enable_timing

    def record(self):
        self.time = CLOCK.now

    def query(self) -> bool:
        return True

    def elapsed_time(self, end) -> float:
        return 1000 * (end.time - self.time)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_each_part_of_an_iteration_has_its_seconds(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**30)
    clock = SimpleNamespace(perf_counter=lambda: CLOCK.now)
    monkeypatch.setattr("mimdet.engine.costs.time", clock)
    model = Model(1, 1)
    trainer = SimpleTrainer(model, batches(), SlowOptimizer(model.parameters(), lr=0.1))
    trainer.register_hooks([Costs(device), CallsTheModel(model)])
    trainer.train(0, 4)
    latest = trainer.storage.histories()
    for part, seconds in SECONDS.items():
        # An iteration is told in the next one; the evaluations between them do not count.
        assert [value for value, _ in latest[f"seconds/{part}"].values()] == [seconds] * 3
    assert 0.01 < latest["memory/process_gib"].latest() < 1000
    assert device == "cpu" or latest["memory/gpu_gib"].latest() == 3
    assert not model._forward_hooks and not model._forward_pre_hooks
