"""A small fully convolutional head, to train a backbone from below."""

from collections.abc import Sequence

from torch import Tensor, nn

from mimdet.modeling.segmentation.head import Norm, PixelClassifier, conv_unit


class FCNHead(PixelClassifier):
    """Logits from one of several maps.

    Args:
        in_channels: channels of that map.
        channels: of the maps within the head.
        num_classes: K.
        in_index: place of the map among the features; -1 for the last, the coarsest.
        num_convs: 3x3 convolutions before the classifier, at least one.
        dropout: see `PixelClassifier`.
        norm: of the convolutions, see `detectron2.layers.get_norm`.

    Reference:
        Long et al. 2015, arXiv 1411.4038; as auxiliary head Zhao et al. 2017, arXiv 1612.01105,
        section 3.3.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_classes: int,
        *,
        in_index: int = -1,
        num_convs: int = 1,
        dropout: float = 0.1,
        norm: Norm = "SyncBN",
    ):
        super().__init__(channels, num_classes, dropout)
        self.in_index = in_index
        widths = [in_channels] + [channels] * num_convs
        self.convs = nn.Sequential(
            *(conv_unit(a, b, 3, norm) for a, b in zip(widths, widths[1:], strict=False))
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """(B, C_i, h_i, w_i) of all maps -> (B, K, h, w) of the one at `in_index`."""
        return self.classify(self.convs(features[self.in_index]))
