"""RetinaNet: a one-stage detector with a focal loss."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor, nn

from detectron2.layers import (
    CycleBatchNormList,
    ShapeSpec,
    batched_nms,
    cat,
    get_norm,
    nonzero_tuple,
)
from detectron2.layers.batch_norm import Norm, SyncBatchNorm
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator, by_anchor
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.box_regression import Box2BoxTransform, box_regression_loss
from detectron2.modeling.matcher import Matcher, match_images, matched_boxes, matched_classes
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.modeling.sampling import true_rows
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage

_NORMALIZER_MOMENTUM = 0.9

# class logits and box deltas, each one tensor per level
_Predictions: TypeAlias = tuple[list[Tensor], list[Tensor]]


class RetinaNet(DenseDetector):
    """Classifies and refines every anchor; the focal loss keeps easy background from dominating.

    Both losses are divided by `loss_normalizer`, a moving average of the positive anchors per
    batch. It belongs to a training and not to the weights: it is not in the state dict, and a
    model that starts from weights alone starts with 100.

    Args:
        backbone: maps images to named feature maps.
        head: makes logits and box deltas, see `RetinaNetHead`.
        head_in_features: names of the maps for the head, one level each, finest first.
        anchor_generator: makes one `Boxes` per level.
        box2box_transform: the meaning of the box deltas.
        anchor_matcher: labels anchors by IoU with the ground truth: 1 object, 0 background, -1
            ignored. All others enter the loss: there is no sampling.
        num_classes: K.
        focal_loss_alpha: weight of objects against 1 - alpha of background; negative: no weights.
        focal_loss_gamma: the larger, the less well-classified anchors count; 0: cross entropy.
        smooth_l1_beta: see `box_regression_loss`.
        box_reg_loss_type: see `box_regression_loss`.
        test_score_thresh: an (anchor, class) pair stays if its score is above it.
        test_topk_candidates: pairs per image and level that enter suppression.
        test_nms_thresh: of two boxes of one class whose IoU is above it, the worse one goes.
        max_detections_per_image: detections kept per image.
        input_format: channel order of the input images, "RGB" or "BGR"; only drawing needs it.
        **kwargs: `pixel_mean`, `pixel_std`, and where wanted `vis_period`, see `DenseDetector`.

    Reference: Lin et al. 2017, arXiv 1708.02002. The paper divides by the positive anchors of the
    batch itself.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
        head_in_features: Sequence[str] | None,
        anchor_generator: DefaultAnchorGenerator,
        box2box_transform: Box2BoxTransform,
        anchor_matcher: Matcher,
        num_classes: int,
        focal_loss_alpha: float = 0.25,
        focal_loss_gamma: float = 2.0,
        smooth_l1_beta: float = 0.0,
        box_reg_loss_type: str = "smooth_l1",
        test_score_thresh: float = 0.05,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.5,
        max_detections_per_image: int = 100,
        input_format: str = "BGR",
        **kwargs: Any,
    ):
        super().__init__(backbone, head, head_in_features, input_format=input_format, **kwargs)
        self.num_classes = num_classes
        self.anchor_generator = anchor_generator
        self.box2box_transform = box2box_transform
        self.anchor_matcher = anchor_matcher
        self.focal_loss_alpha = focal_loss_alpha
        self.focal_loss_gamma = focal_loss_gamma
        self.smooth_l1_beta = smooth_l1_beta
        self.box_reg_loss_type = box_reg_loss_type
        self.test_score_thresh = test_score_thresh
        self.test_topk_candidates = test_topk_candidates
        self.test_nms_thresh = test_nms_thresh
        self.max_detections_per_image = max_detections_per_image
        self.loss_normalizer = 100.0

    def forward_training(
        self,
        images: ImageList,
        features: list[Tensor],
        predictions: _Predictions,
        gt_instances: list[Instances],
    ) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            images: not used.
            features: per level (N, C, H, W).
            predictions: what the head returned.
            gt_instances: per image, with `gt_boxes` and `gt_classes`.

        Returns:
            `loss_cls` and `loss_box_reg`, see `losses`.
        """
        logits, deltas = self._by_anchor(predictions)
        anchors = self.anchor_generator(features)
        gt_labels, gt_boxes = self.label_anchors(anchors, gt_instances)
        return self.losses(anchors, logits, gt_labels, deltas, gt_boxes)

    def _by_anchor(self, predictions: _Predictions) -> _Predictions:
        """Per level (N, HWA, K) logits and (N, HWA, 4) deltas."""
        logits, deltas = predictions
        return [by_anchor(x, self.num_classes) for x in logits], [by_anchor(x, 4) for x in deltas]

    @torch.no_grad()
    def label_anchors(
        self, anchors: list[Boxes], instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Decide what each anchor should predict.

        Args:
            anchors: one `Boxes` per level.
            instances: per image, with `gt_boxes` and `gt_classes`.

        Returns:
            Per image (R,) classes of all anchors, K for background and -1 for ignored ones; and
            (R, 4) the ground-truth box of each anchor (zeros where the image has none).
        """
        anchors = Boxes.cat(anchors)
        gt_boxes = [x.gt_boxes for x in instances]
        matches, states = match_images(self.anchor_matcher, gt_boxes, [anchors] * len(gt_boxes))
        gt_classes = [x.gt_classes for x in instances]
        labels = matched_classes(matches, states, gt_classes, self.num_classes)
        return list(labels.view(len(gt_boxes), -1)), matched_boxes(matches, gt_boxes)

    def losses(
        self,
        anchors: list[Boxes],
        pred_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """Focal loss of all anchors and box loss of the positive ones, over `loss_normalizer`.

        Updates `loss_normalizer` by the positive anchors of this process's batch.

        Args:
            anchors: one `Boxes` per level.
            pred_logits: per level (N, HWA, K).
            gt_labels: per image (R,), see `label_anchors`.
            pred_anchor_deltas: per level (N, HWA, 4).
            gt_boxes: per image (R, 4).

        Returns:
            `loss_cls` and `loss_box_reg`.
        """
        labels = torch.cat(gt_labels)  # (N * R,)
        valid = labels >= 0
        positive = valid & (labels != self.num_classes)
        # Rows instead of bools: each index by bools waits for the device once more.
        valid, positive = true_rows([valid, positive])
        num_positive = len(positive)
        get_event_storage().put_scalar("num_pos_anchors", num_positive / len(gt_labels))
        self.loss_normalizer = _NORMALIZER_MOMENTUM * self.loss_normalizer + (
            1 - _NORMALIZER_MOMENTUM
        ) * max(num_positive, 1)

        # Booleans, of one byte: N * R * K of them are among the largest tensors of a step. For
        # background, class K, the row is empty.
        target = labels[valid][:, None] == torch.arange(self.num_classes, device=labels.device)
        loss_cls = sigmoid_focal_loss(
            cat(pred_logits, dim=1).flatten(0, 1)[valid],
            target,
            alpha=self.focal_loss_alpha,
            gamma=self.focal_loss_gamma,
            reduction="sum",
        )
        anchors = Boxes.cat(anchors).tensor
        loss_box_reg = box_regression_loss(
            # Rows go through all images, whose anchors are the same.
            anchors[positive % len(anchors)],
            cat(pred_anchor_deltas, dim=1).flatten(0, 1)[positive],
            torch.cat(gt_boxes)[positive],
            self.box2box_transform,
            self.box_reg_loss_type,
            self.smooth_l1_beta,
        )
        return {
            "loss_cls": loss_cls / self.loss_normalizer,
            "loss_box_reg": loss_box_reg / self.loss_normalizer,
        }

    def forward_inference(
        self, images: ImageList, features: list[Tensor], predictions: _Predictions
    ) -> list[Instances]:
        """The detections of a batch.

        Args:
            images: only `image_sizes` is read.
            features: per level (N, C, H, W).
            predictions: what the head returned.

        Returns:
            Per image, best first: `pred_boxes` (not clipped to the image), `scores`,
            `pred_classes`.
        """
        logits, deltas = self._by_anchor(predictions)
        anchors = self.anchor_generator(features)
        return [
            self.inference_single_image(
                anchors, [x[i].sigmoid() for x in logits], [x[i] for x in deltas], image_size
            )
            for i, image_size in enumerate(images.image_sizes)
        ]

    def inference_single_image(
        self,
        anchors: list[Boxes],
        box_cls: list[Tensor],
        box_delta: list[Tensor],
        image_size: tuple[int, int],
    ) -> Instances:
        """The detections of one image, see `forward_inference`.

        Args:
            anchors: one `Boxes` per level.
            box_cls: per level (HWA, K) scores in [0, 1].
            box_delta: per level (HWA, 4).
            image_size: (height, width).
        """
        boxes, scores, classes = [], [], []
        for anchors_i, scores_i, deltas_i in zip(anchors, box_cls, box_delta, strict=True):
            rows, columns = nonzero_tuple(scores_i > self.test_score_thresh)
            count = min(self.test_topk_candidates, len(rows))
            # Only the best pairs are decoded.
            best, order = scores_i[rows, columns].topk(count)
            rows = rows[order]
            boxes.append(
                self.box2box_transform.apply_deltas(deltas_i[rows], anchors_i.tensor[rows])
            )
            scores.append(best)
            classes.append(columns[order])
        boxes, scores, classes = cat(boxes), cat(scores), cat(classes)
        keep = batched_nms(boxes, scores, classes, self.test_nms_thresh)
        keep = keep[: self.max_detections_per_image]
        return Instances(
            image_size,
            pred_boxes=Boxes(boxes[keep]),
            scores=scores[keep],
            pred_classes=classes[keep],
        )


class RetinaNetHead(nn.Module):
    """Two towers of 3x3 convolutions, for classes and for boxes; the same weights on all levels.

    With norm "BN" or "SyncBN" every level has its own statistics, see `CycleBatchNormList`.

    Args:
        input_shape: shape of each level; all have the same channels.
        num_classes: K.
        num_anchors: anchors per location (A).
        conv_dims: output channels of the convolutions of each tower.
        norm: after each of them, see `detectron2.layers.get_norm`.
        prior_prob: the score of every anchor and class in the beginning: most are background.

    Reference: Lin et al. 2017, arXiv 1708.02002, section 4; statistics per level as in Tan et al.
    2019, arXiv 1911.09070.
    """

    def __init__(
        self,
        *,
        input_shape: list[ShapeSpec],
        num_classes: int,
        num_anchors: int,
        conv_dims: Sequence[int],
        norm: Norm = "",
        prior_prob: float = 0.01,
    ):
        super().__init__()
        self._num_levels = len(input_shape)
        channels = [input_shape[0].channels, *conv_dims]
        self.cls_subnet = self._tower(channels, norm)
        self.bbox_subnet = self._tower(channels, norm)
        self.cls_score = nn.Conv2d(channels[-1], num_anchors * num_classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(channels[-1], num_anchors * 4, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)
        # The sigmoid of this is `prior_prob`: section 4.1 of the paper.
        nn.init.constant_(self.cls_score.bias, -math.log((1 - prior_prob) / prior_prob))

    def _tower(self, channels: Sequence[int], norm: Norm) -> nn.Sequential:
        layers: list[nn.Module] = []
        for in_channels, out_channels in zip(channels, channels[1:], strict=False):
            layers.append(nn.Conv2d(in_channels, out_channels, 3, padding=1))
            if norm in ("BN", "SyncBN"):
                cls = nn.BatchNorm2d if norm == "BN" else SyncBatchNorm
                layers.append(
                    CycleBatchNormList(self._num_levels, bn_class=cls, num_features=out_channels)
                )
            elif norm:
                layers.append(get_norm(norm, out_channels))
            layers.append(nn.ReLU())
        return nn.Sequential(*layers)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Score and refine every anchor.

        Args:
            features: per level (N, C, H, W).

        Returns:
            Per level (N, A * K, H, W) logits and (N, A * 4, H, W) deltas, anchor by anchor.

        Raises:
            AssertionError: for another number of levels than `input_shape` has.
        """
        assert len(features) == self._num_levels, (
            f"RetinaNetHead is built for {self._num_levels} levels (input_shape), "
            f"got {len(features)}; see head_in_features"
        )
        for layer in self.modules():
            if isinstance(layer, CycleBatchNormList):
                layer.reset()
        return (
            [self.cls_score(self.cls_subnet(x)) for x in features],
            [self.bbox_pred(self.bbox_subnet(x)) for x in features],
        )
