"""Layer-wise learning-rate decay against upstream Detectron2's factors."""

import golden_data
import pytest

from mimdet.solver.param_groups import get_vit_lr_decay_rate


def test_factors_equal_those_of_the_reference():
    case = golden_data.load("solver")[1]["vit_lr_decay"]
    for name, factor in case["per_name"].items():
        actual = get_vit_lr_decay_rate(name, case["lr_decay_rate"], case["num_layers"])
        assert actual == pytest.approx(factor, rel=1e-12), name


def test_convolutions_between_windows_learn_at_full_speed():
    assert get_vit_lr_decay_rate("backbone.net.blocks.3.residual.conv1.weight", 0.5, 4) == 1.0


def test_without_decay_every_factor_is_one():
    assert get_vit_lr_decay_rate("backbone.net.pos_embed") == 1.0
