import itertools
import math
from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from fvcore.nn.weight_init import c2_xavier_fill
from torch import Tensor, nn

from detectron2.layers import ShapeSpec
from detectron2.layers.batch_norm import Norm
from detectron2.layers.blocks import conv_with_norm
from detectron2.modeling.backbone.backbone import Backbone


class FPN(Backbone):
    """Feature pyramid on top of a backbone: coarse maps are upsampled and added to finer ones.

    Outputs are named `p{k}` for stride 2^k. The size of the input must be a multiple of
    `size_divisibility`.

    Reference: Lin et al. 2017, arXiv 1612.03144, section 3.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        norm: Norm = "",
        top_block: nn.Module | None = None,
        fuse_type: str = "sum",
        square_pad: int = 0,
    ):
        """Build lateral and output convolutions for each input map.

        Args:
            bottom_up: the backbone; its `forward` gets the input of this module unchanged.
            in_features: names of its maps to use, finest first, each of twice the stride before.
            out_channels: channels of every output.
            norm: normalisation after each convolution, see `detectron2.layers.get_norm`; ""
                for none, and then the convolutions have a bias; None for neither.
            top_block: makes coarser levels, e.g. `LastLevelMaxPool`; has attributes `num_levels`
                and `in_feature`, a name among the maps of `bottom_up` or the outputs.
            fuse_type: "sum", or "avg" to halve each sum.
            square_pad: if positive, the side to which images are to be padded.

        Raises:
            AssertionError: if `bottom_up` is no Backbone, `in_features` is empty or their strides
                do not double, or `fuse_type` is unknown.
            KeyError: if `bottom_up` has no map of a name in `in_features`.
        """
        super().__init__()
        assert isinstance(bottom_up, Backbone), (
            f"FPN bottom_up must be a detectron2.modeling.Backbone, got {type(bottom_up).__name__}"
        )
        assert fuse_type in ("sum", "avg"), (
            f"FPN fuse_type must be 'sum' or 'avg', got {fuse_type!r}"
        )
        # Not where `norm` is None, as in upstream, whose parameter names these are.
        conv = partial(conv_with_norm, fill=c2_xavier_fill, bias=norm == "")
        shapes = _input_shapes(bottom_up, in_features)
        self._levels = [int(math.log2(shape.stride)) for shape in shapes]
        for level, shape in zip(self._levels, shapes, strict=True):
            self.add_module(f"fpn_lateral{level}", conv(shape.channels, out_channels, 1, norm))
            self.add_module(f"fpn_output{level}", conv(out_channels, out_channels, 3, norm))
        self.top_block = top_block
        self.in_features = tuple(in_features)
        self.bottom_up = bottom_up
        num_top_levels = 0 if top_block is None else top_block.num_levels
        num_levels = len(shapes) + num_top_levels
        self._out_features = [f"p{self._levels[0] + i}" for i in range(num_levels)]
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)
        self._out_feature_strides = {
            name: shapes[0].stride * 2**i for i, name in enumerate(self._out_features)
        }
        self._size_divisibility = shapes[-1].stride
        self._square_pad = square_pad
        self._fuse_type = fuse_type

    @property
    def size_divisibility(self) -> int:
        """The stride of the coarsest input map."""
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """The square to which images are padded; 0 for no such rule."""
        return {"square_size": self._square_pad}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the pyramid.

        Args:
            x: whatever `bottom_up` takes, usually (B, 3, H, W) images.

        Returns:
            `p{k}` -> (B, out_channels, H / 2^k, W / 2^k), finest first, the top block's last.

        Raises:
            ValueError: if the top block's `in_feature` is no map of `bottom_up` and no output.
            RuntimeError: if the size of the input is not a multiple of `size_divisibility`.
        """
        bottom_up_features = self.bottom_up(x)
        outputs: dict[str, Tensor] = {}
        previous = None  # the sum before its output convolution: sums go on without it
        # From the coarsest map on: each sum needs the one above it.
        for level, name in zip(reversed(self._levels), reversed(self.in_features), strict=True):
            lateral = getattr(self, f"fpn_lateral{level}")(bottom_up_features[name])
            previous = lateral if previous is None else self._fuse(lateral, previous)
            outputs[f"p{level}"] = getattr(self, f"fpn_output{level}")(previous)
        outputs = dict(reversed(outputs.items()))
        if self.top_block is not None:
            top = self.top_block(self._top_block_input(bottom_up_features, outputs))
            outputs.update(zip(self._out_features[len(self._levels) :], top, strict=True))
        return outputs

    def _fuse(self, lateral: Tensor, coarser: Tensor) -> Tensor:
        """Add the upsampled (B, C, h, w) map `coarser` to the (B, C, 2h, 2w) map `lateral`."""
        upsampled = F.interpolate(coarser, scale_factor=2.0, mode="nearest")
        if upsampled.shape != lateral.shape:  # a side of 1 would be broadcast without an error
            raise RuntimeError(
                f"FPN needs maps of which each has twice the size of the next, got {lateral.shape} "
                f"before {coarser.shape}; pad images to a multiple of {self.size_divisibility}"
            )
        fused = lateral + upsampled
        return fused / 2 if self._fuse_type == "avg" else fused

    def _top_block_input(self, bottom_up: dict[str, Tensor], outputs: dict[str, Tensor]) -> Tensor:
        name = self.top_block.in_feature
        if name in bottom_up:
            return bottom_up[name]
        if name not in outputs:
            raise ValueError(
                f"in_feature of the FPN's top_block must be one of {[*bottom_up, *outputs]}, "
                f"got {name!r}; set in_feature of {type(self.top_block).__name__}"
            )
        return outputs[name]


class LastLevelMaxPool(nn.Module):
    """Makes one more pyramid level by taking every second pixel of `p5`.

    Reference: Lin et al. 2017, arXiv 1612.03144, section 4.1.
    """

    def __init__(self):
        super().__init__()
        self.num_levels = 1
        self.in_feature = "p5"

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> one map of half the size, rounded up."""
        # A window of one pixel chooses instead of pooling, as the paper has it.
        return [F.max_pool2d(x, kernel_size=1, stride=2)]


class LastLevelP6P7(nn.Module):
    """Makes two more pyramid levels by strided convolutions.

    Reference: Lin et al. 2017, arXiv 1708.02002, section 4.
    """

    def __init__(self, in_channels: int, out_channels: int, in_feature: str = "res5"):
        """Build both convolutions.

        Args:
            in_channels: channels of the map `in_feature`.
            out_channels: channels of both outputs.
            in_feature: name of the input among the maps of the bottom-up network or of the FPN.
        """
        super().__init__()
        self.num_levels = 2
        self.in_feature = in_feature
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1)
        for conv in (self.p6, self.p7):
            c2_xavier_fill(conv)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> maps of half and a quarter of the size, rounded up."""
        p6 = self.p6(x)
        p7 = self.p7(F.relu(p6))  # p6 itself is handed on without the ReLU
        return [p6, p7]


def _input_shapes(bottom_up: Backbone, in_features: Sequence[str]) -> list[ShapeSpec]:
    """Shapes of the maps to use, after checking that the strides double."""
    available = bottom_up.output_shape()
    missing = [name for name in in_features if name not in available]
    if missing:
        raise KeyError(
            f"FPN in_features must be outputs of bottom_up, which has {list(available)}; "
            f"it lacks {missing}"
        )
    shapes = [available[name] for name in in_features]
    strides = [shape.stride for shape in shapes]
    assert strides and all(b == 2 * a for a, b in itertools.pairwise(strides)), (
        f"FPN in_features must be given finest first, each with twice the stride before it; "
        f"got strides {dict(zip(in_features, strides, strict=True))}"
    )
    return shapes
