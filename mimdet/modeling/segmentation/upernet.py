"""UPerNet: a pyramid pooling module below a feature pyramid, fused at the finest map."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mimdet.modeling.segmentation.head import Norm, PixelClassifier, conv_unit, resize


class UPerNetHead(PixelClassifier):
    """Logits at the stride of the finest of several maps.

    Args:
        in_channels: channels of the maps, finest first.
        channels: of all maps within the head.
        num_classes: K.
        pool_scales: sides of the grids to which the coarsest map is pooled.
        dropout: see `PixelClassifier`.
        norm: of the convolutions, see `detectron2.layers.get_norm`.

    Reference:
        Xiao et al. 2018, arXiv 1807.10221, section 3.1, with pooling after Zhao et al. 2017
        (PSPNet), arXiv 1612.01105. Parameter names are mmsegmentation's, but for those within a
        convolution, which are Detectron2's.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        num_classes: int,
        *,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
        norm: Norm = "SyncBN",
    ):
        super().__init__(channels, num_classes, dropout)
        *finer, coarsest = in_channels
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), conv_unit(coarsest, channels, 1, norm))
            for scale in pool_scales
        )
        pooled = coarsest + len(pool_scales) * channels
        self.bottleneck = conv_unit(pooled, channels, 3, norm)
        self.lateral_convs = nn.ModuleList(conv_unit(c, channels, 1, norm) for c in finer)
        self.fpn_convs = nn.ModuleList(conv_unit(channels, channels, 3, norm) for _ in finer)
        self.fpn_bottleneck = conv_unit(len(in_channels) * channels, channels, 3, norm)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Compute logits.

        Args:
            features: (B, C_i, h_i, w_i), finest first.

        Returns:
            (B, K, h_0, w_0).

        Raises:
            ValueError: in training, if a batch norm gets one value per channel.
        """
        *finer, coarsest = features
        maps = [conv(x) for conv, x in zip(self.lateral_convs, finer, strict=True)]
        maps.append(self._pool(coarsest))
        # Coarsest first, so that a map gets what the one above it has gathered already.
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + resize(maps[i], maps[i - 1].shape[-2:])
        *finer, coarsest = maps
        maps = [conv(x) for conv, x in zip(self.fpn_convs, finer, strict=True)] + [coarsest]
        fused = torch.cat([resize(x, maps[0].shape[-2:]) for x in maps], dim=1)
        return self.classify(self.fpn_bottleneck(fused))

    def _pool(self, x: Tensor) -> Tensor:
        """The coarsest map with what is seen of it at several scales."""
        try:
            pooled = [resize(module(x), x.shape[-2:]) for module in self.psp_modules]
        except ValueError as error:  # torch's, of a batch norm over a single value
            raise ValueError(
                "UPerNet pools each image to one value per channel, which a batch norm cannot "
                f"normalise in training from {len(x)} image in one process ({error}); raise "
                "dataloader.train.total_batch_size, or set another norm"
            ) from error
        return self.bottleneck(torch.cat([x, *pooled], dim=1))
