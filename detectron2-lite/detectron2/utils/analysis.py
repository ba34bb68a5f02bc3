"""Counting floating point operations and parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

import fvcore.nn
import torch
from fvcore.nn import parameter_count, parameter_count_table
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from detectron2.structures import Instances

__all__ = ["FlopCountAnalysis", "flop_count_operators", "parameter_count", "parameter_count_table"]

# Element-wise operations, which cost next to nothing beside products; those that only move data
# fvcore leaves out by itself.
_FREE_OPERATORS = """
    add add_ avg_pool2d clamp div div_ exp fill_ gelu gelu_ log log2 max_pool2d maximum mean
    meshgrid minimum mul mul_ neg pad pow reciprocal rsqrt rsub sigmoid sigmoid_ softmax sort sqrt
    sub sub_ sum topk where
""".split()


class FlopCountAnalysis(fvcore.nn.FlopCountAnalysis):
    """fvcore's analysis of a model whose inputs and outputs are more than tensors.

    One multiply-add counts as one operation. Convolutions, linear layers, matrix products, norms
    and resizing count, element-wise operations do not. Modules are named as attributes of
    `model`: "model.backbone". The model runs once, in the mode it is in, without gradients.

    Args:
        model: any module.
        inputs: its positional arguments, for a detector `(batched_inputs,)`. Anything but a tuple
            is one argument.
    """

    def __init__(self, model: nn.Module, inputs: tuple | Any) -> None:
        adapter = _TensorAdapter(model, inputs if isinstance(inputs, tuple) else (inputs,))
        super().__init__(adapter, adapter.tensors)
        self.set_op_handle(**{f"aten::{name}": None for name in _FREE_OPERATORS})


def flop_count_operators(model: nn.Module, inputs: Sequence[dict] | tuple) -> dict[str, float]:
    """Count the operations of a forward pass in evaluation mode, by kind.

    Args:
        model: any module; comes back in the mode it was in.
        inputs: see `FlopCountAnalysis`; a detector takes its list of input dicts.

    Returns:
        Kind, such as "conv" or "linear" -> 1e9 multiply-adds.
    """
    training = [module for module in model.modules() if module.training]
    try:
        counts = FlopCountAnalysis(model.eval(), inputs).by_operator()
    finally:
        for module in training:
            module.training = True
    return {kind: count / 1e9 for kind, count in counts.items()}


class _TensorAdapter(nn.Module):
    """A model as a function of a few tensors that returns tensors, which is what tracing takes."""

    def __init__(self, model: nn.Module, inputs: tuple) -> None:
        super().__init__()
        self.model = model
        self._leaves, self._structure = pytree.tree_flatten(inputs)
        is_tensor = [isinstance(leaf, Tensor) for leaf in self._leaves]
        self._places = [i for i, yes in enumerate(is_tensor) if yes]
        self.tensors = tuple(self._leaves[i] for i in self._places)

    # frozen norms are one operator, which counts, only where no gradient is needed
    @torch.no_grad()
    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        leaves = list(self._leaves)
        for place, tensor in zip(self._places, tensors, strict=True):
            leaves[place] = tensor
        return tuple(_tensors_of(self.model(*pytree.tree_unflatten(leaves, self._structure))))


def _tensors_of(value: Any) -> list[Tensor]:
    """The tensors in what a detector returns."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Instances):
        value = value.get_fields()
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors_of(item)]
    return _tensors_of(getattr(value, "tensor", ()))  # boxes, masks, image lists
