"""Class and box prediction for regions, their losses and the final detections."""

import logging
import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectron2.layers import Linear, ShapeSpec, batched_nms, cat, cross_entropy, nonzero_tuple
from detectron2.modeling.box_regression import Box2BoxTransform, box_regression_loss
from detectron2.modeling.loss_weights import LossWeights
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import get_event_storage
from detectron2.utils.logger import log_first_n

Predictions: TypeAlias = tuple[Tensor, Tensor]
"""Class logits (R, K + 1), background last, and box deltas (R, 4K) or (R, 4) of all proposals."""


def fast_rcnn_inference(
    boxes: list[Tensor],
    scores: list[Tensor],
    image_shapes: list[tuple[int, int]],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[list[Instances], list[Tensor]]:
    """Turn scored boxes into detections: threshold, suppression within each class, best ones.

    A row with a value that is not finite is dropped.

    Args:
        boxes: per image (R, 4K) one box per class side by side, or (R, 4) the same for all.
        scores: per image (R, K + 1) probabilities, background last.
        image_shapes: (height, width) per image; boxes are clipped to it.
        score_thresh: a (row, class) pair stays if its score is above it.
        nms_thresh: of two boxes of one class whose IoU is above it, the worse one goes.
        topk_per_image: detections kept per image; negative: all.

    Returns:
        Per image, best first: `pred_boxes`, `scores`, `pred_classes`; and the row of each
        detection among the finite rows.
    """
    detections = [
        fast_rcnn_inference_single_image(*image, score_thresh, nms_thresh, topk_per_image)
        for image in zip(boxes, scores, image_shapes, strict=True)
    ]
    return [instances for instances, _ in detections], [rows for _, rows in detections]


def fast_rcnn_inference_single_image(
    boxes: Tensor,
    scores: Tensor,
    image_shape: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[Instances, Tensor]:
    """What `fast_rcnn_inference` does, for one image.

    Args:
        boxes: (R, 4K) or (R, 4).
        scores: (R, K + 1).
        image_shape: (height, width).
        score_thresh: see there.
        nms_thresh: see there.
        topk_per_image: see there.

    Returns:
        The detections, and the row of each among the finite rows.
    """
    boxes, scores = _drop_not_finite(boxes, scores)
    scores = scores[:, :-1]  # without background
    clipped = Boxes(boxes.reshape(-1, 4))
    clipped.clip(image_shape)
    boxes = clipped.tensor.view_as(boxes)  # (R, 4K or 4)

    rows, classes = nonzero_tuple(scores > score_thresh)
    boxes = _of_class(boxes, rows, classes)
    scores = scores[rows, classes]
    keep = batched_nms(boxes, scores, classes, nms_thresh)
    if topk_per_image >= 0:
        keep = keep[:topk_per_image]
    detections = Instances(
        image_shape, pred_boxes=Boxes(boxes[keep]), scores=scores[keep], pred_classes=classes[keep]
    )
    return detections, rows[keep]


def _drop_not_finite(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores).all(dim=1)
    dropped = len(finite) - int(finite.sum())
    if dropped == 0:
        return boxes, scores
    log_first_n(
        logging.WARNING,
        f"Dropped {dropped} of {len(finite)} predicted rows of an image: they contain Inf or NaN. "
        "Results of this model are not to be trusted. (This message appears once.)",
    )
    return boxes[finite], scores[finite]


def federated_classes(gt_classes: Tensor, count: int, num_classes: int, weights: Tensor) -> Tensor:
    """The classes that enter the loss: those present in the batch, and random others.

    Args:
        gt_classes: (R,) classes of the batch, `num_classes` meaning background.
        count: how many classes to reach.
        num_classes: K.
        weights: (K,) chance of each absent class, not normalised.

    Returns:
        Distinct classes, ascending present ones (background among them, where it occurs) first;
        more than `count` where more are present.

    Reference: Zhou et al. 2021, arXiv 2103.07461, section 5.3.
    """
    present = gt_classes.unique()
    if len(present) >= count:
        return present
    # Background has a place here, with chance 0: `multinomial` draws one number per entry.
    chances = torch.cat([weights.float(), weights.new_zeros(1)])  # (K + 1,)
    # They are in already; the others are drawn without replacement.
    chances[present] = 0
    return torch.cat([present, torch.multinomial(chances, count - len(present))])


class FastRCNNOutputLayers(nn.Module):
    """Two linear layers for classes and boxes of regions, with losses and inference.

    Args:
        input_shape: of the region features, (R, channels[, height, width]); an int for channels.
        box2box_transform: the meaning of the box deltas.
        num_classes: K, without background.
        test_score_thresh: see `fast_rcnn_inference`.
        test_nms_thresh: see `fast_rcnn_inference`.
        test_topk_per_image: see `fast_rcnn_inference`.
        cls_agnostic_bbox_reg: predict one box per region instead of one per class.
        smooth_l1_beta: see `box_regression_loss`.
        box_reg_loss_type: see `box_regression_loss`.
        loss_weight: one factor for both losses, or a mapping with keys `loss_cls` and
            `loss_box_reg`.
        use_fed_loss: count only some classes in each step, see `federated_classes`.
        use_sigmoid_ce: one binary classifier per class instead of a softmax.
        get_fed_loss_cls_weights: returns the K weights of `federated_classes`.
        fed_loss_num_classes: how many classes count, at most K.

    Raises:
        AssertionError: the federated loss without sigmoid, or with weights that are not K.
        ValueError: the federated loss over more classes than there are.

    Reference: Girshick 2015, arXiv 1504.08083; the federated loss Zhou et al. 2021,
    arXiv 2103.07461, section 5.3.
    """

    def __init__(
        self,
        input_shape: ShapeSpec | int,
        *,
        box2box_transform: Box2BoxTransform,
        num_classes: int,
        test_score_thresh: float = 0.0,
        test_nms_thresh: float = 0.5,
        test_topk_per_image: int = 100,
        cls_agnostic_bbox_reg: bool = False,
        smooth_l1_beta: float = 0.0,
        box_reg_loss_type: str = "smooth_l1",
        loss_weight: float | Mapping[str, float] = 1.0,
        use_fed_loss: bool = False,
        use_sigmoid_ce: bool = False,
        get_fed_loss_cls_weights: Callable[[], Tensor] | None = None,
        fed_loss_num_classes: int = 50,
    ):
        super().__init__()
        if isinstance(input_shape, int):
            input_shape = ShapeSpec(channels=input_shape)
        in_features = math.prod(
            (input_shape.channels, input_shape.height or 1, input_shape.width or 1)
        )
        self.num_classes = num_classes
        self.cls_score = Linear(in_features, num_classes + 1)
        self.bbox_pred = Linear(in_features, 4 * (1 if cls_agnostic_bbox_reg else num_classes))
        # Both standard deviations are those of Girshick 2015, section 2.3.
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        nn.init.zeros_(self.cls_score.bias)
        nn.init.zeros_(self.bbox_pred.bias)

        self.box2box_transform = box2box_transform
        self.smooth_l1_beta = smooth_l1_beta
        self.box_reg_loss_type = box_reg_loss_type
        self.loss_weights = LossWeights(loss_weight, ("loss_cls", "loss_box_reg"))
        self.test_score_thresh = test_score_thresh
        self.test_nms_thresh = test_nms_thresh
        self.test_topk_per_image = test_topk_per_image
        self.use_sigmoid_ce = use_sigmoid_ce
        self.use_fed_loss = use_fed_loss
        self.fed_loss_num_classes = fed_loss_num_classes
        if use_fed_loss:
            self._register_federated_weights(get_fed_loss_cls_weights)

    def _register_federated_weights(self, get_weights: Callable[[], Tensor] | None) -> None:
        assert self.use_sigmoid_ce, "use_fed_loss=True needs use_sigmoid_ce=True"
        assert get_weights is not None, "use_fed_loss=True needs get_fed_loss_cls_weights"
        if self.fed_loss_num_classes > self.num_classes:
            raise ValueError(
                f"fed_loss_num_classes must be at most num_classes = {self.num_classes}, "
                f"got {self.fed_loss_num_classes}"
            )
        weights = get_weights()
        assert len(weights) == self.num_classes, (
            f"get_fed_loss_cls_weights must return num_classes = {self.num_classes} weights, "
            f"got {len(weights)}"
        )
        # Saved, unlike other constants of a config, because upstream's checkpoints have this entry.
        self.register_buffer("fed_loss_cls_weights", weights)

    def forward(self, x: Tensor) -> Predictions:
        """Predict for R regions.

        Args:
            x: (R, ...) region features, flattened here.

        Returns:
            (R, K + 1) class logits, background last, and (R, 4K) or (R, 4) box deltas.
        """
        x = x.flatten(1) if x.dim() > 2 else x
        return self.cls_score(x), self.bbox_pred(x)

    def losses(self, predictions: Predictions, proposals: list[Instances]) -> dict[str, Tensor]:
        """Classification and box loss of sampled proposals, inside an `EventStorage`.

        Args:
            predictions: what `forward` returned for all proposals, image after image.
            proposals: per image, with `proposal_boxes`, `gt_classes` (K is background) and, where
                the image has objects, `gt_boxes`.

        Returns:
            `loss_cls` and `loss_box_reg`, weighted scalars.

        Raises:
            AssertionError: the proposals require a gradient.
        """
        logits, deltas = predictions
        gt_classes = _concatenate([p.gt_classes for p in proposals], torch.int64)
        self._log_classification(logits, gt_classes)

        boxes = _concatenate([p.proposal_boxes.tensor for p in proposals], torch.float32, 4)
        assert not boxes.requires_grad, "proposals must not require a gradient; detach the boxes"
        gt_boxes = _concatenate(
            [(p.gt_boxes if p.has("gt_boxes") else p.proposal_boxes).tensor for p in proposals],
            torch.float32,
            4,
        )
        if self.use_sigmoid_ce:
            loss_cls = self._sigmoid_cross_entropy(logits, gt_classes)
        else:
            loss_cls = cross_entropy(logits, gt_classes, reduction="mean")
        loss_box_reg = self._box_reg_loss(boxes, gt_boxes, deltas, gt_classes)
        return self.loss_weights.apply({"loss_cls": loss_cls, "loss_box_reg": loss_box_reg})

    def _log_classification(self, logits: Tensor, gt_classes: Tensor) -> None:
        if gt_classes.numel() == 0:
            return

        # Counted on the host, with the log: on the device it would be ten operators a step.
        def scalars(classes: list[float]) -> dict[str, float]:
            predicted, expected = np.reshape(classes, (2, -1))
            is_right = predicted == expected
            is_foreground = (expected >= 0) & (expected < self.num_classes)
            result = {"fast_rcnn/cls_accuracy": is_right.mean()}
            if is_foreground.any():
                result["fast_rcnn/fg_cls_accuracy"] = is_right[is_foreground].mean()
                is_missed = predicted[is_foreground] == self.num_classes
                result["fast_rcnn/false_negative"] = is_missed.mean()
            return result

        get_event_storage().put_deferred(torch.cat([logits.argmax(dim=1), gt_classes]), scalars)

    def _sigmoid_cross_entropy(self, logits: Tensor, gt_classes: Tensor) -> Tensor:
        if gt_classes.numel() == 0:
            return logits.sum() * 0.0  # keeps the graph
        target = F.one_hot(gt_classes, self.num_classes + 1)[:, :-1]  # background: all zero
        loss = F.binary_cross_entropy_with_logits(
            logits[:, :-1], target.to(logits.dtype), reduction="none"
        )
        if self.use_fed_loss:
            classes = federated_classes(
                gt_classes, self.fed_loss_num_classes, self.num_classes, self.fed_loss_cls_weights
            )
            # As many as classes with background, which may be among those present, and is cut off
            # again.
            counts = torch.zeros(self.num_classes + 1, dtype=loss.dtype, device=loss.device)
            counts[classes] = 1
            loss = loss * counts[:-1]
        return loss.sum() / len(gt_classes)

    def _box_reg_loss(
        self, boxes: Tensor, gt_boxes: Tensor, deltas: Tensor, gt_classes: Tensor
    ) -> Tensor:
        if deltas.shape[1] > 4:
            rows = torch.arange(len(deltas), device=deltas.device)
            # Background gets the deltas of some class: its rows are left out of the loss.
            deltas = _of_class(deltas, rows, gt_classes.clamp(max=self.num_classes - 1))
        loss = box_regression_loss(
            boxes,
            deltas,
            gt_boxes,
            self.box2box_transform,
            self.box_reg_loss_type,
            self.smooth_l1_beta,
            left_out=gt_classes == self.num_classes,
        )
        # Over all sampled rows, not only the foreground: so an image with few objects does not
        # weigh each of them more.
        return loss / max(gt_classes.numel(), 1)

    def inference(
        self, predictions: Predictions, proposals: list[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """The detections of each image, see `fast_rcnn_inference`.

        Args:
            predictions: what `forward` returned for all proposals, image after image.
            proposals: per image, with `proposal_boxes`.

        Returns:
            See `fast_rcnn_inference`.
        """
        return fast_rcnn_inference(
            self.predict_boxes(predictions, proposals),
            self.predict_probs(predictions, proposals),
            [p.image_size for p in proposals],
            self.test_score_thresh,
            self.test_nms_thresh,
            self.test_topk_per_image,
        )

    def predict_boxes(self, predictions: Predictions, proposals: list[Instances]) -> list[Tensor]:
        """The decoded boxes of each image, (R_i, 4K) or (R_i, 4); arguments as `inference`."""
        if not proposals:
            return []
        _, deltas = predictions
        boxes = cat([p.proposal_boxes.tensor for p in proposals])
        decoded = self.box2box_transform.apply_deltas(deltas, boxes)
        return list(decoded.split([len(p) for p in proposals]))

    def predict_boxes_for_gt_classes(
        self, predictions: Predictions, proposals: list[Instances]
    ) -> list[Tensor]:
        """The decoded box of each proposal's `gt_classes`, (R_i, 4) per image.

        For background the box of some class is returned.

        Args:
            predictions: what `forward` returned for all proposals, image after image.
            proposals: per image, with `proposal_boxes` and `gt_classes`.

        Returns:
            Per image (R_i, 4).
        """
        chosen = []
        for boxes, p in zip(self.predict_boxes(predictions, proposals), proposals, strict=True):
            rows = torch.arange(len(boxes), device=boxes.device)
            chosen.append(_of_class(boxes, rows, p.gt_classes.clamp(0, self.num_classes - 1)))
        return chosen

    def predict_probs(self, predictions: Predictions, proposals: list[Instances]) -> list[Tensor]:
        """The probabilities of each image, (R_i, K + 1); arguments as `inference`."""
        logits, _ = predictions
        probs = logits.sigmoid() if self.use_sigmoid_ce else logits.softmax(dim=-1)
        return list(probs.split([len(p) for p in proposals]))


def _concatenate(tensors: list[Tensor], dtype: torch.dtype, *columns: int) -> Tensor:
    return cat(tensors) if tensors else torch.zeros(0, *columns, dtype=dtype)


def _of_class(boxes: Tensor, rows: Tensor, classes: Tensor) -> Tensor:
    """Of (R, 4K) values side by side the (M, 4) of the given rows and classes, both (M,).

    Where `boxes` is (R, 4), the same for all classes, the class has no influence.
    """
    if boxes.shape[1] == 4:
        return boxes[rows]
    return boxes.view(len(boxes), boxes.shape[1] // 4, 4)[rows, classes]
