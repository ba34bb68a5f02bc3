"""Optimiser parameter groups: who learns how fast, and what is decayed."""

import fnmatch
from collections.abc import Callable, Iterable
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
    lr_factor_func: Callable[[str], float] | None = None,
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
        lr_factor_func: further factor on the learning rate as a function of the parameter's name,
            such as the layer-wise decay of `mimdet.solver.layer_decay`; None for none, as in the
            released configurations.

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
        # First: the stem's names begin as the rest of the encoder's do.
        if name.startswith(_STEM):
            lr = base_lr
        else:
            lr = base_lr / multiplier if name.startswith(_ENCODER) else base_lr * multiplier
        if lr_factor_func is not None:
            lr *= lr_factor_func(name)
        if parameter.ndim <= 1 or name.endswith(".bias") or name.split(".")[-1] in skipped:
            decay = 0.0
        else:
            decay = weight_decay_norm if "norm" in name else weight_decay
        group = {"params": [], "lr": lr, "weight_decay": decay}
        groups.setdefault((lr, decay), group)["params"].append(parameter)
    return list(groups.values())


def get_named_decay_parameters(
    model: nn.Module, weight_decay: float, no_decay: Iterable[str]
) -> list[dict[str, Any]]:
    """Two groups of one learning rate: what is decayed, and what is named otherwise.

    Args:
        model: the detector.
        weight_decay: for all that `no_decay` does not match, biases and norms included.
        no_decay: `fnmatch` patterns of parameter names.

    Returns:
        Groups ``{"params", "weight_decay"}``, the decayed one first; frozen ones are left out.

    Raises:
        ValueError: if a pattern matches no parameter.
    """
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    spared: set[str] = set()
    for pattern in no_decay:
        matching = fnmatch.filter(named, pattern)
        if not matching:
            raise ValueError(
                f"every pattern of names without weight decay must match a parameter, and "
                f"{pattern!r} matches none (optimizer.params.no_decay)"
            )
        spared.update(matching)
    return [
        {"params": [p for n, p in named.items() if n not in spared], "weight_decay": weight_decay},
        {"params": [p for n, p in named.items() if n in spared], "weight_decay": 0.0},
    ]
