"""Where the time of an iteration goes."""

import itertools
import time

import pytest
import torch
from torch import nn

from detectron2.engine import HookBase, SimpleTrainer
from mimdet.engine.costs import Costs

SECONDS = {"data": 0.02, "forward": 0.03, "backward": 0.04, "optimizer": 0.05}


class SlowBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(SECONDS["backward"])
        return gradient


class Model(nn.Linear):
    def forward(self, batch):
        time.sleep(SECONDS["forward"])
        return {"loss": SlowBackward.apply(super().forward(torch.ones(1))).sum()}


class SlowOptimizer(torch.optim.SGD):
    def step(self, closure=None):
        time.sleep(SECONDS["optimizer"])


class CallsTheModel(HookBase):
    """As an evaluation does."""

    def __init__(self, model):
        self._model = model

    def after_step(self):
        self._model(None)


def batches():
    for _ in itertools.count():
        time.sleep(SECONDS["data"])
        yield None


def test_each_part_of_an_iteration_has_its_seconds():
    model = Model(1, 1)
    trainer = SimpleTrainer(model, batches(), SlowOptimizer(model.parameters(), lr=0.1))
    trainer.register_hooks([Costs("cpu"), CallsTheModel(model)])
    trainer.train(0, 4)
    latest = trainer.storage.histories()
    for part, seconds in SECONDS.items():
        values = [value for value, _ in latest[f"seconds/{part}"].values()]
        assert len(values) == 3  # an iteration is told in the next one
        # Another program may take the processor for a while, but not each time.
        assert min(values) == pytest.approx(seconds, abs=0.015)
    assert 0.01 < latest["memory/process_gib"].latest() < 1000
    assert not model._forward_hooks and not model._forward_pre_hooks
