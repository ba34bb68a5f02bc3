"""Mask prediction for regions and its loss."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from fvcore.nn import weight_init
from torch import Tensor, nn

from detectron2.layers import Conv2d, ConvTranspose2d, ShapeSpec, cat
from detectron2.layers.batch_norm import Norm
from detectron2.layers.blocks import conv_with_norm
from detectron2.structures import Instances, PolygonMasks
from detectron2.utils.events import get_event_storage


def mask_rcnn_loss(
    pred_mask_logits: Tensor, instances: list[Instances], vis_period: int = 0
) -> Tensor:
    """Mean binary cross entropy of the masks of foreground regions, inside an `EventStorage`.

    Args:
        pred_mask_logits: (B, K, M, M), or (B, 1, M, M) for masks without class; the regions of
            all images, image after image.
        instances: per image, with `proposal_boxes`, `gt_classes`, `gt_masks`.
        vis_period: put prediction and target of every region into the storage as images at every
            that many iterations; 0: never.

    Returns:
        A scalar; 0 where there is no region.
    """
    mask_size = pred_mask_logits.shape[2]
    instances = [instances_i for instances_i in instances if len(instances_i) > 0]
    if not instances:
        return pred_mask_logits.sum() * 0  # keeps the graph
    target = _crop_targets(instances, mask_size).to(pred_mask_logits.device)  # (B, M, M) bool
    logits = _of_class(pred_mask_logits, cat([x.gt_classes for x in instances]))
    # A logit above 0 is a probability above one half.
    _log_statistics(logits.detach() > 0, target)
    if vis_period > 0 and get_event_storage().iter % vis_period == 0:
        _put_images(logits.detach().sigmoid(), target)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return F.binary_cross_entropy_with_logits(logits.to(dtype), target.to(dtype))


def _crop_targets(instances: list[Instances], mask_size: int) -> Tensor:
    boxes = [x.proposal_boxes.tensor for x in instances]
    masks = [x.gt_masks for x in instances]
    if all(isinstance(masks_i, PolygonMasks) for masks_i in masks):
        # Together, because each call waits for boxes on their way to the CPU.
        return PolygonMasks.cat(masks).crop_and_resize(torch.cat(boxes), mask_size)
    crops = [m.crop_and_resize(b, mask_size) for m, b in zip(masks, boxes, strict=True)]
    return cat(crops)


def mask_rcnn_inference(pred_mask_logits: Tensor, pred_instances: list[Instances]) -> None:
    """Give every detection the mask of its class.

    Args:
        pred_mask_logits: (B, K or 1, M, M), image after image.
        pred_instances: per image, with `pred_classes`; gets `pred_masks`, (B_i, 1, M, M)
            probabilities.
    """
    classes = [x.pred_classes for x in pred_instances]
    if not classes:
        return
    probs = _of_class(pred_mask_logits, cat(classes)).sigmoid()[:, None]  # (B, 1, M, M)
    counts = [len(x) for x in pred_instances]
    for masks, instances in zip(probs.split(counts), pred_instances, strict=True):
        instances.pred_masks = masks


def _of_class(masks: Tensor, classes: Tensor) -> Tensor:
    """Of (B, K, M, M) the (B, M, M) of one class per row; the only one where K is 1."""
    if masks.shape[1] == 1:
        return masks[:, 0]
    return masks[torch.arange(len(masks), device=masks.device), classes.to(masks.device)]


def _log_statistics(predicted: Tensor, target: Tensor) -> None:
    counts = torch.stack([target, predicted & target, predicted]).sum(dim=(1, 2, 3))
    total = target.numel()

    def scalars(counts: list[float]) -> dict[str, float]:
        positive, true_positive, predicted_positive = counts
        false_positive = predicted_positive - true_positive
        false_negative = positive - true_positive
        return {
            "mask_rcnn/accuracy": 1 - (false_positive + false_negative) / total,
            "mask_rcnn/false_positive": false_positive / max(total - positive, 1),
            "mask_rcnn/false_negative": false_negative / max(positive, 1),
        }

    get_event_storage().put_deferred(counts, scalars)


def _put_images(probs: Tensor, target: Tensor) -> None:
    storage = get_event_storage()
    side_by_side = torch.cat([probs, target.to(probs.dtype)], dim=2)  # (B, M, 2M)
    for i, image in enumerate(side_by_side):
        rgb = image.expand(3, -1, -1)
        storage.put_image(f"Left: mask prediction;   Right: mask GT ({i})", rgb)


class BaseMaskRCNNHead(nn.Module):
    """Loss and inference of a mask head; a subclass defines the network in `layers`.

    Args:
        loss_weight: factor of the loss.
        vis_period: see `mask_rcnn_loss`.

    Reference: He et al. 2017, arXiv 1703.06870.
    """

    def __init__(self, *, loss_weight: float = 1.0, vis_period: int = 0):
        super().__init__()
        self.loss_weight = loss_weight
        self.vis_period = vis_period

    def forward(self, x: Tensor, instances: list[Instances]) -> dict[str, Tensor] | list[Instances]:
        """The mask loss in training, masks for `instances` otherwise.

        Args:
            x: (B, C, H, W) pooled features, image after image.
            instances: per image, foreground proposals with their ground truth (see
                `mask_rcnn_loss`) or detections (see `mask_rcnn_inference`).

        Returns:
            `{"loss_mask": ...}` in training; otherwise `instances` with `pred_masks`.
        """
        logits = self.layers(x)
        if self.training:
            loss = mask_rcnn_loss(logits, instances, self.vis_period)
            return {"loss_mask": loss if self.loss_weight == 1.0 else loss * self.loss_weight}
        mask_rcnn_inference(logits, instances)
        return instances

    def layers(self, x: Tensor) -> Tensor:
        """Map pooled features (B, C, H, W) to mask logits (B, K or 1, M, M)."""
        raise NotImplementedError(f"{type(self).__name__} must define layers()")


class MaskRCNNConvUpsampleHead(BaseMaskRCNNHead):
    """3x3 convolutions, a 2x upsampling deconvolution and a 1x1 predictor.

    Args:
        input_shape: channels of the pooled features; masks are twice as large as these.
        num_classes: masks per region; 1 for a mask without class.
        conv_dims: output channels of the convolutions and, last, of the deconvolution.
        conv_norm: norm after each convolution, see `get_norm`; convolutions have a bias only
            without one, the deconvolution always has a bias and no norm.
        loss_weight: factor of the loss.
        vis_period: see `mask_rcnn_loss`.

    Raises:
        AssertionError: `conv_dims` is empty.

    Reference: He et al. 2017, arXiv 1703.06870, figure 4 (right).
    """

    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        conv_dims: Sequence[int],
        conv_norm: Norm = "",
        loss_weight: float = 1.0,
        vis_period: int = 0,
    ):
        super().__init__(loss_weight=loss_weight, vis_period=vis_period)
        assert len(conv_dims) > 0, "conv_dims needs at least one entry, the deconvolution's"
        channels = input_shape.channels
        for k, dim in enumerate(conv_dims[:-1], start=1):
            conv = conv_with_norm(channels, dim, 3, conv_norm, fill=None, activation=nn.ReLU())
            self.add_module(f"mask_fcn{k}", conv)
            channels = dim
        self.deconv = ConvTranspose2d(channels, conv_dims[-1], 2, stride=2)
        self.deconv_relu = nn.ReLU()
        self.predictor = Conv2d(conv_dims[-1], num_classes, 1)

        for name, layer in self.named_children():
            if name.startswith("mask_fcn") or name == "deconv":
                weight_init.c2_msra_fill(layer)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)

    def layers(self, x: Tensor) -> Tensor:
        """Map pooled features (B, C, H, W) to mask logits (B, num_classes, 2H, 2W)."""
        for layer in self.children():
            x = layer(x)
        return x
