from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# A sampling grid takes 25 times the memory of the mask it makes; a strip of so many pixels takes
# 3 MiB. Smaller ones cost more calls than the cache saves.
_STRIP_PIXELS = 1 << 17


class BoxList(Protocol):
    """What is used of `detectron2.structures.Boxes`, which builds on this module."""

    tensor: Tensor
    """(B, 4)."""


def paste_masks_in_image(
    masks: Tensor, boxes: BoxList | Tensor, image_shape: tuple[int, int], threshold: float = 0.5
) -> Tensor:
    """Resample masks from the frame of their boxes to the pixel grid of the image.

    Every mask is sampled around its box only, on every device. Upstream Detectron2 does so on the
    CPU; on GPUs it samples the whole image for each mask, with the same result at thresholds from
    0.5, and needs gigabytes for large images.

    Args:
        masks: (B, M, M) probabilities in [0, 1].
        boxes: B boxes in absolute pixels of the image, as `Boxes` or (B, 4). A box without area
            pastes nothing.
        image_shape: (H, W) of the image.
        threshold: pixels of at least this probability belong to the instance. Negative to get
            the probabilities themselves.

    Returns:
        (B, H, W) bool, or for a negative threshold uint8, 255 times the probability rounded down.

    Raises:
        AssertionError: if the masks are not square or not as many as the boxes.
    """
    boxes = _checked_boxes(masks, boxes)
    height, width = int(image_shape[0]), int(image_shape[1])
    dtype = torch.bool if threshold >= 0 else torch.uint8
    image_masks = torch.zeros((len(masks), height, width), dtype=dtype, device=masks.device)
    # One transfer for all windows: reading the boxes one by one waits for the GPU each time.
    for i, (x0, y0, x1, y1) in enumerate(_windows(boxes, height, width)):
        if x0 < x1 and y0 < y1:
            mask = _sample_mask(masks[i].float(), boxes[i], (x0, y0, x1, y1))
            image_masks[i, y0:y1, x0:x1] = (
                mask >= threshold if threshold >= 0 else (mask * 255).to(torch.uint8)
            )
    return image_masks


def paste_masks_as_runs(
    masks: Tensor, boxes: BoxList | Tensor, image_shape: tuple[int, int], threshold: float = 0.5
) -> list[np.ndarray]:
    """Paste masks as run lengths, without ever making a bitmap of the image.

    The pixels are those of `paste_masks_in_image`. Memory is needed for a strip of one mask at a
    time, and the time is that of the pixels around the boxes.

    Args:
        masks: (B, M, M) probabilities in [0, 1].
        boxes: B boxes in absolute pixels of the image, as `Boxes` or (B, 4).
        image_shape: (H, W) of the image.
        threshold: pixels of at least this probability, 0 or more, belong to the instance.

    Returns:
        Per mask the int64 lengths of its runs down the columns of the image, from left to right,
        in turn outside (0 if the first pixel belongs to it) and inside; H * W in all. This is the
        order of COCO's uncompressed RLE.

    Raises:
        AssertionError: if the masks are not square or not as many as the boxes.
    """
    # The M * M probabilities travel, not bitmaps, and the runs are wanted on the host anyway.
    masks = masks.cpu()
    boxes = _checked_boxes(masks, boxes)
    height, width = int(image_shape[0]), int(image_shape[1])
    return [
        _lengths(_pasted_edges(mask.float(), box, window, height, threshold), height * width)
        for mask, box, window in zip(masks, boxes, _windows(boxes, height, width), strict=True)
    ]


def bitmask_as_runs(bitmask: np.ndarray) -> np.ndarray:
    """Run lengths of a bitmap, as `paste_masks_as_runs` gives them.

    Memory goes along rows and runs go down columns, and most masks are small in their image: only
    their bounding box is turned and searched for runs.

    Args:
        bitmask: (H, W) bool.
    """
    height, width = bitmask.shape
    # Rows first, each of which lies together in memory: the columns are then sought in few of them.
    top, bottom = _extent(bitmask.any(axis=1))
    left, right = _extent(bitmask[top:bottom].any(axis=0))
    edges = _edges(bitmask[top:bottom, left:right].T, left, top, height)
    return _lengths([edges], height * width)


def _extent(is_used: np.ndarray) -> tuple[int, int]:
    """The first index that is used and the one after the last; 0, 0 if none is."""
    used = np.flatnonzero(is_used)
    return (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)


def _pasted_edges(
    mask: Tensor, box: Tensor, window: tuple[int, int, int, int], height: int, threshold: float
) -> list[np.ndarray]:
    """The edges of a pasted mask, strip by strip from left to right."""
    x0, y0, x1, y1 = window
    if x0 >= x1 or y0 >= y1:
        return []
    strip = max(_STRIP_PIXELS // (y1 - y0), 1)
    edges = []
    for left in range(x0, x1, strip):
        right = min(left + strip, x1)
        inside = _sample_mask(mask, box, (left, y0, right, y1), by_column=True) >= threshold
        edges.append(_edges(inside.numpy(), left, y0, height))
    return edges


def _edges(inside: np.ndarray, left: int, top: int, height: int) -> np.ndarray:
    """Where runs start and end in turn, each within its column; pixels count down the columns.

    Args:
        inside: (w, h) bool, the columns of a part of the image.
        left: column of the image at which the part begins.
        top: row of the image at which the part begins.
        height: of the image.
    """
    columns, rows = inside.shape
    # With a pixel outside at both ends, runs start and end within their column.
    padded = np.zeros((columns, rows + 2), dtype=bool)
    # This copy, of the part alone, is also where a bitmap stored by rows gets turned.
    padded[:, 1:-1] = inside
    # Between rows + 2 pixels there are rows + 1 borders; border r is the upper side of row r.
    column, row = np.divmod(np.flatnonzero(padded[:, 1:] != padded[:, :-1]), rows + 1)
    return (left + column) * height + top + row


def _lengths(parts: list[np.ndarray], pixels: int) -> np.ndarray:
    """The run lengths in an image of so many pixels, from the edges of its parts."""
    # numpy joins no empty list, and without any edge the type would not be known.
    edges = np.concatenate([np.zeros(0, dtype=np.int64), *parts])
    # A run that reaches the lower border and goes on at the top of the next column is one run.
    joints = np.flatnonzero(edges[1:] == edges[:-1])
    edges = np.delete(edges, np.concatenate([joints, joints + 1]))
    lengths = np.diff(edges, prepend=0, append=pixels)
    # As pycocotools writes them: no run outside behind a mask that ends with the last pixel.
    return lengths[:-1] if len(edges) and lengths[-1] == 0 else lengths


def _checked_boxes(masks: Tensor, boxes: BoxList | Tensor) -> Tensor:
    """The (B, 4) float32 boxes of (B, M, M) masks, on their device."""
    if not isinstance(boxes, Tensor):
        boxes = boxes.tensor
    assert masks.dim() == 3 and masks.shape[1] == masks.shape[2], (
        f"masks must be square, (B, M, M), got {tuple(masks.shape)}"
    )
    assert len(masks) == len(boxes), (
        f"there must be one box per mask, got {len(masks)} masks and {len(boxes)} boxes"
    )
    return boxes.to(device=masks.device, dtype=torch.float32)


def _windows(boxes: Tensor, height: int, width: int) -> list[list[int]]:
    """Per box the pixel ranges x0, y0, x1, y1 in which its mask is sampled, empty without area.

    They reach one pixel beyond the box. Bilinear sampling fades to zero over half a mask pixel,
    which may be longer; what is left out there is less than half of the mask's border value.
    """
    limit = boxes.new_tensor([width, height])
    first = torch.minimum((boxes[:, :2].floor() - 1).clamp(min=0), limit)
    last = torch.minimum((boxes[:, 2:].ceil() + 1).clamp(min=0), limit)
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(dim=1, keepdim=True)
    # Without area the window ends where it begins. NaN is without area too, and needs only a
    # number.
    windows = torch.cat([first, torch.where(has_area, last, first)], dim=1)
    return windows.nan_to_num(0).long().tolist()


def _sample_mask(
    mask: Tensor, box: Tensor, window: tuple[int, int, int, int], by_column: bool = False
) -> Tensor:
    """The (M, M) `mask` of `box` at the pixel centres of `window`.

    The result is (y1 - y0, x1 - x0), or `by_column` (x1 - x0, y1 - y0).
    """
    x0, y0, x1, y1 = window
    # A pixel's centre is half a pixel into it. For `grid_sample`, -1 and 1 are the outer sides of
    # the mask (`align_corners=False`), beyond which it mixes in zeros.
    x = torch.arange(x0, x1, device=mask.device, dtype=torch.float32) + 0.5
    y = torch.arange(y0, y1, device=mask.device, dtype=torch.float32) + 0.5
    x = (x - box[0]) / (box[2] - box[0]) * 2 - 1
    y = (y - box[1]) / (box[3] - box[1]) * 2 - 1
    indexing = "ij" if by_column else "xy"
    grid = torch.stack(torch.meshgrid(x, y, indexing=indexing), dim=-1)  # (h, w, 2) or (w, h, 2)
    return F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]
