"""Calls of a config as flat values, with the defaults of every argument that is left out."""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from detectron2.layers import get_norm
from detectron2.utils.registry import locate
from mimdet.data.lvis import get_lvis_v1_cls_weights

_NORMS = ("norm", "conv_norm", "pcm_norm", "norm_layer")
_LOSSES = {
    "RPN": ("loss_rpn_cls", "loss_rpn_loc"),
    "FastRCNNOutputLayers": ("loss_cls", "loss_box_reg"),
}


def target_of(call: Mapping) -> Callable:
    """What a call of a config calls; a saved config has its name."""
    return locate(call["_target_"]) if isinstance(call["_target_"], str) else call["_target_"]


def arguments_of(call: Mapping) -> dict[str, Any]:
    """Argument -> value, defaults included."""
    given = {name: call[name] for name in call if name != "_target_"}
    return (_defaults(target_of(call)) if "_target_" in call else {}) | given


def _defaults(target: Callable) -> dict[str, Any]:
    makers = [target]
    if isinstance(target, type):
        makers = [vars(cls)["__init__"] for cls in target.__mro__ if "__init__" in vars(cls)]
    found: dict[str, Any] = {}
    for maker in makers:
        parameters = inspect.signature(maker).parameters.values()
        found = {p.name: p.default for p in parameters if p.default is not p.empty} | found
        # `**kwargs` hands the rest on to the constructor of the next class
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def flatten(prefix: str, node: Any) -> Iterator[tuple[str, Any]]:
    """The values below a config node, each with its dotted key; of calls also the `type`."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield f"{prefix}.type", target_of(node).__name__
        for name, value in arguments_of(node).items():
            yield from _flatten_argument(f"{prefix}.{name}", name, value, node)
    elif _is_list(node) and any(isinstance(x, Mapping) for x in node):
        for i, value in enumerate(node):
            yield from flatten(f"{prefix}.{i}", value)
    else:
        yield prefix, plain_value(node)


def _flatten_argument(key: str, name: str, value: Any, call: Mapping) -> Iterator[tuple[str, Any]]:
    """One argument of a call, in the words of the golden file where it has its own."""
    kind = target_of(call).__name__ if "_target_" in call else ""
    if name in _NORMS and kind != "TimmBackbone":  # whose norm says which of timm's are used
        yield key, norm_text(value, call.get("norm_eps"))
    elif name == "loss_weight" and kind in _LOSSES:
        for loss in _LOSSES[kind]:
            yield f"{key}.{loss}", value.get(loss, 1.0) if isinstance(value, Mapping) else value
    elif name == "get_fed_loss_cls_weights" and value is not None:
        yield f"{key}.power_of_image_count", _power_of_image_count(value)
    elif name == "short_edge_length":
        yield key, list(value) if _is_list(value) else [value]
    elif name == "max_size" and value == sys.maxsize:
        return
    else:
        yield from flatten(key, value)


def norm_text(norm: Any, eps: float | None = None) -> str:
    """What a normalisation builds: class, eps and, of batch norms, momentum and statistics.

    Args:
        norm: as `detectron2.layers.get_norm` takes it.
        eps: that the caller of `get_norm` sets afterwards.
    """
    layer = get_norm(norm, 32)
    if layer is None:
        return "none"
    text = f"{type(layer).__name__} eps={layer.eps if eps is None else eps}"
    if isinstance(layer, nn.modules.batchnorm._NormBase):
        text += f" momentum={layer.momentum}"
    mode = getattr(layer, "_stats_mode", None)
    return text if mode is None else f"{text} stats_mode={mode}"


def _power_of_image_count(weights: Callable[[], torch.Tensor]) -> float:
    """The p for which these weights are the numbers of LVIS v1's images to the power of p."""
    counts, powers = get_lvis_v1_cls_weights(power=1.0), weights()
    power = round((powers.log().sum() / counts.log().sum()).item(), 3)
    torch.testing.assert_close(powers, counts**power, rtol=1e-5, atol=0)
    return power


def plain_value(value: Any) -> Any:
    """Lists for tuples and list configs, the bare name of a class, anything else as it is."""
    if _is_list(value):
        return [plain_value(x) for x in value]
    return value.__name__ if isinstance(value, type) else value


def _is_list(node: Any) -> bool:
    return OmegaConf.is_list(node) or isinstance(node, list | tuple)
