"""Small models, trainers and hooks for the tests of the engine."""

import logging

import golden_data
import pytest
import torch
from torch import nn

from detectron2.engine import HookBase, SimpleTrainer, hooks
from detectron2.utils.events import get_event_storage


class TwoLosses(nn.Module):
    """The model of the reference run (README, engine.json)."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.bn = nn.BatchNorm1d(3)

    def forward(self, x):
        if not self.training:
            return x
        y = self.fc(self.bn(x))
        get_event_storage().put_scalar("my/number", float(len(x)))
        return {"loss_a": (y**2).mean(), "loss_b": (y - 1).abs().mean()}


def batches():
    index = 0
    while True:
        yield golden_data.feature(index, (4, 3))
        index += 1


class Batches:
    """Endless data; every iterator starts anew, as a loader does."""

    def __iter__(self):
        return batches()


def make_trainer(cls=SimpleTrainer, model=None, lr=0.01, **kwargs):
    model = golden_data.fill(model or TwoLosses())
    return cls(model, Batches(), torch.optim.AdamW(model.parameters(), lr=lr), **kwargs)


class OneLoss(nn.Module):
    """Returns the data as the loss, times a weight that starts at 1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.weight * x


def loss_trainer(losses, cls=SimpleTrainer, **kwargs):
    """A trainer whose n-th iteration has the n-th loss (times the weight)."""
    model = OneLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    return cls(model, [torch.tensor(float(x)) for x in losses], optimizer, **kwargs)


class Recorder(HookBase):
    """Writes down the phases in which it is called."""

    def __init__(self, name="", log=None, state=None):
        self.log = [] if log is None else log
        self.name = name
        self.state = state or {}

    def _note(self, phase):
        self.log.append(f"{self.name}{phase}")

    def before_train(self):
        self._note("before_train")

    def before_step(self):
        self._note("before_step")

    def after_backward(self):
        self._note("after_backward")

    def after_step(self):
        self._note("after_step")

    def after_train(self):
        self._note("after_train")

    def state_dict(self):
        return self.state

    def load_state_dict(self, state_dict):
        self.state = state_dict


class AfterTrain(HookBase):
    """Calls a function after training."""

    def __init__(self, function):
        self.after_train = function


class Evaluation(HookBase):
    """Stores the given values as scalar "bbox/AP", one in each iteration."""

    def __init__(self, values):
        self.values = values

    def after_step(self):
        value = self.values[self.trainer.iter]
        self.trainer.storage.put_scalar("bbox/AP", value, smoothing_hint=False)


def raising(error):
    def function():
        raise error

    return function


def messages(caplog, level=logging.WARNING):
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


def tree(value):
    """A checkpoint as engine.json describes it."""
    if isinstance(value, torch.Tensor):
        return f"Tensor[{','.join(map(str, value.shape))}] {str(value.dtype).split('.')[1]}"
    if isinstance(value, dict):
        return {str(k): tree(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [type(value).__name__, *map(tree, value)]
    return value


def assert_tree(actual, expected):
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key in expected:
            assert_tree(actual[key], expected[key])
    elif isinstance(expected, list):
        assert len(actual) == len(expected)
        for a, b in zip(actual, expected, strict=True):
            assert_tree(a, b)
    else:
        assert actual == (pytest.approx(expected) if isinstance(expected, float) else expected)


def hook_at(iteration, function):
    def before_step(trainer):
        if trainer.iter == iteration:
            function()

    return hooks.CallbackHook(before_step=before_step)
