"""What the heads of semantic segmentation are made of."""

from collections.abc import Callable

import torch.nn.functional as F
from fvcore.nn.weight_init import c2_msra_fill
from torch import Tensor, nn

from detectron2.layers import Conv2d, get_norm

Norm = str | Callable[[int], nn.Module]


def conv_unit(in_channels: int, out_channels: int, kernel_size: int, norm: Norm) -> Conv2d:
    """A convolution that keeps the size of its map, a norm, and ReLU.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd side of the kernel.
        norm: see `detectron2.layers.get_norm`.
    """
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        padding=kernel_size // 2,
        bias=False,
        norm=get_norm(norm, out_channels),
        activation=F.relu,
    )
    c2_msra_fill(conv)  # He et al. 2015, over the outputs
    return conv


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) -> (B, C, *size), bilinearly; the input itself if it has that size."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class PixelClassifier(nn.Module):
    """The end of a head: dropout of whole channels, and a linear classifier at every place.

    A subclass computes the map that `classify` takes.

    Args:
        channels: of that map.
        num_classes: K.
        dropout: probability with which a channel of an image is dropped in training.
    """

    def __init__(self, channels: int, num_classes: int, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, num_classes, kernel_size=1)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)

    def classify(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> logits (B, K, h, w)."""
        return self.conv_seg(self.dropout(x))
