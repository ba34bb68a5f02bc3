"""The layer rule of the segmentor against the released system."""

import torch
from segmentation_models import build, load, published_name

from mimdet.solver.layer_decay import get_layer_lr_decay_rate, segmentor_layer


def test_factors_of_all_parameters_are_those_of_the_released_system():
    expected = load("optim_groups_vit_base.json.gz")
    with torch.device("meta"):
        names = [name for name, _ in build({}).named_parameters()]
    found = {
        published_name(name): get_layer_lr_decay_rate(
            name, segmentor_layer, expected["layer_decay"], expected["num_layers"]
        )
        for name in names
    }
    factors = {name: factor for name, factor, *_ in expected["parameters"]}
    assert found.keys() == factors.keys() and len(found) == 235
    assert all(abs(found[name] - factor) <= 1e-12 for name, factor in factors.items())
