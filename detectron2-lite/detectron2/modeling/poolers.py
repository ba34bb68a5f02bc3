import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import RoIPool

from detectron2.layers import ROIAlign, cat
from detectron2.structures import Boxes
from detectron2.structures.boxes import send


class ROIPooler(nn.Module):
    """Pools each box from the pyramid level that fits its size.

    Reference: Lin et al. 2017, arXiv 1612.03144, equation 1 (choice of the level); RoIAlign: He et
    al. 2017, arXiv 1703.06870, section 3.
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        scales: Sequence[float],
        sampling_ratio: int,
        pooler_type: str,
        canonical_box_size: float = 224,
        canonical_level: int = 4,
    ):
        """Set the pooling and the choice of levels.

        Args:
            output_size: side of the pooled features, or (height, width).
            scales: 1 / stride of each feature map, finest first; powers of two, each half of the
                one before.
            sampling_ratio: samples per output cell and axis; 0 takes ceil(box size / output size).
            pooler_type: "ROIAlignV2" (aligned to pixel centres), "ROIAlign" (shifted by half
                a pixel, as in the first releases of Mask R-CNN) or "ROIPool".
            canonical_box_size: side in pixels of a box that belongs to `canonical_level`.
            canonical_level: log2 of the stride of that level.

        Raises:
            ValueError: if `pooler_type` is unknown.
            AssertionError: if `scales` are not consecutive powers of two, or sizes not positive.
        """
        super().__init__()
        self.output_size = _as_hw(output_size)
        assert canonical_box_size > 0, (
            f"canonical_box_size must be positive, got {canonical_box_size}"
        )
        levels = [-math.log2(scale) for scale in scales]
        self.min_level = round(levels[0]) if levels else 0
        self.max_level = self.min_level + len(levels) - 1
        expected = range(self.min_level, self.max_level + 1)
        assert levels and self.min_level >= 0 and np.allclose(levels, expected), (
            f"ROIPooler scales must be consecutive powers 1/2^k (k >= 0), got {list(scales)}"
        )
        self.level_poolers = nn.ModuleList(
            _build_pooler(pooler_type, self.output_size, scale, sampling_ratio) for scale in scales
        )
        self.canonical_box_size = canonical_box_size
        self.canonical_level = canonical_level

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """Pool boxes from feature maps.

        Args:
            x: one (N, C, H, W) map per scale.
            box_lists: one Boxes per image, N in all.

        Returns:
            (R, C, height, width) features of all boxes, image by image in the order given.

        Raises:
            AssertionError: if `x` or `box_lists` are not lists of these lengths.
        """
        assert isinstance(x, list) and isinstance(box_lists, list), (
            f"ROIPooler takes lists, got {type(x).__name__} and {type(box_lists).__name__}"
        )
        assert len(x) == len(self.level_poolers), (
            f"ROIPooler has {len(self.level_poolers)} scales, got {len(x)} feature maps"
        )
        assert len(box_lists) == x[0].size(0), (
            f"ROIPooler needs one Boxes per image of the batch, got {len(box_lists)} "
            f"for {x[0].size(0)} images"
        )
        if not box_lists:
            return x[0].new_zeros((0, x[0].shape[1], *self.output_size))
        rois = convert_boxes_to_pooler_format(box_lists)
        if len(x) == 1:
            return self.level_poolers[0](x[0], rois)
        levels = _levels(
            rois[:, 1:],
            self.min_level,
            self.max_level,
            self.canonical_box_size,
            self.canonical_level,
        )
        return self._pool_by_level(x, rois, levels)

    def _pool_by_level(self, x: list[Tensor], rois: Tensor, levels: Tensor) -> Tensor:
        """Pool (R, 5) rois, each from the map of its `_levels`, (R,); zeros where it has none."""
        # Once the boxes are sorted by level, one transfer from the GPU tells all counts. Those
        # without a level come last.
        levels, order = levels.sort(stable=True)
        # One number more than there are levels: where it is found, the last level ends.
        wanted = torch.arange(
            self.min_level, self.max_level + 2, dtype=levels.dtype, device=levels.device
        )
        starts = torch.searchsorted(levels, wanted).tolist()
        counts = [end - start for start, end in itertools.pairwise(starts)]
        pooled = [
            pooler(features, level_rois)
            for pooler, features, level_rois in zip(
                self.level_poolers, x, rois[order][: starts[-1]].split(counts), strict=True
            )
        ]
        if starts[-1] < len(rois):
            rest = len(rois) - starts[-1]
            pooled.append(x[0].new_zeros((rest, x[0].shape[1], *self.output_size)))
        joined = torch.cat(pooled)
        # Back into the order in which the boxes came.
        output = torch.empty_like(joined)
        output[order] = joined
        return output


def assign_boxes_to_levels(
    box_lists: list[Boxes],
    min_level: int,
    max_level: int,
    canonical_box_size: float,
    canonical_level: int,
) -> Tensor:
    """Choose the pyramid level of each box by its area.

    Args:
        box_lists: boxes of each image.
        min_level: log2 of the stride of the finest level.
        max_level: log2 of the stride of the coarsest level.
        canonical_box_size: side in pixels of a box that belongs to `canonical_level`.
        canonical_level: log2 of the stride of that level.

    Returns:
        (R,) int64 level of each box, 0 for the finest, where also boxes of zero area go; -1 for
        boxes of negative or NaN area, which have no level.

    Reference: Lin et al. 2017, arXiv 1612.03144, equation 1.
    """
    boxes = cat([boxes.tensor for boxes in box_lists])
    levels = _levels(boxes, min_level, max_level, canonical_box_size, canonical_level)
    return torch.where(levels > max_level, -1, levels - min_level).to(torch.int64)


def _levels(
    boxes: Tensor, min_level: int, max_level: int, canonical_box_size: float, canonical_level: int
) -> Tensor:
    """(R,) log2 of the stride for each of (R, 4) boxes; `max_level` + 1 for those without level."""
    sizes = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()
    # Inside the logarithm, as in upstream: a box without area gets log2(1e-8), the finest level.
    levels = torch.floor(canonical_level + torch.log2(sizes / canonical_box_size + 1e-8))
    # The root of a negative area is NaN, which `clamp` leaves alone.
    return levels.clamp(min=min_level, max=max_level).nan_to_num(nan=max_level + 1)


def convert_boxes_to_pooler_format(box_lists: list[Boxes]) -> Tensor:
    """(R, 5) rows: index of the image, then the box."""
    boxes = cat([boxes.tensor for boxes in box_lists])
    # On the host, which knows the counts: a GPU would be waited for, to learn the size of the
    # result.
    counts = torch.tensor([len(boxes) for boxes in box_lists])
    image = torch.arange(len(box_lists), dtype=boxes.dtype).repeat_interleave(counts)
    return torch.cat([send(image, boxes.device)[:, None], boxes], dim=1)


def _as_hw(output_size: int | Sequence[int]) -> tuple[int, int]:
    hw = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    assert len(hw) == 2 and all(isinstance(side, int) and side > 0 for side in hw), (
        f"ROIPooler output_size must be a positive int or (height, width), got {output_size}"
    )
    return hw


def _build_pooler(
    pooler_type: str, output_size: tuple[int, int], scale: float, sampling_ratio: int
) -> nn.Module:
    if pooler_type == "ROIPool":
        return RoIPool(output_size, spatial_scale=scale)
    if pooler_type in ("ROIAlign", "ROIAlignV2"):
        return ROIAlign(
            output_size,
            spatial_scale=scale,
            sampling_ratio=sampling_ratio,
            aligned=pooler_type == "ROIAlignV2",
        )
    raise ValueError(
        f"pooler_type must be 'ROIAlignV2', 'ROIAlign' or 'ROIPool', got {pooler_type!r}"
    )
