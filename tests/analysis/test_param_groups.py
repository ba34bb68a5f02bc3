"""The table of parameter groups."""

import torch
from config_files import load_stem
from torch import nn

from mimdet.analysis.param_groups import (
    describe_param_groups,
    param_group_table,
    param_groups_of_config,
)


def model_and_optimizer() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.ModuleDict(
        {"body": nn.Linear(3, 5), "head": nn.Linear(5, 2), "free": nn.Bilinear(1, 1, 1)}
    )
    groups = [
        {"params": [model.body.weight, model.body.bias], "lr": 0.01, "weight_decay": 0.5},
        {"params": model.head.parameters()},
    ]
    return model, torch.optim.AdamW(groups, lr=0.1, weight_decay=0.2)


def test_groups_have_their_rate_factor_decay_and_tensors():
    groups, rest = describe_param_groups(*model_and_optimizer())
    assert [(g.lr, round(g.factor, 9), g.weight_decay) for g in groups] == [
        (0.01, 0.1, 0.5),
        (0.1, 1.0, 0.2),
    ]
    assert [g.parameters for g in groups] == [
        {"body.weight": 15, "body.bias": 5},
        {"head.weight": 10, "head.bias": 2},
    ]
    assert rest.parameters == {"free.weight": 1, "free.bias": 1}


def test_table_counts_tensors_and_parameters_and_shows_what_is_not_trained():
    table = param_group_table(*describe_param_groups(*model_and_optimizer()))
    rows = [line.split() for line in table.splitlines()[1:]]
    assert rows == [
        ["0", "0.01", "0.1", "0.5", "2", "20", "body.weight"],
        ["1", "0.1", "1", "0.2", "2", "12", "head.weight"],
        ["all", "4", "32"],
        ["none", "0", "0", "0", "2", "2", "free.weight"],
    ]


def test_names_are_listed_below_their_group():
    table = param_group_table(*describe_param_groups(*model_and_optimizer()), with_names=True)
    lines = table.splitlines()
    assert lines[2:4] == ["    body.weight", "    body.bias"]
    assert lines[-2:] == ["    free.weight", "    free.bias"]


def test_a_config_is_described_with_every_parameter_in_one_place():
    groups, rest = param_groups_of_config(load_stem("mimdet_mask_rcnn_fpn_sr_0p5_toy"))
    names = [name for group in [*groups, rest] for name in group.parameters]
    assert len(names) == len(set(names)) > 100
    assert list(rest.parameters) == [
        "backbone.bottom_up.encoder.pos_embed",
        "backbone.bottom_up.decoder.decoder_pos_embed",
    ]
