"""Optimiser parameter groups: who learns how fast, and what is decayed."""

from collections.abc import Iterable
from typing import Any

from torch import nn

_ENCODER = "backbone.bottom_up.encoder."
_STEM = _ENCODER + "patch_embed."


def get_fpn_model_parameters(
    model: nn.Module,
    weight_decay: float = 1e-5,
    weight_decay_norm: float = 0.0,
    base_lr: float = 4e-5,
    skip_list: Iterable[str] = (),
    multiplier: float = 1.5,
) -> list[dict[str, Any]]:
    """Parameter groups of MIMDet, which learns at three speeds.

    The stem learns at `base_lr`; the pretrained rest of the encoder slower, at
    ``base_lr / multiplier``; decoder, FPN and heads faster, at ``base_lr * multiplier``.
    Biases, 1-D tensors and the names of `skip_list` are not decayed; frozen ones are left out.

    Args:
        model: the detector.
        weight_decay: for weights.
        weight_decay_norm: for tensors with more than one dimension whose name contains "norm".
        base_lr: learning rate of the stem.
        skip_list: last components of parameter names that are not decayed, such as "pos_embed".
        multiplier: ratio between the speeds, above 0.

    Returns:
        Groups ``{"params", "lr", "weight_decay"}``, one per distinct (lr, weight_decay), in order
        of first appearance in ``model.named_parameters()``.

    Reference:
        Fang et al. 2022, arXiv 2204.02964; factors as in its released configurations.
    """
    skipped = set(skip_list)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith(_STEM):
            lr = base_lr
        else:
            lr = base_lr / multiplier if name.startswith(_ENCODER) else base_lr * multiplier
        if parameter.ndim <= 1 or name.endswith(".bias") or name.split(".")[-1] in skipped:
            decay = 0.0
        else:
            decay = weight_decay_norm if "norm" in name else weight_decay
        group = {"params": [], "lr": lr, "weight_decay": decay}
        groups.setdefault((lr, decay), group)["params"].append(parameter)
    return list(groups.values())


def get_vit_lr_decay_rate(name: str, lr_decay_rate: float = 1.0, num_layers: int = 12) -> float:
    """Learning-rate factor of a parameter under the layer-wise decay of ViTDet.

    The deeper a part of the ViT, the faster it learns: position table and patch projection have
    layer 0, block i has layer i + 1; pyramid, heads and the convolutions that carry information
    across windows (`residual`) are above the last and have factor 1. For use as
    `lr_factor_func` of Detectron2's `get_default_optimizer_params`.

    Args:
        name: dotted name of the parameter in the bare model; with the ``module.`` of a
            distributed wrapper in front nothing would be recognised.
        lr_decay_rate: factor from one layer to the one below, in (0, 1].
        num_layers: blocks of the ViT.

    Returns:
        ``lr_decay_rate ** (num_layers + 1 - layer)``.

    Reference:
        Bao et al. 2021, arXiv 2106.08254, as applied by Li et al. 2022, arXiv 2203.16527.
    """
    layer = num_layers + 1
    if name.startswith("backbone"):
        if ".pos_embed" in name or ".patch_embed" in name:
            layer = 0
        elif ".blocks." in name and ".residual." not in name:
            layer = int(name.split(".blocks.")[1].split(".")[0]) + 1
    return lr_decay_rate ** (num_layers + 1 - layer)
