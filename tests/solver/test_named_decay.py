"""Weight decay by names: two groups, and a pattern without effect."""

import pytest
from torch import nn

from mimdet.solver.param_groups import get_named_decay_parameters


def model() -> nn.Module:
    net = nn.ModuleDict(
        {"conv": nn.Conv2d(1, 1, 1), "norm1": nn.LayerNorm(1), "old": nn.Linear(1, 1)}
    )
    net["old"].requires_grad_(False)
    return net


def test_what_is_named_is_spared_and_the_rest_is_decayed():
    net = model()
    decayed, spared = get_named_decay_parameters(net, 0.05, ["norm*"])
    assert decayed == {"params": [net["conv"].weight, net["conv"].bias], "weight_decay": 0.05}
    assert spared == {"params": [net["norm1"].weight, net["norm1"].bias], "weight_decay": 0.0}


@pytest.mark.parametrize("pattern", ["relative*", "old.*"])
def test_a_pattern_that_matches_nothing_trained_is_refused(pattern):
    with pytest.raises(
        ValueError, match="must match a parameter, and '.*' matches none .optimizer"
    ):
        get_named_decay_parameters(model(), 0.05, [pattern])
