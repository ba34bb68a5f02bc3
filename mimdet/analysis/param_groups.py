"""Which parameter of a model learns how fast and how much it is decayed, as a table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from omegaconf import DictConfig
from torch import nn

from detectron2.config import instantiate


@dataclass(frozen=True)
class ParamGroup:
    """Parameters that are trained alike.

    Attributes:
        lr: learning rate before the schedule's multiplier; 0 for what is not trained.
        factor: `lr` as a multiple of the optimizer's.
        weight_decay: share of a weight that is taken off per unit of learning rate.
        parameters: number of elements by name of the tensor.
    """

    lr: float
    factor: float
    weight_decay: float
    parameters: dict[str, int]


def param_groups_of_config(cfg: DictConfig) -> tuple[list[ParamGroup], ParamGroup]:
    """The groups of the optimizer that a config makes, and what it does not train.

    The model is built without memory for its weights.

    Args:
        cfg: a config with `model` and `optimizer`; the model is put into its `optimizer.params`.
    """
    with torch.device("meta"):
        model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    return describe_param_groups(model, instantiate(cfg.optimizer))


def describe_param_groups(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[list[ParamGroup], ParamGroup]:
    """The groups of an optimizer in its order, and what it does not train.

    Args:
        model: the model, which gives the names.
        optimizer: of parameters of `model`.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    base_lr = optimizer.defaults["lr"]
    groups = [
        ParamGroup(
            group["lr"],
            group["lr"] / base_lr,
            group["weight_decay"],
            # Popped, so that what is left is what no group trains.
            {names.pop(parameter): parameter.numel() for parameter in group["params"]},
        )
        for group in optimizer.param_groups
    ]
    return groups, ParamGroup(0.0, 0.0, 0.0, {name: p.numel() for p, name in names.items()})


def param_group_table(
    groups: Sequence[ParamGroup], rest: ParamGroup, with_names: bool = False
) -> str:
    """Lay the result of `describe_param_groups` out as text.

    Args:
        groups: what is trained.
        rest: what is not.
        with_names: list the tensors of each group below it.
    """
    lines = [
        _line("group", "lr", "factor", "weight decay", "tensors", "parameters", "first tensor")
    ]
    for number, group in enumerate(groups):
        lines.append(_group_line(str(number), group))
        if with_names:
            lines += [f"    {name}" for name in group.parameters]
    trained = {name: n for group in groups for name, n in group.parameters.items()}
    lines.append(_line("all", "", "", "", len(trained), f"{sum(trained.values()):,}", ""))
    if rest.parameters:
        lines.append(_group_line("none", rest))
        if with_names:
            lines += [f"    {name}" for name in rest.parameters]
    return "\n".join(lines)


def _group_line(title: str, group: ParamGroup) -> str:
    return _line(
        title,
        f"{group.lr:.4g}",
        f"{group.factor:.4g}",
        f"{group.weight_decay:g}",
        len(group.parameters),
        f"{sum(group.parameters.values()):,}",
        next(iter(group.parameters), ""),
    )


def _line(*cells: Iterable) -> str:
    return "{:>5}  {:>10}  {:>9}  {:>12}  {:>7}  {:>13}  {}".format(*cells).rstrip()
