"""The network between pooled region features and the Fast R-CNN predictor."""

import math
from collections.abc import Sequence

from fvcore.nn import weight_init
from torch import nn

from detectron2.layers import Conv2d, Linear, ShapeSpec
from detectron2.layers.batch_norm import Norm
from detectron2.layers.blocks import conv_with_norm


class FastRCNNConvFCHead(nn.Sequential):
    """3x3 convolutions, each with its norm and ReLU, then fully connected layers with ReLU.

    Maps (R, C, H, W) to (R, last of `fc_dims`), or to (R, last of `conv_dims`, H, W) without
    fully connected layers.

    Args:
        input_shape: channels, height and width of the pooled features.
        conv_dims: output channels of each convolution.
        fc_dims: output size of each fully connected layer.
        conv_norm: norm after each convolution, see `get_norm`; convolutions have a bias only
            without one.

    Raises:
        AssertionError: there is no layer at all.
    """

    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        conv_dims: Sequence[int],
        fc_dims: Sequence[int],
        conv_norm: Norm = "",
    ):
        super().__init__()
        assert len(conv_dims) + len(fc_dims) > 0, (
            "FastRCNNConvFCHead needs at least one entry in conv_dims or fc_dims"
        )
        channels, height, width = input_shape.channels, input_shape.height, input_shape.width
        for k, dim in enumerate(conv_dims, start=1):
            conv = conv_with_norm(channels, dim, 3, conv_norm, fill=None, activation=nn.ReLU())
            self.add_module(f"conv{k}", conv)
            channels = dim
        self._output_shape = ShapeSpec(channels=channels, height=height, width=width)
        if fc_dims:
            self._append_fully_connected(math.prod((channels, height, width)), fc_dims)
        for layer in self:
            if isinstance(layer, Conv2d):
                weight_init.c2_msra_fill(layer)
            elif isinstance(layer, Linear):
                weight_init.c2_xavier_fill(layer)

    def _append_fully_connected(self, in_features: int, fc_dims: Sequence[int]) -> None:
        self.add_module("flatten", nn.Flatten())
        for k, dim in enumerate(fc_dims, start=1):
            self.add_module(f"fc{k}", Linear(in_features, dim))
            self.add_module(f"fc_relu{k}", nn.ReLU())
            in_features = dim
        self._output_shape = ShapeSpec(channels=in_features)

    @property
    def output_shape(self) -> ShapeSpec:
        """Channels of the output, and height and width where it is a map."""
        return self._output_shape
