"""Initial weights of transformers."""

import pytest
import torch
from torch import nn

from mimdet.layers.init import init_linear, init_transformer_weights


def test_maes_initialisation_is_xavier_for_linear_and_identity_for_layer_norm():
    torch.manual_seed(0)
    linear, norm = nn.Linear(100, 50), nn.LayerNorm(4)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    nn.Sequential(linear, nn.Linear(3, 3, bias=False), norm).apply(init_transformer_weights)
    bound = (6 / (100 + 50)) ** 0.5  # Xavier: uniform in +- sqrt(6 / (fan in + fan out))
    assert 0.99 * bound < linear.weight.abs().max() <= bound
    assert not linear.bias.any()
    assert norm.weight.tolist() == [1] * 4 and norm.bias.tolist() == [0] * 4


def test_linear_initialisation_is_normal_within_two_units_without_bias():
    torch.manual_seed(0)
    linear = nn.Linear(100, 50)
    nn.Sequential(linear, nn.Linear(3, 3, bias=False)).apply(init_linear)
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert linear.weight.abs().max() <= 2
    assert not linear.bias.any()


@pytest.mark.parametrize("init", [init_transformer_weights, init_linear])
def test_initialisation_leaves_other_modules_alone(init):
    convolution = nn.Conv2d(3, 4, 3)
    before = [p.clone() for p in convolution.parameters()]
    convolution.apply(init)
    assert all(torch.equal(a, b) for a, b in zip(before, convolution.parameters(), strict=True))
