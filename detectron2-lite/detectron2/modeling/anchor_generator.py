from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detectron2.structures import Boxes


class DefaultAnchorGenerator(nn.Module):
    """Places the same anchor boxes at every cell of each feature map.

    Reference: Ren et al. 2015, arXiv 1506.01497, section 3.1.1; one set of sizes per pyramid level:
    Lin et al. 2017, arXiv 1612.03144, section 4.1.
    """

    box_dim: int = 4
    """Numbers per anchor."""

    def __init__(
        self,
        *,
        sizes: Sequence[Sequence[float]] | Sequence[float],
        aspect_ratios: Sequence[Sequence[float]] | Sequence[float],
        strides: Sequence[int],
        offset: float = 0.5,
    ):
        """Define the anchors of each level.

        Args:
            sizes: square roots of the anchor areas in pixels, one list per level; or a flat list
                (or a list of one list) used for all levels.
            aspect_ratios: height / width, in the same form as `sizes`.
            strides: pixels between neighbouring cells, one number per level.
            offset: position of the first anchor's centre in units of the stride, in [0, 1).

        Raises:
            AssertionError: if `offset` is out of range, or `sizes` or `aspect_ratios` do not fit
                the number of levels.
        """
        super().__init__()
        assert 0.0 <= offset < 1.0, f"anchor offset must be in [0, 1), got {offset}"
        self.strides = list(strides)
        self.offset = offset
        sizes = _per_level(sizes, len(self.strides), "sizes")
        aspect_ratios = _per_level(aspect_ratios, len(self.strides), "aspect_ratios")
        self.cell_anchors = BufferList(map(_cell_anchors, sizes, aspect_ratios))
        # A plain dict: grids follow from the cell anchors, so no state dict needs them.
        self._grids: dict[tuple, Tensor] = {}  # (H, W, A, 4) by level, device and type

    @property
    def num_anchors(self) -> list[int]:
        """Number of anchors per cell of each level."""
        return [len(anchors) for anchors in self.cell_anchors]

    @property
    def num_cell_anchors(self) -> list[int]:
        """The same as `num_anchors`."""
        return self.num_anchors

    def forward(self, features: list[Tensor]) -> list[Boxes]:
        """Place the anchors on the grids of the feature maps.

        Args:
            features: one (B, C, H, W) map per level, finest first; only H and W matter.

        Returns:
            Per level, (H * W * A) anchors that hold for every image of the batch, ordered by row,
            column, and cell anchor (sizes outer, aspect ratios inner). Their tensors are reused by
            later calls: do not change them in place.

        Raises:
            ValueError: if there are more feature maps than levels.
        """
        if len(features) > len(self.strides):
            raise ValueError(
                f"DefaultAnchorGenerator has {len(self.strides)} levels (strides {self.strides}), "
                f"got {len(features)} feature maps; give sizes and strides for each in_feature"
            )
        return [Boxes(self._anchors(i, *x.shape[-2:])) for i, x in enumerate(features)]

    def _anchors(self, level: int, height: int, width: int) -> Tensor:
        """The (H*W*A, 4) anchors of a level: a part of its largest grid so far.

        So images of ever new sizes, as in multi-scale training, rarely need a new one.
        """
        base = list(self.cell_anchors)[level]
        key = level, base.device, base.dtype
        grid = self._grids.get(key)
        known = (0, 0) if grid is None else grid.shape[:2]
        if grid is None or height > known[0] or width > known[1]:
            size = max(height, known[0]), max(width, known[1])
            # Tensors made in inference mode could not be used by a later training step.
            with torch.inference_mode(False):
                grid = self._grids[key] = self._grid_anchors(size, self.strides[level], base)
        return grid[:height, :width].reshape(-1, 4)

    def _grid_anchors(self, size: tuple[int, int], stride: int, base: Tensor) -> Tensor:
        """Shift the (A, 4) anchors `base` to every cell of an (H, W) grid: (H, W, A, 4)."""
        y, x = (
            torch.arange(length, dtype=torch.float32, device=base.device) * stride
            + self.offset * stride
            for length in size
        )
        y, x = torch.meshgrid(y, x, indexing="ij")
        shifts = torch.stack((x, y, x, y), dim=-1)  # (H, W, 4)
        return shifts[:, :, None] + base


def by_anchor(prediction: Tensor, dim: int) -> Tensor:
    """Arrange what a head predicts at each cell as the anchors are.

    Args:
        prediction: (B, A * dim, H, W) map.
        dim: numbers per anchor.

    Returns:
        (B, H * W * A, dim).
    """
    b, _, h, w = prediction.shape
    prediction = prediction.view(b, -1, dim, h, w).permute(0, 3, 4, 1, 2)  # (B, H, W, A, dim)
    return prediction.reshape(b, -1, dim)  # (B, HWA, dim)


class BufferList(nn.Module):
    """A list of tensors that follow the module's device but are not saved in checkpoints."""

    def __init__(self, tensors: Iterator[Tensor]):
        super().__init__()
        for i, tensor in enumerate(tensors):
            self.register_buffer(str(i), tensor, persistent=False)

    def __len__(self) -> int:
        return len(self._buffers)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._buffers.values())


def _per_level(values: Sequence, num_levels: int, name: str) -> list[Any]:
    """Repeat a flat list, or the only list of a list, for every level."""
    assert isinstance(values, Sequence) and len(values) > 0, (
        f"anchor {name} must be a non-empty list, got {values!r}"
    )
    if not isinstance(values[0], Sequence):
        return [values] * num_levels
    if len(values) == 1:
        return list(values) * num_levels
    assert len(values) == num_levels, (
        f"anchor {name} must have one list per level: {num_levels} strides, got {len(values)} lists"
    )
    return list(values)


def _cell_anchors(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> Tensor:
    """Anchors around (0, 0): (sizes * ratios, 4) float32, not rounded to whole pixels."""
    # In float64 and rounded once, at the end, as upstream does: so the float32
    # values are its own.
    size, ratio = torch.cartesian_prod(
        torch.tensor(list(sizes), dtype=torch.float64),
        torch.tensor(list(aspect_ratios), dtype=torch.float64),
    ).unbind(dim=1)
    width = torch.sqrt(size**2 / ratio)
    height = ratio * width
    return torch.stack((-width, -height, width, height), dim=1).div(2).float()
