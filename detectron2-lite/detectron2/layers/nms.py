from torch import Tensor
from torchvision.ops import batched_nms as _torchvision_batched_nms
from torchvision.ops import nms

__all__ = ["batched_nms", "nms"]


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Non-maximum suppression in which only boxes of the same group suppress each other.

    Args:
        boxes: (N, 4); computed in float32 whatever their dtype, since half precision cannot
            hold pixel coordinates of large images.
        scores: (N,).
        idxs: (N,) group (class, level) of each box.
        iou_threshold: a box goes if its IoU with a better one is greater than this.

    Returns:
        (n,) int64 indices of the boxes that stay, by decreasing score.

    Raises:
        AssertionError: if the boxes do not have four coordinates.
    """
    assert boxes.shape[-1] == 4, f"batched_nms needs (N, 4) boxes, got {tuple(boxes.shape)}"
    return _torchvision_batched_nms(boxes.float(), scores, idxs, iou_threshold)
