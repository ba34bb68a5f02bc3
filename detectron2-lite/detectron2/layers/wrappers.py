from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ConvTranspose2d = nn.ConvTranspose2d
BatchNorm2d = nn.BatchNorm2d
Linear = nn.Linear
interpolate = F.interpolate


class Conv2d(nn.Conv2d):
    """A convolution that ends with its own normalisation and activation.

    Args:
        *args: what `torch.nn.Conv2d` takes.
        norm: a normalisation module, stored as submodule `norm`; None for none.
        activation: a function or module applied last; None for none.
        **kwargs: what `torch.nn.Conv2d` takes.
    """

    def __init__(
        self,
        *args: Any,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalise, activate.

        Args:
            x: (N, C, H, W); N may be 0.

        Returns:
            (N, out_channels, H', W').

        Raises:
            AssertionError: for an empty `x` in training with `torch.nn.SyncBatchNorm`, of which
                not every version and device can leave a process without input.
        """
        assert not (x.numel() == 0 and self.training and isinstance(self.norm, nn.SyncBatchNorm)), (
            f"SyncBatchNorm cannot train on an empty input, got {tuple(x.shape)}; "
            'use norm "naiveSyncBN_N" for layers that may see no regions'
        )
        x = super().forward(x)
        if self.norm is not None:
            x = self.norm(x)
        if self.activation is not None:
            x = self.activation(x)
        return x


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """`torch.cat` that returns a single tensor itself, without a copy.

    Args:
        tensors: a list or tuple of tensors.
        dim: the dimension along which they are joined.

    Raises:
        AssertionError: if `tensors` is neither a list nor a tuple.
    """
    assert isinstance(tensors, (list, tuple)), (
        f"cat needs a list or tuple of tensors, got {type(tensors).__name__}"
    )
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)


def cross_entropy(
    input: Tensor, target: Tensor, *, reduction: str = "mean", **kwargs: Any
) -> Tensor:
    """`F.cross_entropy` whose mean over no targets is 0, connected to the graph, and not NaN.

    Args:
        input: (N, K, ...) logits.
        target: (N, ...) class indices, or (N, K, ...) probabilities.
        reduction: "mean", "sum" or "none".
        **kwargs: further arguments of `F.cross_entropy`.
    """
    if target.numel() == 0 and reduction == "mean":
        return input.sum() * 0.0
    return F.cross_entropy(input, target, reduction=reduction, **kwargs)


def nonzero_tuple(x: Tensor) -> tuple[Tensor, ...]:
    """Indices of the nonzero elements of `x`, one (n,) tensor per dimension."""
    return x.nonzero(as_tuple=True)


def shapes_to_tensor(x: Sequence[int | Tensor], device: torch.device | str | None = None) -> Tensor:
    """The sizes `x` as one (len(x),) integer tensor on `device`."""
    return torch.as_tensor([int(size) for size in x], device=device)


def move_device_like(src: Tensor, dst: Tensor) -> Tensor:
    """`src` on the device of `dst`."""
    return src.to(dst.device)
