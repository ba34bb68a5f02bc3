import math
from collections.abc import Callable, Sequence

import torch
from fvcore.nn import giou_loss, smooth_l1_loss
from torch import Tensor

from detectron2.layers import ciou_loss, diou_loss
from detectron2.utils.checks import assert_all

# exp(dw) may enlarge a box at most by this factor: a 16 pixel anchor becomes 1000 pixels wide.
_DEFAULT_SCALE_CLAMP = math.log(1000.0 / 16)

_OVERLAP_LOSSES = {"giou": giou_loss, "diou": diou_loss, "ciou": ciou_loss}


class Box2BoxTransform:
    """Encodes a box relative to a source box as (dx, dy, dw, dh), and decodes it again.

    `dx, dy` is the shift of the centre in units of the source's width and height, `dw, dh` the log
    of the ratio of the sizes; each is multiplied by its weight.

    Reference: Girshick et al. 2014, arXiv 1311.2524, appendix C; the weights are those of Girshick
    2015, arXiv 1504.08083 (targets scaled to about unit variance).
    """

    def __init__(self, weights: Sequence[float], scale_clamp: float = _DEFAULT_SCALE_CLAMP):
        """Set the scale of the deltas.

        Args:
            weights: factors of dx, dy, dw, dh, e.g. (10, 10, 5, 5).
            scale_clamp: upper limit of dw and dh (after division by the weights) when decoding;
                keeps `exp` finite.
        """
        self.weights = weights
        self.scale_clamp = scale_clamp

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Encode `target_boxes` relative to `src_boxes`.

        Args:
            src_boxes: (N, 4) xyxy boxes, e.g. anchors or proposals, of positive width.
            target_boxes: (N, 4) xyxy boxes, e.g. ground truth.

        Returns:
            (N, 4) weighted deltas; `apply_deltas(deltas, src_boxes)` gives `target_boxes` back.

        Raises:
            AssertionError: if a source box has a width of zero or less (on a GPU the check
                runs asynchronously and ends the process's use of the device).
        """
        # Of the widths alone, as in upstream.
        positive = src_boxes[:, 2] > src_boxes[:, 0]
        assert_all(
            positive,
            "the boxes that Box2BoxTransform encodes against must have a positive width",
            lambda: (
                f"{src_boxes[~positive][0].tolist()} ({int((~positive).sum())} such boxes of "
                f"{len(src_boxes)}); check proposals and ground truth"
            ),
        )
        wx, wy, ww, wh = self.weights
        both = torch.stack((src_boxes, target_boxes))
        (src_center, center), (src_size, size) = _centers_and_sizes(both)
        # Weighted before the division, in upstream's order, on which the last bits depend.
        shift = _weighted(torch.mul, center - src_center, wx, wy) / src_size
        log_scale = _weighted(torch.mul, torch.log(size / src_size), ww, wh)
        return torch.cat((shift, log_scale), dim=1)

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Decode `deltas` relative to `boxes`.

        Args:
            deltas: (N, k*4), k sets of deltas per box side by side, e.g. one per class.
            boxes: (N, 4) xyxy source boxes.

        Returns:
            (N, k*4) float32 xyxy boxes, side by side like the deltas.
        """
        # Half precision has too few bits for pixel coordinates, so decode in float32 under AMP too.
        # (N, k, 2) each; the sources are (N, 1, 2), for all sets of a row.
        deltas = deltas.float()
        shift, log_scale = deltas.unflatten(1, (-1, 4)).split(2, dim=2)
        center, size = (v[:, None] for v in _centers_and_sizes(boxes.to(deltas.dtype)))
        wx, wy, ww, wh = self.weights
        center = _weighted(torch.div, shift, wx, wy) * size + center
        scale = _weighted(torch.div, log_scale, ww, wh).clamp(max=self.scale_clamp).exp()
        half = scale * (0.5 * size)
        return torch.cat((center - half, center + half), dim=2).flatten(1)  # (N, k, 4) -> (N, k*4)


def box_regression_loss(
    anchors: Tensor,
    pred_deltas: Tensor,
    gt_boxes: Tensor,
    box2box_transform: Box2BoxTransform,
    loss_type: str,
    smooth_l1_beta: float,
    left_out: Tensor | None = None,
) -> Tensor:
    """Sum of the box regression losses of the foreground rows.

    Args:
        anchors: (N, 4) xyxy source boxes (anchors or proposals).
        pred_deltas: (N, 4) predicted deltas.
        gt_boxes: (N, 4) xyxy matched ground truth boxes.
        box2box_transform: coder between boxes and deltas.
        loss_type: "smooth_l1" compares deltas; "giou", "diou" and "ciou" compare decoded boxes.
        smooth_l1_beta: where the smooth L1 loss turns from quadratic to linear; below 1e-5 it is
            the L1 loss. Not used by the other types.
        left_out: (N,) bool, the rows that do not count: so the host need not wait for the number of
            others. None where the caller has selected these.

    Returns:
        Scalar; 0 with a gradient path when N is 0.

    Raises:
        ValueError: if `loss_type` is unknown.

    Reference: GIoU: Rezatofighi et al. 2019, arXiv 1902.09630; DIoU and CIoU: Zheng et al. 2020,
    arXiv 1911.08287.
    """
    if left_out is not None:
        pred_deltas = pred_deltas.masked_fill(left_out[:, None], 0.0)
    if loss_type == "smooth_l1":
        target_deltas = box2box_transform.get_deltas(anchors, gt_boxes)
        losses = smooth_l1_loss(pred_deltas, target_deltas, smooth_l1_beta)  # (N, 4)
    elif loss_type in _OVERLAP_LOSSES:
        pred_boxes = box2box_transform.apply_deltas(pred_deltas, anchors)
        losses = _OVERLAP_LOSSES[loss_type](pred_boxes, gt_boxes)[:, None]  # (N, 1)
    else:
        raise ValueError(
            f"box_reg_loss_type must be one of {['smooth_l1', *_OVERLAP_LOSSES]}, got {loss_type!r}"
        )
    if left_out is not None:
        # Filled before and after: numbers of these rows that are not finite reach neither the loss
        # nor, as 0 * NaN, a gradient.
        losses = losses.masked_fill(left_out[:, None], 0.0)
    return losses.sum()


def _centers_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 4) xyxy boxes -> centres and sizes, x and y of each: (..., 2)."""
    low, high = boxes.split(2, dim=-1)
    size = high - low
    return low + 0.5 * size, size


def _weighted(operation: Callable[..., Tensor], values: Tensor, x: float, y: float) -> Tensor:
    """`values` (..., 2) times or over (x, y); equal weights need no tensor on the device."""
    if x == y == 1:
        return values
    return operation(values, x if x == y else values.new_tensor((x, y)))
