"""Heads that refine boxes in several stages."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from detectron2.modeling.matcher import Matcher, match_images, matched_boxes, matched_classes
from detectron2.modeling.roi_heads.fast_rcnn import (
    FastRCNNOutputLayers,
    Predictions,
    fast_rcnn_inference,
)
from detectron2.modeling.roi_heads.roi_heads import StandardROIHeads
from detectron2.modeling.sampling import true_rows
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import get_event_storage


class CascadeROIHeads(StandardROIHeads):
    """Box branches one after the other, each on the boxes that the one before has predicted.

    Each stage asks for a higher IoU than the last. The mask branch trains on the proposals that
    are sampled for the first stage. The losses of the box branches are named by stage:
    `loss_cls_stage0`, `loss_box_reg_stage0`, `loss_cls_stage1`, ...

    Args:
        box_heads: network on region features of each stage.
        box_predictors: class-agnostic predictor of each stage (`cls_agnostic_bbox_reg=True`).
        proposal_matchers: labels the boxes of each stage by IoU with the ground truth.
        **kwargs: see `StandardROIHeads`; `box_in_features` and `box_pooler` are for all stages.

    Raises:
        AssertionError: the lists differ in length, or `proposal_matcher` is given; on a call, if a
            predictor is not class-agnostic.

    Reference: Cai and Vasconcelos 2017, arXiv 1712.00726.
    """

    def __init__(
        self,
        *,
        box_heads: Sequence[nn.Module],
        box_predictors: Sequence[FastRCNNOutputLayers],
        proposal_matchers: Sequence[Matcher],
        **kwargs: object,
    ):
        assert "proposal_matcher" not in kwargs, (
            "CascadeROIHeads takes proposal_matchers, one per stage, instead of proposal_matcher"
        )
        lengths = len(box_heads), len(box_predictors), len(proposal_matchers)
        assert len(set(lengths)) == 1, (
            "box_heads, box_predictors and proposal_matchers must have one entry per stage, "
            f"got {lengths}"
        )
        super().__init__(
            box_head=nn.ModuleList(box_heads),
            box_predictor=nn.ModuleList(box_predictors),
            proposal_matcher=proposal_matchers[0],
            **kwargs,
        )
        self.num_cascade_stages = len(box_heads)
        self.proposal_matchers = list(proposal_matchers)

    def _box_losses(
        self, features: dict[str, Tensor], proposals: list[Instances], targets: list[Instances]
    ) -> dict[str, Tensor]:
        losses = {}
        stages = self._stages(features, proposals, targets)
        for stage, (predictor, predictions, proposals) in enumerate(stages):
            with get_event_storage().name_scope(f"stage{stage}"):
                stage_losses = predictor.losses(predictions, proposals)
            losses.update({f"{name}_stage{stage}": x for name, x in stage_losses.items()})
        return losses

    def _forward_box(
        self, features: dict[str, Tensor], proposals: list[Instances]
    ) -> list[Instances]:
        """Detections: the boxes of the last stage, the mean class probabilities of all stages."""
        probs = []  # per stage, per image (R, K + 1)
        for predictor, predictions, proposals in self._stages(features, proposals):  # noqa: B020
            probs.append(predictor.predict_probs(predictions, proposals))
        # What the loop leaves behind is the last stage.
        detections, _ = fast_rcnn_inference(
            predictor.predict_boxes(predictions, proposals),
            [torch.stack(of_image).mean(dim=0) for of_image in zip(*probs, strict=True)],
            [x.image_size for x in proposals],
            predictor.test_score_thresh,
            predictor.test_nms_thresh,
            predictor.test_topk_per_image,
        )
        return detections

    def _stages(
        self,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> Iterator[tuple[FastRCNNOutputLayers, Predictions, list[Instances]]]:
        """Run stage after stage: its predictor, predictions, and the proposals they are for."""
        for stage, predictor in enumerate(self.box_predictor):
            predictions = self._run_stage(features, proposals, stage)
            yield predictor, predictions, proposals
            if stage + 1 < self.num_cascade_stages:
                proposals = self._refined(stage, predictions, proposals)
                if targets is not None:
                    self._match_and_label_boxes(proposals, stage + 1, targets)

    def _run_stage(
        self, features: dict[str, Tensor], proposals: list[Instances], stage: int
    ) -> Predictions:
        """What the predictor of a stage says of the proposals."""
        maps = [features[name] for name in self.box_in_features]
        pooled = self.box_pooler(maps, [x.proposal_boxes for x in proposals])
        if pooled.requires_grad:
            # The stages share the feature maps: together they count as much as one.
            pooled.register_hook(lambda grad: grad / self.num_cascade_stages)
        return self.box_predictor[stage](self.box_head[stage](pooled))

    @torch.no_grad()
    def _refined(
        self, stage: int, predictions: Predictions, proposals: list[Instances]
    ) -> list[Instances]:
        """The boxes that a stage predicts, clipped, as proposals of the next one.

        In training empty ones are dropped; at test time each row must keep its place, as the
        probabilities of all stages are averaged.
        """
        refined = []
        boxes = self.box_predictor[stage].predict_boxes(predictions, proposals)
        for boxes_i, proposals_i in zip(boxes, proposals, strict=True):
            assert boxes_i.shape[1] == 4, (
                f"CascadeROIHeads needs one box per proposal, got {boxes_i.shape[1] // 4}; "
                f"set cls_agnostic_bbox_reg=True in box_predictors[{stage}]"
            )
            clipped = Boxes(boxes_i)  # no_grad: without the gradient of the stage before
            clipped.clip(proposals_i.image_size)
            refined.append(Instances(proposals_i.image_size, proposal_boxes=clipped))
        if not self.training:
            return refined
        rows = true_rows([x.proposal_boxes.nonempty() for x in refined])
        return [x[rows_i] for x, rows_i in zip(refined, rows, strict=True)]

    @torch.no_grad()
    def _match_and_label_boxes(
        self, proposals: list[Instances], stage: int, targets: list[Instances]
    ) -> None:
        """Give proposals of a later stage their `gt_classes` and `gt_boxes`, in place."""
        gt_boxes = [x.gt_boxes for x in targets]
        matches, labels = match_images(
            self.proposal_matchers[stage], gt_boxes, [x.proposal_boxes for x in proposals]
        )
        classes = matched_classes(
            matches,
            labels.abs(),  # nothing is ignored: -1 counts as 1
            [x.gt_classes for x in targets],
            self.num_classes,
        )
        boxes = matched_boxes(matches, gt_boxes)
        classes = classes.split([len(x) for x in proposals])
        for proposals_i, classes_i, boxes_i in zip(proposals, classes, boxes, strict=True):
            proposals_i.gt_classes, proposals_i.gt_boxes = classes_i, Boxes(boxes_i)
        total, num_images = sum(map(len, proposals)), len(proposals)

        def scalars(counts: list[float]) -> dict[str, float]:
            return {
                "roi_head/num_fg_samples": sum(counts) / num_images,
                "roi_head/num_bg_samples": (total - sum(counts)) / num_images,
            }

        storage = get_event_storage()
        with storage.name_scope(f"stage{stage}"):
            storage.put_deferred(labels == 1, scalars)
