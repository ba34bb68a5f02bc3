from collections.abc import Callable
from typing import Any

from fvcore.nn import weight_init
from torch import Tensor, nn

from detectron2.layers.batch_norm import FrozenBatchNorm2d, Norm, get_norm
from detectron2.layers.wrappers import Conv2d


class CNNBlockBase(nn.Module):
    """A block of a convolutional backbone, which knows its shape and can be frozen.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: input pixels per output pixel.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride

    def freeze(self) -> "CNNBlockBase":
        """Stop training this block: no gradients, batch norms replaced by frozen ones.

        Returns:
            The block itself.
        """
        for parameter in self.parameters():
            parameter.requires_grad = False
        FrozenBatchNorm2d.convert_frozen_batchnorm(self)
        return self


class DepthwiseSeparableConv2d(nn.Module):
    """A convolution per channel (`depthwise`), then a 1x1 convolution across them (`pointwise`).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: of the depthwise convolution.
        padding: of the depthwise convolution.
        dilation: of the depthwise convolution.
        norm1: what `get_norm` takes, for the depthwise convolution, which has a bias without it.
        activation1: applied after the depthwise convolution.
        norm2: as `norm1`, for the pointwise convolution.
        activation2: applied after the pointwise convolution.

    Reference: Chollet 2016, arXiv 1610.02357.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        padding: int = 1,
        dilation: int = 1,
        *,
        norm1: Norm = None,
        activation1: Callable[[Tensor], Tensor] | None = None,
        norm2: Norm = None,
        activation2: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        depthwise = {"padding": padding, "dilation": dilation, "groups": in_channels}
        self.depthwise = conv_with_norm(
            *(in_channels, in_channels, kernel_size, norm1), activation=activation1, **depthwise
        )
        self.pointwise = conv_with_norm(in_channels, out_channels, 1, norm2, activation=activation2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H', W')."""
        return self.pointwise(self.depthwise(x))


def conv_with_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    norm: Norm,
    *,
    fill: Callable[[nn.Module], None] | None = weight_init.c2_msra_fill,
    **kwargs: Any,
) -> Conv2d:
    """A `Conv2d` with its norm built, initialised by `fill`, or as torch does it.

    Unless `kwargs` say otherwise, it has a bias only without norm, and is padded so that a map
    keeps its size at stride 1.
    """
    padding = kwargs.get("dilation", 1) * (kernel_size // 2)
    kwargs = {"padding": padding, "bias": not norm, "norm": get_norm(norm, out_channels)} | kwargs
    conv = Conv2d(in_channels, out_channels, kernel_size, **kwargs)
    if fill is not None:
        fill(conv)
    return conv
