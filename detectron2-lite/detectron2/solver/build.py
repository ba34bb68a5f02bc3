"""Parameter groups with their own learning rate and weight decay."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

# Only torch's own types: FrozenBatchNorm2d and the channels-first LayerNorm (norm="LN") are left
# out, so weight_decay_norm does not reach them. Published recipes were trained that way.
_NORM_TYPES = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


def get_default_optimizer_params(
    model: nn.Module,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    bias_lr_factor: float | None = 1.0,
    weight_decay_bias: float | None = None,
    lr_factor_func: Callable[[str], float] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Parameter groups of a model for a torch optimizer.

    Frozen parameters are left out, and a parameter that several modules share counts once. The
    settings of a parameter are found in this order, later ones win: `base_lr` and `weight_decay`;
    `weight_decay_norm`; `lr_factor_func`; `overrides` (which the bias settings are part of).
    Parameters with equal settings share one group; groups come in order of first appearance.

    Args:
        model: the model to train.
        base_lr: learning rate; None leaves it to the optimizer.
        weight_decay: weight decay; None leaves it to the optimizer.
        weight_decay_norm: weight decay of torch's normalisation layers. It does not reach
            `detectron2.layers.batch_norm.LayerNorm` (norm "LN") nor other libraries' layers.
        bias_lr_factor: factor on the learning rate of every parameter named `bias`, those of
            normalisation layers included.
        weight_decay_bias: weight decay of every parameter named `bias`; wins over
            `weight_decay_norm`.
        lr_factor_func: factor on `base_lr` as a function of "module.parameter". The name of a
            parameter of the model itself starts with a dot, as in ".pos_embed".
        overrides: settings by the last part of a parameter name, as in
            `{"pos_embed": {"weight_decay": 0.0}}`. Not changed.

    Returns:
        List of dicts, each with the settings and `params`, the list of parameters.

    Raises:
        ValueError: a learning-rate factor without `base_lr`, or settings for "bias" both by
            argument and in `overrides`.
    """
    overrides = _with_bias(overrides or {}, base_lr, bias_lr_factor, weight_decay_bias)
    if lr_factor_func is not None and base_lr is None:
        raise ValueError("lr_factor_func needs base_lr, got None")

    defaults = {"lr": base_lr, "weight_decay": weight_decay}
    defaults = {key: value for key, value in defaults.items() if value is not None}
    groups: list[dict[str, Any]] = []
    for module, module_name, name, parameter in _trainable_parameters(model):
        settings = dict(defaults)
        if isinstance(module, _NORM_TYPES) and weight_decay_norm is not None:
            settings["weight_decay"] = weight_decay_norm
        if lr_factor_func is not None:
            settings["lr"] *= lr_factor_func(f"{module_name}.{name}")
        settings.update(overrides.get(name, {}))
        _add_to_group(groups, settings, parameter)
    return groups


def _with_bias(
    overrides: Mapping[str, Mapping[str, Any]],
    base_lr: float | None,
    bias_lr_factor: float | None,
    weight_decay_bias: float | None,
) -> dict[str, Mapping[str, Any]]:
    """A copy of `overrides` with what the bias arguments ask for, if anything, as "bias"."""
    bias = {}
    if bias_lr_factor not in (None, 1.0):
        if base_lr is None:
            raise ValueError(f"bias_lr_factor={bias_lr_factor} needs base_lr, got None")
        bias["lr"] = base_lr * bias_lr_factor
    if weight_decay_bias is not None:
        bias["weight_decay"] = weight_decay_bias
    if not bias:
        return dict(overrides)
    if "bias" in overrides:
        raise ValueError(
            "Conflicting overrides for 'bias': bias_lr_factor / weight_decay_bias give "
            f"{bias}, overrides give {overrides['bias']}; keep one of them"
        )
    return {**overrides, "bias": bias}


def _trainable_parameters(model: nn.Module) -> Iterator[tuple[nn.Module, str, str, nn.Parameter]]:
    """(owner, name of the owner, name in the owner, parameter), each parameter once."""
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield module, module_name, name, parameter


def _add_to_group(
    groups: list[dict[str, Any]], settings: dict[str, Any], parameter: nn.Parameter
) -> None:
    """Append `parameter` to the group with these settings, or to a new one."""
    for group in groups:
        if settings == {key: value for key, value in group.items() if key != "params"}:
            group["params"].append(parameter)
            return
    groups.append({**settings, "params": [parameter]})
