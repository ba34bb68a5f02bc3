"""The optimizer of a run: one kernel on CUDA, and any checkpoint goes into it."""

import copy

import pytest
import torch
from torch import nn

from detectron2.config import LazyCall as L
from mimdet.engine.optimizer import build_optimizer


class Recorded(torch.optim.SGD):
    """An optimizer that says which kernel it was asked for."""

    def __init__(self, params, fused=None, **options):
        self.fused = fused
        super().__init__(params, **options)


def parameters_of(model: nn.Module) -> list[nn.Parameter]:
    return list(model.parameters())


def call(target, **options):
    return L(target)(params=L(parameters_of)(), lr=0.1, **options)


@pytest.mark.parametrize(
    "is_cuda, chosen, used",
    [(True, None, True), (False, None, None), (True, False, False), (False, True, True)],
)
def test_one_kernel_is_used_on_cuda_unless_the_config_says_otherwise(
    is_cuda, chosen, used, monkeypatch
):
    model = nn.Linear(2, 2)
    monkeypatch.setattr(nn.Parameter, "is_cuda", is_cuda, raising=False)
    assert build_optimizer(call(Recorded, fused=chosen), model).fused is used


def test_an_optimizer_without_such_a_kernel_is_made_as_the_config_says():
    optimizer = build_optimizer(call(torch.optim.SGD), nn.Linear(2, 2))
    assert optimizer.defaults["fused"] is None
    optimizer.load_state_dict(optimizer.state_dict())


def trained(fused: bool | None, model: nn.Module, state: dict | None = None):
    optimizer = build_optimizer(call(torch.optim.AdamW, fused=fused), model)
    if state:
        optimizer.load_state_dict(copy.deepcopy(state))
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(1, 4)).square().sum().backward()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("before, after", [(None, True), (True, None)])
def test_a_run_goes_on_with_the_kernel_of_its_own_config(before, after):
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    state = trained(before, model).state_dict()
    expected = copy.deepcopy(model)
    trained(before, expected, state)
    assert trained(after, model, state).param_groups[0]["fused"] is after
    assert state["param_groups"][0]["fused"] is before  # what was loaded is not changed
    torch.testing.assert_close(model.state_dict(), expected.state_dict())
