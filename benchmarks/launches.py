"""What would be launched on a GPU, and how often the host would wait for it, counted on a CPU.

On the CPU nothing waits; counted are the operators that would on a GPU: those whose result has a
size that depends on values, and numbers that the host reads. Copies between both are not seen.
"""

import collections
import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from detectron2.modeling import box_regression, matcher, sampling
from detectron2.modeling.proposal_generator import proposal_utils
from detectron2.structures import boxes

_WAITS = {"nonzero", "_local_scalar_dense", "nms", "bincount", "masked_select", "_unique2"}
# They compute nothing.
_VIEWS = set(
    "alias as_strided detach expand permute select slice split split_with_sizes squeeze t "
    "transpose unbind unsqueeze view _unsafe_view unfold empty empty_like new_empty".split()
)


class Launches(TorchDispatchMode):
    """Counts operators, and those for which the host waits.

    Attributes:
        operators: their number by part, "" for all that is in none of `parts`; views are none.
        waits: their number by the name of the operator.

    Args:
        parts: networks whose forward passes are told apart, by name.
    """

    def __init__(self, **parts: nn.Module):
        super().__init__()
        self.operators: collections.Counter[str] = collections.Counter()
        self.waits: collections.Counter[str] = collections.Counter()
        self._part = ""
        self._parts = parts
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Launches":
        for name, part in self._parts.items():
            before = part.register_forward_pre_hook(lambda *_, name=name: self._set_part(name))
            after = part.register_forward_hook(lambda *_: self._set_part(""))
            self._stack.callback(before.remove)
            self._stack.callback(after.remove)
        read = Tensor.tolist  # on the CPU it dispatches no operator

        def tolist(tensor: Tensor) -> Any:
            self.waits["tolist"] += 1
            return read(tensor)

        self._stack.enter_context(mock.patch.object(Tensor, "tolist", tolist))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stack.close()

    def _set_part(self, name: str) -> None:
        self._part = name

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.split("::")[1]
        by_bools = name == "index" and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if by_bools or name in _WAITS:
            self.waits[name] += 1
        self.operators[self._part] += name not in _VIEWS
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """The ways that detectron2-lite takes on a GPU, whose checks of values wait there for none."""
    with contextlib.ExitStack() as stack:
        for module in (matcher, boxes, box_regression):
            stack.enter_context(mock.patch.object(module, "assert_all", lambda *args: None))
        for module in (sampling, proposal_utils):
            stack.enter_context(mock.patch.object(module, "is_on_cpu", lambda tensor: False))
        yield
