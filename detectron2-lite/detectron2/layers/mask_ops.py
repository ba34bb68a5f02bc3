from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from detectron2.structures import Boxes


def paste_masks_in_image(
    masks: torch.Tensor,
    boxes: Boxes | torch.Tensor,
    image_shape: tuple[int, int],
    threshold: float = 0.5,
) -> torch.Tensor:
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
    if not isinstance(boxes, torch.Tensor):
        boxes = boxes.tensor
    assert masks.dim() == 3 and masks.shape[1] == masks.shape[2], (
        f"masks must be square, (B, M, M), got {tuple(masks.shape)}"
    )
    assert len(masks) == len(boxes), (
        f"there must be one box per mask, got {len(masks)} masks and {len(boxes)} boxes"
    )
    height, width = int(image_shape[0]), int(image_shape[1])
    dtype = torch.bool if threshold >= 0 else torch.uint8
    image_masks = torch.zeros((len(masks), height, width), dtype=dtype, device=masks.device)
    boxes = boxes.to(device=masks.device, dtype=torch.float32)
    # One transfer for all windows: reading the boxes one by one waits for the GPU each time.
    for i, (x0, y0, x1, y1) in enumerate(_windows(boxes, height, width)):
        if x0 < x1 and y0 < y1:
            mask = _sample_mask(masks[i].float(), boxes[i], (x0, y0, x1, y1))
            image_masks[i, y0:y1, x0:x1] = (
                mask >= threshold if threshold >= 0 else (mask * 255).to(torch.uint8)
            )
    return image_masks


def _windows(boxes: torch.Tensor, height: int, width: int) -> list[list[int]]:
    """Per box the pixel ranges x0, y0, x1, y1 in which its mask is sampled, empty without area.

    They reach one pixel beyond the box. Bilinear sampling fades to zero over half a mask pixel,
    which may be longer; what is left out there is less than half of the mask's border value.
    """
    limit = boxes.new_tensor([width, height])
    first = torch.minimum((boxes[:, :2].floor() - 1).clamp(min=0), limit)
    last = torch.minimum((boxes[:, 2:].ceil() + 1).clamp(min=0), limit)
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(dim=1, keepdim=True)
    windows = torch.cat([first, torch.where(has_area, last, first)], dim=1)
    return windows.nan_to_num(0).long().tolist()


def _sample_mask(
    mask: torch.Tensor, box: torch.Tensor, window: tuple[int, int, int, int]
) -> torch.Tensor:
    """The (M, M) `mask` of `box` at the pixel centres of `window`: (y1 - y0, x1 - x0)."""
    x0, y0, x1, y1 = window
    x = torch.arange(x0, x1, device=mask.device, dtype=torch.float32) + 0.5
    y = torch.arange(y0, y1, device=mask.device, dtype=torch.float32) + 0.5
    x = (x - box[0]) / (box[2] - box[0]) * 2 - 1
    y = (y - box[1]) / (box[3] - box[1]) * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (h, w, 2)
    return F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]
