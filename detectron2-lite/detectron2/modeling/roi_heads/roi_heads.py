"""Sampling of proposals, and the standard heads for boxes and masks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detectron2.modeling.matcher import Matcher, match_images, matched_classes
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers, Predictions
from detectron2.modeling.sampling import subsample_labels_of_images, true_rows
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage


def select_foreground_proposals(
    proposals: list[Instances], bg_label: int
) -> tuple[list[Instances], list[Tensor]]:
    """Keep the proposals that show an object.

    Args:
        proposals: per image, with `gt_classes`.
        bg_label: the class that means background; -1 means ignored.

    Returns:
        Per image, the foreground proposals and the (R,) bool mask that chose them.
    """
    if not proposals:
        return [], []
    masks = [(p.gt_classes != -1) & (p.gt_classes != bg_label) for p in proposals]
    # Rows, found for all images and fields at once: each index by bools waits for the device.
    return [p[rows] for p, rows in zip(proposals, true_rows(masks), strict=True)], masks


def _foreground(proposals: list[Instances], bg_label: int) -> list[Instances]:
    """`select_foreground_proposals`, without a wait where classes are those that were sampled."""
    chosen = []
    for p in proposals:
        count, version = getattr(p.gt_classes, "_sampled_foreground", (0, None))
        # Other classes than those sampled, or the same but changed in place.
        if version is None or version != p.gt_classes._version:
            return select_foreground_proposals(proposals, bg_label)[0]
        chosen.append(p[:count])
    return chosen


class ROIHeads(nn.Module):
    """Base of heads that work on proposals: labels and samples them for training.

    Args:
        num_classes: K, without background.
        batch_size_per_image: proposals sampled per image.
        positive_fraction: the largest share of objects among them.
        proposal_matcher: labels proposals by IoU with the ground truth: 1 object, 0 background,
            -1 ignored.
        proposal_append_gt: add the ground-truth boxes to the proposals in training.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        batch_size_per_image: int,
        positive_fraction: float,
        proposal_matcher: Matcher,
        proposal_append_gt: bool = True,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.proposal_matcher = proposal_matcher
        self.proposal_append_gt = proposal_append_gt

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """Choose the proposals to train on and say what each should predict.

        Runs inside an `EventStorage`.

        Args:
            proposals: per image, with `proposal_boxes` and `objectness_logits`.
            targets: per image, with `gt_boxes`, `gt_classes` and other `gt_*` fields.

        Returns:
            Per image, the sampled proposals, foreground first, with `gt_classes` (K is
            background) and, where the image has objects, every `gt_*` field of the matched
            object. Those of background rows have no meaning.
        """
        if self.proposal_append_gt:
            proposals = add_ground_truth_to_proposals(targets, proposals)
        gt_boxes = [x.gt_boxes for x in targets]
        gt_classes = [x.gt_classes for x in targets]
        matches, labels = match_images(
            self.proposal_matcher, gt_boxes, [x.proposal_boxes for x in proposals]
        )
        classes = matched_classes(matches, labels, gt_classes, self.num_classes)
        lengths = [len(x) for x in proposals]
        rows, counts = subsample_labels_of_images(
            classes, lengths, self.batch_size_per_image, self.positive_fraction, self.num_classes
        )
        foreground, background = counts[::2], counts[1::2]
        per_image = [sum(of_image) for of_image in zip(foreground, background, strict=True)]
        drawn = zip(rows.split(per_image), classes[rows].split(per_image), strict=True)
        sampled, start = [], 0
        for i, (rows_i, classes_i) in enumerate(drawn):
            # They count through all images.
            rows_i = rows_i - start if start > 0 else rows_i
            sampled.append(_with_targets(proposals[i], targets[i], matches[i], rows_i, classes_i))
            start += lengths[i]
            # The host knows here how many come first: the mask branch need not ask the device.
            if not classes_i.is_inference():  # such tensors have no version
                classes_i._sampled_foreground = foreground[i], classes_i._version
        storage = get_event_storage()
        storage.put_scalar("roi_head/num_fg_samples", sum(foreground) / len(sampled))
        storage.put_scalar("roi_head/num_bg_samples", sum(background) / len(sampled))
        return sampled

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Sampled proposals and losses in training, detections and {} otherwise."""
        raise NotImplementedError(f"{type(self).__name__} must define forward()")


def _with_targets(
    proposals: Instances, targets: Instances, matches: Tensor, rows: Tensor, classes: Tensor
) -> Instances:
    """The chosen rows of `proposals` with their classes and the fields of matched objects."""
    sampled = proposals[rows]
    sampled.gt_classes = classes
    if len(targets) > 0:
        matched = matches[rows]
        for name, value in targets.get_fields().items():
            # `gt_classes` is there already, with background among them.
            if name.startswith("gt_") and not sampled.has(name):
                sampled.set(name, value[matched])
    return sampled


class StandardROIHeads(ROIHeads):
    """A box branch and, where wanted, a mask branch, each with its own pooler and head.

    Args:
        box_in_features: names of the feature maps to pool boxes from.
        box_pooler: makes (R, C, H, W) region features.
        box_head: network on region features.
        box_predictor: predicts from the output of `box_head`.
        mask_in_features: names of the feature maps to pool masks from; None for no masks.
        mask_pooler: pooler of the mask branch.
        mask_head: network and loss of the mask branch.
        keypoint_in_features: must be None, as `keypoint_pooler` and `keypoint_head`.
        keypoint_pooler: must be None.
        keypoint_head: must be None.
        train_on_pred_boxes: train the mask branch on the boxes that the box branch predicts
            instead of the proposals.
        **kwargs: see `ROIHeads`.

    Raises:
        ValueError: a keypoint branch is asked for, or half a mask branch.

    Reference: He et al. 2017, arXiv 1703.06870.
    """

    def __init__(
        self,
        *,
        box_in_features: Sequence[str],
        box_pooler: ROIPooler,
        box_head: nn.Module,
        box_predictor: FastRCNNOutputLayers,
        mask_in_features: Sequence[str] | None = None,
        mask_pooler: ROIPooler | None = None,
        mask_head: nn.Module | None = None,
        keypoint_in_features: None = None,
        keypoint_pooler: None = None,
        keypoint_head: None = None,
        train_on_pred_boxes: bool = False,
        **kwargs: object,
    ):
        super().__init__(**kwargs)
        if any(x is not None for x in (keypoint_in_features, keypoint_pooler, keypoint_head)):
            raise ValueError(
                "detectron2-lite has no keypoint branch: keypoint_in_features, keypoint_pooler "
                "and keypoint_head must be None; use upstream Detectron2 for keypoints"
            )
        self.box_in_features = list(box_in_features)
        self.box_pooler = box_pooler
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.mask_on = mask_in_features is not None
        if self.mask_on:
            if mask_pooler is None or mask_head is None:
                raise ValueError("mask_in_features is given, so mask_pooler and mask_head must be")
            self.mask_in_features = list(mask_in_features)
            self.mask_pooler = mask_pooler
            self.mask_head = mask_head
        self.train_on_pred_boxes = train_on_pred_boxes

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Train on proposals, or turn them into detections.

        Args:
            images: not used; other heads may.
            features: (N, C, H, W) by name.
            proposals: per image, with `proposal_boxes` and `objectness_logits`.
            targets: per image, with `gt_boxes`, `gt_classes` and, for masks, `gt_masks`; needed
                in training.

        Returns:
            In training the sampled proposals and the losses `loss_cls`, `loss_box_reg` and, with
            masks, `loss_mask`; otherwise detections (`pred_boxes`, `scores`, `pred_classes` and,
            with masks, `pred_masks`, see `mask_rcnn_inference`) and {}.

        Raises:
            AssertionError: training without targets.
        """
        if not self.training:
            detections = self._forward_box(features, proposals)
            return self.forward_with_given_boxes(features, detections), {}
        assert targets is not None, (
            "ROI heads need targets in training; every input must have 'instances'"
        )
        proposals = self.label_and_sample_proposals(proposals, targets)
        losses = self._box_losses(features, proposals, targets)
        # Here, because the mask branch may train on the boxes that the box branch has put in.
        losses.update(self._forward_mask(features, proposals))
        return proposals, losses

    def forward_with_given_boxes(
        self, features: dict[str, Tensor], instances: list[Instances]
    ) -> list[Instances]:
        """Predict everything but the boxes for boxes that are already known.

        Args:
            features: (N, C, H, W) by name.
            instances: per image, with `pred_boxes` and `pred_classes`.

        Returns:
            The same instances, with `pred_masks` where there is a mask branch.

        Raises:
            AssertionError: in training mode, or a field is absent.
        """
        assert not self.training, "forward_with_given_boxes works in eval mode only; call .eval()"
        for i, instances_i in enumerate(instances):
            absent = [x for x in ("pred_boxes", "pred_classes") if not instances_i.has(x)]
            assert not absent, f"given instances must have {absent}, image {i} of the batch has not"
        return self._forward_mask(features, instances)

    def _box_losses(
        self, features: dict[str, Tensor], proposals: list[Instances], targets: list[Instances]
    ) -> dict[str, Tensor]:
        return self._forward_box(features, proposals)

    def _forward_box(
        self, features: dict[str, Tensor], proposals: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        """The losses of the box branch in training, detections otherwise."""
        maps = [features[name] for name in self.box_in_features]
        pooled = self.box_pooler(maps, [x.proposal_boxes for x in proposals])
        predictions = self.box_predictor(self.box_head(pooled))
        if not self.training:
            detections, _ = self.box_predictor.inference(predictions, proposals)
            return detections
        losses = self.box_predictor.losses(predictions, proposals)
        if self.train_on_pred_boxes:
            self._replace_boxes(predictions, proposals)
        return losses

    @torch.no_grad()
    def _replace_boxes(self, predictions: Predictions, proposals: list[Instances]) -> None:
        boxes = self.box_predictor.predict_boxes_for_gt_classes(predictions, proposals)
        for proposals_i, boxes_i in zip(proposals, boxes, strict=True):
            proposals_i.proposal_boxes = Boxes(boxes_i)

    def _forward_mask(
        self, features: dict[str, Tensor], instances: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        """The mask loss of foreground proposals in training, detections with masks otherwise."""
        if not self.mask_on:
            return {} if self.training else instances
        source = "pred_boxes"
        if self.training:
            source = "proposal_boxes"
            instances = _foreground(instances, self.num_classes)
        pooled = self.mask_pooler(
            [features[name] for name in self.mask_in_features], [x.get(source) for x in instances]
        )
        return self.mask_head(pooled, instances)
