"""Residual networks with the parameter names of released Detectron2 backbones."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from detectron2.layers import CNNBlockBase
from detectron2.layers.batch_norm import Norm
from detectron2.layers.blocks import conv_with_norm
from detectron2.modeling.backbone.backbone import Backbone

ResNetBlockBase = CNNBlockBase

_conv = partial(conv_with_norm, bias=False)

# depth -> blocks per stage: He et al. 2015, table 1
_BLOCKS_PER_STAGE = {
    18: [2, 2, 2, 2],
    34: [3, 4, 6, 3],
    50: [3, 4, 6, 3],
    101: [3, 4, 23, 3],
    152: [3, 8, 36, 3],
}


class BasicStem(CNNBlockBase):
    """A 7x7 convolution and a 3x3 max pooling, each of stride 2.

    Args:
        in_channels: channels of the images.
        out_channels: channels of the output.
        norm: see `detectron2.layers.get_norm`.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: Norm = "BN"):
        super().__init__(in_channels, out_channels, stride=4)
        self.conv1 = _conv(in_channels, out_channels, 7, norm, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / 4, W / 4), rounded up."""
        x = F.relu_(self.conv1(x))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


class _ResidualBlock(CNNBlockBase):
    """Adds the input to what `residual` makes of it, by a 1x1 convolution if channels differ."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Norm):
        super().__init__(in_channels, out_channels, stride)
        self.shortcut = None
        if in_channels != out_channels:
            self.shortcut = _conv(in_channels, out_channels, 1, norm, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride), rounded up."""
        out = self.residual(x)
        # In place, as the ReLUs: for the backward pass, convolutions and norms keep what they were
        # given, not what they return.
        out += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out)


class BasicBlock(_ResidualBlock):
    """Two 3x3 convolutions around which the input is added.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output; if they differ, the input passes a 1x1 convolution.
        stride: of the first convolution.
        norm: see `detectron2.layers.get_norm`.

    Reference: He et al. 2015, arXiv 1512.03385, figure 5 left.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, norm: Norm = "BN"):
        super().__init__(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(in_channels, out_channels, 3, norm, stride=stride)
        self.conv2 = _conv(out_channels, out_channels, 3, norm)

    def residual(self, x: Tensor) -> Tensor:
        """What is added to the input."""
        return self.conv2(F.relu_(self.conv1(x)))


class BottleneckBlock(_ResidualBlock):
    """A 1x1, a 3x3 and a 1x1 convolution around which the input is added.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output; if they differ, the input passes a 1x1 convolution.
        bottleneck_channels: channels between the convolutions.
        stride: of the whole block.
        num_groups: groups of the 3x3 convolution.
        norm: see `detectron2.layers.get_norm`.
        stride_in_1x1: whether the first 1x1 convolution has the stride, as in the weights of the
            paper's authors; else the 3x3 convolution, as in torchvision's.
        dilation: of the 3x3 convolution.

    Reference: He et al. 2015, arXiv 1512.03385, figure 5 right; with groups Xie et al. 2016,
    arXiv 1611.05431.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: Norm = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
    ):
        super().__init__(in_channels, out_channels, stride, norm)
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = _conv(in_channels, bottleneck_channels, 1, norm, stride=stride_1x1)
        self.conv2 = _conv(
            bottleneck_channels,
            bottleneck_channels,
            3,
            norm,
            stride=stride_3x3,
            groups=num_groups,
            dilation=dilation,
        )
        self.conv3 = _conv(bottleneck_channels, out_channels, 1, norm)

    def residual(self, x: Tensor) -> Tensor:
        """What is added to the input."""
        return self.conv3(F.relu_(self.conv2(F.relu_(self.conv1(x)))))


class ResNet(Backbone):
    """A stem and stages of residual blocks, named `stem`, `res2`, `res3`, ...

    Reference: He et al. 2015, arXiv 1512.03385.
    """

    def __init__(
        self,
        stem: CNNBlockBase,
        stages: Sequence[Sequence[CNNBlockBase]],
        num_classes: int | None = None,
        out_features: Sequence[str] | None = None,
        freeze_at: int = 0,
    ):
        """Put the parts together.

        Args:
            stem: makes the input of the first stage.
            stages: the blocks of each stage, see `make_stage`. Stages after the last one that
                `out_features` names are left out.
            num_classes: if given, a classifier on the mean of the last map: output `linear`.
            out_features: names of the outputs; None for the last one only.
            freeze_at: see `freeze`.

        Raises:
            AssertionError: if `out_features` has a name that is no part of this network.
        """
        super().__init__()
        last = "linear" if num_classes is not None else f"res{len(stages) + 1}"
        self._out_features = [last] if out_features is None else list(out_features)
        known = ["stem", *(f"res{i}" for i in range(2, len(stages) + 2))]
        known += ["linear"] if num_classes is not None else []
        assert self._out_features and set(self._out_features) <= set(known), (
            f"out_features of ResNet must be some of {known}, got {self._out_features}"
        )
        if num_classes is None:  # parameters without a gradient would stop distributed training
            stages = stages[: max(map(known.index, self._out_features))]
        self.stem = stem
        self._out_feature_strides = {"stem": stem.stride}
        self._out_feature_channels = {"stem": stem.out_channels}
        self.stage_names = known[1 : len(stages) + 1]
        stride = stem.stride
        for name, blocks in zip(self.stage_names, stages, strict=True):
            self.add_module(name, nn.Sequential(*blocks))
            # The blocks say their stride: a dilated stage may have 1.
            stride *= math.prod(block.stride for block in blocks)
            self._out_feature_strides[name] = stride
            self._out_feature_channels[name] = blocks[-1].out_channels
        self.num_classes = num_classes
        if num_classes is not None:
            self.linear = nn.Linear(blocks[-1].out_channels, num_classes)
            nn.init.normal_(self.linear.weight, std=0.01)
            self._out_feature_strides["linear"] = None
            self._out_feature_channels["linear"] = num_classes
        self.freeze(freeze_at)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the outputs.

        Args:
            x: (B, C, H, W) images.

        Returns:
            Name -> (B, C, H / stride, W / stride) map, finest first; `linear`: (B, num_classes).

        Raises:
            AssertionError: if `x` has not four dimensions.
        """
        assert x.dim() == 4, f"ResNet takes images (B, C, H, W), got {tuple(x.shape)}"
        outputs = {}
        for name in ["stem", *self.stage_names]:
            x = outputs[name] = getattr(self, name)(x)
        if self.num_classes is not None:
            outputs["linear"] = self.linear(x.mean(dim=(2, 3)))
        return {name: out for name, out in outputs.items() if name in self._out_features}

    def freeze(self, freeze_at: int = 0) -> "ResNet":
        """Stop training the first parts: no gradients, batch norms replaced by frozen ones.

        Args:
            freeze_at: 0 nothing, 1 the stem, k >= 2 also the stages res2 to res{k}.

        Returns:
            The network itself.
        """
        if freeze_at >= 1:
            self.stem.freeze()
        for name in self.stage_names[: max(freeze_at - 1, 0)]:
            for block in getattr(self, name):
                block.freeze()
        return self

    @staticmethod
    def make_stage(
        block_class: type[CNNBlockBase],
        num_blocks: int,
        *,
        in_channels: int,
        out_channels: int,
        **kwargs: Any,
    ) -> list[CNNBlockBase]:
        """Make the blocks of one stage.

        Args:
            block_class: class of the blocks.
            num_blocks: how many.
            in_channels: channels of the stage's input.
            out_channels: channels of every block's output.
            **kwargs: further arguments of `block_class`. A list `x_per_block` gives each block
                its own `x`, for instance `stride_per_block=[2, 1, 1]`.

        Raises:
            AssertionError: if such a list has not one entry per block, or its argument is given
                twice.
        """
        suffix = "_per_block"
        single = {key: value for key, value in kwargs.items() if not key.endswith(suffix)}
        blocks = []
        for i in range(num_blocks):
            own = {}
            for key in kwargs.keys() - single.keys():
                name = key.removesuffix(suffix)
                assert name not in single, f"make_stage takes {name} or {key}, got both"
                assert len(kwargs[key]) == num_blocks, (
                    f"{key} must have one entry for each of {num_blocks} blocks, got {kwargs[key]}"
                )
                own[name] = kwargs[key][i]
            channels = {"in_channels": in_channels, "out_channels": out_channels}
            blocks.append(block_class(**channels, **single, **own))
            in_channels = out_channels
        return blocks

    @staticmethod
    def make_default_stages(
        depth: int, block_class: type[CNNBlockBase] | None = None, **kwargs: Any
    ) -> list[list[CNNBlockBase]]:
        """Make the four stages of a network of the paper.

        Args:
            depth: 18, 34, 50, 101 or 152.
            block_class: class of the blocks; by default `BasicBlock` below depth 50, else
                `BottleneckBlock`.
            **kwargs: further arguments of `block_class`.

        Raises:
            KeyError: for any other depth.
        """
        if depth not in _BLOCKS_PER_STAGE:
            raise KeyError(
                f"depth of a ResNet must be one of {list(_BLOCKS_PER_STAGE)}, got {depth}"
            )
        basic = depth < 50
        stages, in_channels = [], 64
        for i, num_blocks in enumerate(_BLOCKS_PER_STAGE[depth]):
            out_channels = (64 if basic else 256) * 2**i
            bottleneck = {} if basic else {"bottleneck_channels": out_channels // 4}
            stage = ResNet.make_stage(
                block_class or (BasicBlock if basic else BottleneckBlock),
                num_blocks,
                in_channels=in_channels,
                out_channels=out_channels,
                # The stem's pooling has already halved the map for the first stage.
                stride_per_block=[1 if i == 0 else 2] + [1] * (num_blocks - 1),
                **bottleneck,
                **kwargs,
            )
            stages.append(stage)
            in_channels = out_channels
        return stages


make_stage = ResNet.make_stage
