"""Detector heads with layer normalisation, as detectors trained in mmdet have them."""

from typing import Any

from torch import nn

from detectron2.layers import get_norm
from detectron2.layers.batch_norm import LayerNorm
from detectron2.modeling.proposal_generator import StandardRPNHead


def layer_norm_1e5(channels: int) -> nn.Module:
    """Detectron2's layer norm for maps with eps 1e-5, the default in mmcv; its own is 1e-6."""
    return LayerNorm(channels, eps=1e-5)


class NormedRPNHead(StandardRPNHead):
    """RPN head whose 3x3 convolutions are normalised, and have no bias.

    Args:
        norm: the norm, see `detectron2.layers.get_norm`.
        **kwargs: those of StandardRPNHead.

    Reference:
        Wu and He 2018, arXiv 1803.08494, section 4.2, for normalised heads. Below each convolution
        its norm is called `norm`.
    """

    def __init__(self, *, norm: Any, **kwargs):
        super().__init__(**kwargs)
        for conv in [self.conv] if isinstance(self.conv, nn.Conv2d) else self.conv:
            conv.bias = None
            conv.norm = get_norm(norm, conv.out_channels)
