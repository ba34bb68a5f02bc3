"""The RPN head with norms, by hand; against the released one in tests/configs/test_vitae.py."""

import pytest
import torch
from golden_models import fill
from torch import nn

from detectron2.layers.batch_norm import LayerNorm
from detectron2.modeling.proposal_generator import StandardRPNHead
from mimdet.modeling.normed_heads import NormedRPNHead, layer_norm_1e5


def test_layer_norm_has_the_eps_of_its_name():
    norm = layer_norm_1e5(4)
    assert isinstance(norm, LayerNorm) and norm.eps == 1e-5
    x = torch.tensor([0.0, 0.0, 0.0, 4e-2])[None, :, None, None]  # mean 0.01, variance 3e-4
    expected = torch.tensor([-1.0, -1, -1, 3]) * 1e-2 / (3e-4 + 1e-5) ** 0.5
    torch.testing.assert_close(norm(x).flatten(), expected)


@pytest.mark.parametrize("conv_dims", [[-1], [-1, 6]])
def test_every_convolution_gets_the_norm_in_place_of_its_bias(conv_dims):
    arguments = dict(in_channels=8, num_anchors=3, conv_dims=conv_dims)
    plain = StandardRPNHead(**arguments).state_dict()
    normed = NormedRPNHead(norm="LN", **arguments).state_dict()
    convs = {name.rsplit(".", 1)[0] for name in plain if name.startswith("conv")}
    assert len(convs) == len(conv_dims)
    norms = {f"{conv}.norm.{leaf}" for conv in convs for leaf in ("weight", "bias")}
    assert normed.keys() == plain.keys() - {f"{conv}.bias" for conv in convs} | norms


def test_norm_comes_between_convolution_and_relu():
    head = fill(NormedRPNHead(norm=layer_norm_1e5, in_channels=8, num_anchors=3, conv_dims=[-1]))
    x = torch.randn(2, 8, 5, 4, generator=torch.Generator().manual_seed(0))
    hidden = nn.functional.conv2d(x, head.conv.weight, padding=1)
    hidden = head.conv.norm(hidden).relu()
    (logits,), (deltas,) = head([x])
    torch.testing.assert_close(logits, head.objectness_logits(hidden))
    torch.testing.assert_close(deltas, head.anchor_deltas(hidden))
